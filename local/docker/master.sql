-- The master user, with what RDS gives its own: everything but the server itself (no SUPER, no FILE,
-- no SHUTDOWN). Run once, when the volume of compose.yaml is new. No secret: see compose.yaml.
CREATE USER 'master'@'%' IDENTIFIED BY 'not-a-secret-master' REQUIRE SSL;
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER,
  SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW,
  CREATE ROUTINE, ALTER ROUTINE, CREATE USER, EVENT, TRIGGER, ROLE_ADMIN
  ON *.* TO 'master'@'%' WITH GRANT OPTION;
