"""Who may connect to a local database: an observer, and a master user like RDS's."""

from collections.abc import Mapping

from local.servers import Flavor

# AWS, "Master user account privileges": no SUPER and no CONNECTION_ADMIN, so the master cannot take
# the spare connection above max_connections, nor end the sessions of other users.
MASTER_PRIVILEGES = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER, "
    "SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, REPLICATION SLAVE, "
    "REPLICATION CLIENT, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, CREATE USER, "
    "EVENT, TRIGGER"
)
MASTER_PRIVILEGES_MYSQL = (
    ", CREATE ROLE, DROP ROLE, APPLICATION_PASSWORD_ADMIN, ROLE_ADMIN, XA_RECOVER_ADMIN"
)


def account_statements(flavor: Flavor, name: str, passwords: Mapping[str, str]) -> list[str]:
    """Statements that make the observer, the master user and the schema; safe to repeat."""
    privileges = MASTER_PRIVILEGES
    if flavor == "mysql":
        privileges += MASTER_PRIVILEGES_MYSQL
    statements = [f"CREATE DATABASE IF NOT EXISTS `{name}`"]
    for account, granted in (
        ("observer'@'127.0.0.1", "ALL PRIVILEGES"),
        ("master'@'%", privileges),
    ):
        password = passwords[account.split("'")[0]]
        statements += [
            f"CREATE USER IF NOT EXISTS '{account}' IDENTIFIED BY '{password}'",
            f"ALTER USER '{account}' IDENTIFIED BY '{password}'",
            f"GRANT {granted} ON *.* TO '{account}' WITH GRANT OPTION",
        ]
    return statements
