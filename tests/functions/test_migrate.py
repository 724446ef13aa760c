"""Migrations go forward once, users get what they need, CloudFormation always gets an answer."""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pymysql
import pytest

from local.database import LocalDatabase
from tests.conftest import load_function
from tests.functions.conftest import ROOT, at_once, context, held_connections, read_event

FILES = sorted(path.name for path in ROOT.glob("functions/migrate/migrations/*.sql"))


@pytest.fixture
def app(database_server: LocalDatabase, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The function as the master user, on an empty schema."""
    # Its rights must come from the migration alone.
    database_server.execute("DROP USER application")
    environ = {
        **database_server.master_environ(),
        "APPLICATION_USER": "application",
        "APPLICATION_PASSWORD": database_server.application_environ()["DATABASE_PASSWORD"],
        "APPLICATION_MAX_USER_CONNECTIONS": "55",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return load_function("migrate")


@pytest.fixture
def write(
    app: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], None]:
    """Writes a migration; those of the shop are out of the way, and so are their grants."""
    monkeypatch.setattr(app, "MIGRATIONS", tmp_path)
    monkeypatch.setattr(app, "GRANTS", {})

    def write(file: str, sql: str) -> None:
        (tmp_path / file).write_text(sql)

    return write


def migrate(app: types.ModuleType, seconds: float = 30) -> list[str]:
    applied: list[str] = app.lambda_handler({}, context(seconds))["applied"]
    return applied


def refused(app: types.ModuleType) -> str:
    with pytest.raises(app.migrations.MigrationError) as refusal:
        migrate(app)
    return str(refusal.value)


class Listener:
    """An HTTP server that remembers what it was sent, and answers with `statuses`, then 200."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.body = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.command, dict(self.headers), body))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 200)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def do_POST(self) -> None:
                self.do_PUT()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def answer(self) -> dict[str, Any]:
        """The only answer there was."""
        [(method, headers, body)] = self.requests
        assert method == "PUT"
        assert headers["Content-Type"] == ""  # the signature of the URL covers it
        assert len(body) <= 4096
        answer: dict[str, Any] = json.loads(body)
        return answer


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    thread = threading.Thread(target=listener.server.serve_forever, args=(0.01,))
    thread.start()
    yield listener
    listener.server.shutdown()
    thread.join()
    listener.server.server_close()


# ── Statements ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("", []),
        (" ;; ;\n", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';'; SELECT 2", ["SELECT ';'", "SELECT 2"]),
        ("SELECT 'it''s; fine'; SELECT 2", ["SELECT 'it''s; fine'", "SELECT 2"]),
        (r"SELECT 'it\'s; fine'; SELECT 2", [r"SELECT 'it\'s; fine'", "SELECT 2"]),
        (r"SELECT '\\'; SELECT 2", [r"SELECT '\\'", "SELECT 2"]),
        ('SELECT "a;\'b"; SELECT 2', ['SELECT "a;\'b"', "SELECT 2"]),
        ("SELECT `a;b`; SELECT 2", ["SELECT `a;b`", "SELECT 2"]),
        ("-- one; it's\nSELECT 1; -- two; \"\n", ["SELECT 1"]),
        ("# one; `\nSELECT 1", ["SELECT 1"]),
        ("/* one; ' */ SELECT /* two;\n */ 1;", ["SELECT   1"]),
        ("SELECT /*+ NO_ICP(t) */ 1", ["SELECT /*+ NO_ICP(t) */ 1"]),
        ("/*!80000 SELECT 1; */", ["/*!80000 SELECT 1; */"]),
        ("SELECT 3--1; SELECT 2", ["SELECT 3--1", "SELECT 2"]),
        ("SELECT '-- no comment'", ["SELECT '-- no comment'"]),
        ("SELECT '/*'; SELECT '*/'", ["SELECT '/*'", "SELECT '*/'"]),
        ("SELECT '%s %'", ["SELECT '%s %'"]),
        ("SELECT 1 --", ["SELECT 1"]),
        ("/*M! SELECT 1; */", ["/*M! SELECT 1; */"]),
        ("CREATE PROCEDURE p() BEGIN END", ["CREATE PROCEDURE p() BEGIN END"]),
    ],
)
def test_a_file_is_split_where_a_statement_ends_and_nowhere_else(
    sql: str, statements: list[str]
) -> None:
    assert list(load_function("migrate").migrations.split(sql)) == statements


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT 1;\nSELECT 'open", "0001_x.sql: line 2: ' is opened and never closed"),
        ("SELECT `open", "0001_x.sql: line 1: ` is opened and never closed"),
        ("\n\n/* open", "0001_x.sql: line 3: /* is opened and never closed"),
        ("DELIMITER //\nSELECT 1//", "DELIMITER"),
        ("CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW BEGIN SET @a = 1; END;", "BEGIN"),
        ("CREATE PROCEDURE p() x: BEGIN SET @a = 1; END x;", "BEGIN"),
        ("CREATE PROCEDURE p() IF @a THEN SET @a = 1; END IF;", "BEGIN"),
        ("CREATE PROCEDURE p() REPEAT SET @a = 1; UNTIL @a END REPEAT;", "BEGIN"),
    ],
)
def test_a_file_that_cannot_be_split_is_refused(sql: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "0001_x.sql").write_text(sql)
    app = load_function("migrate")
    with pytest.raises(app.migrations.MigrationError) as refusal:
        app.migrations.read_migrations(tmp_path)
    assert problem in str(refusal.value)


# ── Applying ──────────────────────────────────────────────────────────────────────────────────


def test_migrations_are_applied_in_order_and_once(
    app: types.ModuleType, database_server: LocalDatabase
) -> None:
    assert migrate(app) == FILES
    assert migrate(app) == []
    tables = {next(iter(row.values())) for row in database_server.execute("SHOW TABLES")}
    assert tables == {*app.GRANTS, "schema_migrations"}
    assert database_server.sessions() == []


def test_a_changed_file_is_refused_by_name_and_nothing_is_applied(
    app: types.ModuleType, write: Callable[[str, str], None]
) -> None:
    write("0001_a.sql", "CREATE TABLE a (x INT)")
    migrate(app)
    for changed in ("CREATE TABLE a (x BIGINT)", "CREATE TABLE a (x INT); SELECT 1", ""):
        write("0001_a.sql", changed)
        write("0002_b.sql", "CREATE TABLE b (x INT)")
        assert "0001_a.sql was changed after" in refused(app)
    write("0001_a.sql", "-- Comments may change.\nCREATE TABLE a (x INT);\n")
    assert migrate(app) == ["0002_b.sql"]


def test_a_file_that_failed_half_way_goes_on_from_there(
    app: types.ModuleType, write: Callable[[str, str], None], database_server: LocalDatabase
) -> None:
    write(
        "0001_a.sql", "CREATE TABLE a (x INT); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)"
    )
    write("0002_b.sql", "INSERT INTO a VALUES (3)")
    for _ in range(2):
        problem = refused(app)
        assert "statement 3 of 3 of 0001_a.sql failed" in problem
        assert "INSERT INTO b" in problem
    write(
        "0001_a.sql", "CREATE TABLE a (x INT); INSERT INTO a VALUES (9); INSERT INTO a VALUES (2)"
    )
    assert "0001_a.sql was changed after its first 2 statements were applied" in refused(app)
    write(
        "0001_a.sql", "CREATE TABLE a (x INT); INSERT INTO a VALUES (1); INSERT INTO a VALUES (2)"
    )
    assert migrate(app) == ["0001_a.sql", "0002_b.sql"]
    assert [row["x"] for row in database_server.execute("SELECT x FROM a ORDER BY x")] == [1, 2, 3]
    assert migrate(app) == []


def test_a_statement_that_fails_leaves_nothing_of_itself(
    app: types.ModuleType, write: Callable[[str, str], None], database_server: LocalDatabase
) -> None:
    write("0001_a.sql", "CREATE TABLE a (x INT PRIMARY KEY); INSERT INTO a VALUES (1), (2), (1)")
    assert "Duplicate entry" in refused(app)
    assert database_server.execute("SELECT * FROM a") == []


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE a (x INT PRIMARY KEY, `begin` DATETIME, `end` DATETIME);",
        "CREATE TABLE a (x INT PRIMARY KEY, begin DATETIME, end DATETIME);",
        "CREATE TABLE a (x INT PRIMARY KEY COMMENT 'where to begin; and end');",
        "CREATE TABLE a (x INT, begin INT); CREATE VIEW b AS SELECT begin FROM a;",
        "BEGIN;\nCREATE TABLE a (x INT);\nINSERT INTO a VALUES (1);\nCOMMIT;",
        "CREATE TABLE a (x INT); START TRANSACTION; INSERT INTO a VALUES (1); COMMIT",
        "CREATE TABLE a (x INT); SET autocommit = 0; INSERT INTO a VALUES (1); SET autocommit = 1",
    ],
)
def test_begin_is_a_name_or_a_statement_like_any_other(
    app: types.ModuleType,
    write: Callable[[str, str], None],
    database_server: LocalDatabase,
    sql: str,
) -> None:
    write("0001_a.sql", sql)
    assert migrate(app) == ["0001_a.sql"]
    assert migrate(app) == []
    database_server.execute("SELECT x FROM a")


def test_a_transaction_of_the_files_own_is_all_or_nothing_and_begins_again(
    app: types.ModuleType, write: Callable[[str, str], None], database_server: LocalDatabase
) -> None:
    begun = "CREATE TABLE a (x INT PRIMARY KEY); BEGIN; INSERT INTO a VALUES (1);"
    write("0001_a.sql", f"{begun} INSERT INTO a VALUES (1); COMMIT")
    assert "statement 4 of 5" in refused(app)
    assert database_server.execute("SELECT x FROM a") == []
    write("0001_a.sql", f"{begun} INSERT INTO a VALUES (2)")
    assert "0001_a.sql begins a transaction and does not end it: add COMMIT" in refused(app)
    assert database_server.execute("SELECT x FROM a") == []
    write("0001_a.sql", f"{begun} INSERT INTO a VALUES (2); COMMIT")
    assert migrate(app) == ["0001_a.sql"]
    assert len(database_server.execute("SELECT x FROM a")) == 2


def test_a_table_in_use_is_waited_for_in_turns_and_others_get_through_meanwhile(
    app: types.ModuleType,
    write: Callable[[str, str], None],
    database_server: LocalDatabase,
    outsider: Any,
) -> None:
    """A waiting ALTER stops all who come after it: none of them for longer than a turn."""
    write("0001_a.sql", "CREATE TABLE a (x INT)")
    migrate(app)
    write("0002_b.sql", "ALTER TABLE a ADD COLUMN y INT")
    waits: list[float] = []
    outsider.begin()
    outsider.cursor().execute("SELECT * FROM a")

    def meanwhile() -> None:
        until = time.monotonic() + 3 * app.migrations.TURN_SECONDS
        while time.monotonic() < until:
            began = time.monotonic()
            database_server.execute("SELECT * FROM a")
            waits.append(time.monotonic() - began)
            time.sleep(0.05)
        outsider.rollback()

    thread = threading.Thread(target=meanwhile)
    thread.start()
    assert migrate(app) == ["0002_b.sql"]
    thread.join()
    assert app.migrations.TURN_SECONDS / 2 < max(waits) < app.migrations.TURN_SECONDS + 1.5


def test_a_table_that_stays_in_use_is_said_when_the_time_is_over(
    app: types.ModuleType,
    write: Callable[[str, str], None],
    database_server: LocalDatabase,
    outsider: Any,
) -> None:
    write("0001_a.sql", "CREATE TABLE a (x INT)")
    migrate(app)
    write("0002_b.sql", "ALTER TABLE a ADD COLUMN y INT")
    outsider.begin()
    outsider.cursor().execute("SELECT * FROM a")
    with pytest.raises(app.migrations.MigrationError, match="Lock wait timeout exceeded"):
        migrate(app, seconds=6)
    outsider.rollback()
    assert migrate(app) == ["0002_b.sql"]


def test_names_that_leave_the_order_open_are_refused(
    app: types.ModuleType, write: Callable[[str, str], None], tmp_path: Path
) -> None:
    write("add_a.sql", "SELECT 1")
    assert "add_a.sql must be named like 0007_what_it_does.sql" in refused(app)
    (tmp_path / "add_a.sql").unlink()
    write("0002_a.sql", "SELECT 1")
    write("0002_b.sql", "SELECT 1")
    assert "0002_a.sql and 0002_b.sql have the same number" in refused(app)
    (tmp_path / "0002_b.sql").unlink()
    migrate(app)
    write("0001_late.sql", "SELECT 1")
    assert "0001_late.sql comes before 0002_a.sql, which is applied" in refused(app)


def test_an_older_version_of_the_stack_leaves_newer_migrations_alone(
    app: types.ModuleType, write: Callable[[str, str], None], tmp_path: Path
) -> None:
    """CloudFormation rolls back by running the function as it was before."""
    write("0001_a.sql", "CREATE TABLE a (x INT)")
    write("0002_b.sql", "CREATE TABLE b (x INT); CREATE TABLE a (x INT)")
    assert "0002_b.sql" in refused(app)
    (tmp_path / "0002_b.sql").unlink()
    assert migrate(app) == []


def test_two_at_once_apply_everything_once(
    app: types.ModuleType, database_server: LocalDatabase
) -> None:
    environ = {
        **database_server.master_environ(),
        "APPLICATION_USER": "application",
        "APPLICATION_PASSWORD": "secret-of-the-application",
        "APPLICATION_MAX_USER_CONNECTIONS": "55",
    }
    answers = at_once(database_server, "migrate", [{}, {}], environ=environ)
    assert sorted((got.json()["applied"] for got in answers), key=len) == [[], FILES]


def test_one_that_waits_too_long_for_another_says_so(
    app: types.ModuleType, database_server: LocalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.migrations, "LOCK_SECONDS", 0)
    database_server.execute("SELECT GET_LOCK('shop.migrate', 0)")
    try:
        assert "another migration is running" in refused(app)
    finally:
        database_server.execute("SELECT RELEASE_LOCK('shop.migrate')")


# ── The application's user ────────────────────────────────────────────────────────────────────


def connect(database: LocalDatabase, password: str) -> Any:
    """From another process, as this one is guarded."""
    environ = {**database.application_environ(), "DATABASE_PASSWORD": password}
    return held_connections(environ)


def test_the_application_user_may_do_its_work_and_no_more(
    app: types.ModuleType, database_server: LocalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(app)
    for name, value in database_server.application_environ().items():
        monkeypatch.setenv(name, value)
    database = app.Database.from_environment()

    def execute(statement: str, _: object) -> int:
        try:
            with database.connection().cursor() as cursor:
                cursor.execute(statement)
        except pymysql.err.OperationalError as error:
            return int(error.args[0])
        return 0

    attempt = database.invocation(execute)

    allowed = (
        "SELECT * FROM products FOR UPDATE",
        "UPDATE products SET stock = stock + 1",
        "INSERT INTO orders (customer) VALUES ('Ada')",
    )
    denied = (
        "UPDATE products SET price_cents = 0",
        "DELETE FROM products",
        "DELETE FROM orders",
        "UPDATE orders SET customer = 'Eve'",
        "DELETE FROM stock_inbox",
        "DROP TABLE products",
        "CREATE TABLE t (x INT)",
        "SELECT * FROM schema_migrations",
        "SELECT * FROM mysql.user",
        "GRANT SELECT ON products TO application",
    )
    assert {statement: attempt(statement, context()) for statement in allowed} == dict.fromkeys(
        allowed, 0
    )
    codes = {statement: attempt(statement, context()) for statement in denied}
    assert set(codes.values()) <= {1142, 1143, 1044, 1045, 1227}, codes


def test_the_application_user_needs_tls_and_has_a_limit(
    app: types.ModuleType, database_server: LocalDatabase
) -> None:
    migrate(app)
    [user] = database_server.execute(
        "SELECT ssl_type AS tls, max_user_connections AS most FROM mysql.user"
        " WHERE User = 'application'"
    )
    tls = user["tls"].decode() if isinstance(user["tls"], bytes) else user["tls"]
    assert (tls, user["most"]) == ("ANY", 55)


@pytest.mark.parametrize("password", ["second-password", 'it\'s a "test" \\ %s `;-- '])
def test_migrating_again_sets_a_rotated_password(
    app: types.ModuleType,
    database_server: LocalDatabase,
    monkeypatch: pytest.MonkeyPatch,
    password: str,
) -> None:
    migrate(app)
    first = database_server.application_environ()["DATABASE_PASSWORD"]
    monkeypatch.setenv("APPLICATION_PASSWORD", password)
    migrate(app)
    with connect(database_server, password):
        pass
    with pytest.raises(AssertionError, match="could not open"), connect(database_server, first):
        pass


def test_wrong_settings_are_named_all_at_once(
    app: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("APPLICATION_USER")
    monkeypatch.setenv("APPLICATION_MAX_USER_CONNECTIONS", "many")
    with pytest.raises(app.application_user.InvalidSettingError) as refusal:
        migrate(app)
    assert "APPLICATION_SECRET_ARN, or APPLICATION_USER" in str(refusal.value)
    assert "APPLICATION_MAX_USER_CONNECTIONS must be above 0, and is 'many'" in str(refusal.value)


def test_the_password_comes_from_the_secret(
    app: types.ModuleType,
    database_server: LocalDatabase,
    monkeypatch: pytest.MonkeyPatch,
    listener: Listener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Through botocore itself, against a Secrets Manager of ours."""
    secret = {"username": "application", "password": "from-the-secret"}
    listener.body = json.dumps({"SecretString": json.dumps(secret)}).encode()
    for name in ("APPLICATION_USER", "APPLICATION_PASSWORD"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("APPLICATION_SECRET_ARN", "arn:aws:secretsmanager:us-east-1:1:secret:app")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", listener.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-the-role")
    caplog.set_level(logging.DEBUG)  # as AWS_LAMBDA_LOG_LEVEL=DEBUG does
    migrate(app)
    assert "from-the-secret" not in caplog.text
    assert "token-of-the-role" not in caplog.text
    assert json.loads(listener.requests[0][2])["SecretId"].endswith("secret:app")
    with connect(database_server, "from-the-secret"):
        pass


# ── CloudFormation ────────────────────────────────────────────────────────────────────────────


def from_cloudformation(listener: Listener, request_type: str, **more: object) -> dict[str, Any]:
    event = read_event("migrate.create")
    return {**event, "RequestType": request_type, "ResponseURL": f"{listener.url}/?a=b%2Fc", **more}


def test_create_and_update_migrate_and_answer_success_with_the_same_id(
    app: types.ModuleType, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    event = from_cloudformation(listener, "Create")
    caplog.set_level(logging.DEBUG)
    app.lambda_handler(event, context())
    assert "a=b%2Fc" not in caplog.text  # the signature of the address that takes the answer
    created = listener.answer
    assert (created["Status"], created["Reason"]) == ("SUCCESS", f"Applied: {', '.join(FILES)}.")
    for name in ("StackId", "RequestId", "LogicalResourceId"):
        assert created[name] == event[name]
    listener.requests.clear()
    given = created["PhysicalResourceId"]
    app.lambda_handler(from_cloudformation(listener, "Update", PhysicalResourceId=given), context())
    assert (listener.answer["Status"], listener.answer["Reason"]) == (
        "SUCCESS",
        "Applied: nothing new.",
    )
    assert listener.answer["PhysicalResourceId"] == given


def test_delete_touches_nothing_and_needs_no_database(listener: Listener) -> None:
    event = from_cloudformation(listener, "Delete", PhysicalResourceId="given-at-creation")
    load_function("migrate").lambda_handler(event, context())
    assert listener.answer["Status"] == "SUCCESS"
    assert listener.answer["PhysicalResourceId"] == "given-at-creation"


def test_an_unknown_request_type_is_answered_failed(listener: Listener) -> None:
    load_function("migrate").lambda_handler(from_cloudformation(listener, "Replace"), context())
    assert listener.answer["Status"] == "FAILED"
    assert "Create, Update or Delete, and is 'Replace'" in listener.answer["Reason"]


def test_missing_settings_are_answered_failed(listener: Listener) -> None:
    load_function("migrate").lambda_handler(from_cloudformation(listener, "Create"), context())
    assert listener.answer["Status"] == "FAILED"
    assert listener.answer["Reason"].startswith("SettingsError: ")
    assert "DATABASE_HOST is missing" in listener.answer["Reason"]


def test_a_failed_migration_is_answered_failed_and_not_raised(
    app: types.ModuleType, write: Callable[[str, str], None], listener: Listener
) -> None:
    """Raised, it would make Lambda run the event again, after CloudFormation has rolled back."""
    write("0001_a.sql", "CREATE TABLE")
    app.lambda_handler(from_cloudformation(listener, "Create"), context())
    assert listener.answer["Status"] == "FAILED"
    assert "statement 1 of 1 of 0001_a.sql failed" in listener.answer["Reason"]


@pytest.mark.parametrize("text", ["ошибка ", '"\\\n', "\x00", "\N{BUG}"])
def test_a_reason_of_any_length_and_alphabet_fits(
    monkeypatch: pytest.MonkeyPatch, listener: Listener, text: str
) -> None:
    app = load_function("migrate")

    def fail(*_: object) -> None:
        raise RuntimeError(text * 5000)

    monkeypatch.setattr(app, "migrate", fail)
    app.lambda_handler(from_cloudformation(listener, "Create"), context())
    assert listener.answer["Reason"].startswith(f"RuntimeError: {text}")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_whatever_ends_the_work_is_answered(
    app: types.ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    listener: Listener,
    error: BaseException,
) -> None:
    def end(*_: object) -> None:
        raise error

    monkeypatch.setattr(app, "migrate", end)
    app.lambda_handler(from_cloudformation(listener, "Create"), context())
    assert listener.answer["Status"] == "FAILED"


def test_a_migration_over_its_time_is_cut_and_answered_in_time(
    app: types.ModuleType,
    write: Callable[[str, str], None],
    listener: Listener,
    database_server: LocalDatabase,
) -> None:
    write("0001_slow.sql", "DO SLEEP(30)")
    started = time.monotonic()
    app.lambda_handler(from_cloudformation(listener, "Create"), context(4))
    assert time.monotonic() - started < 3.5
    assert listener.answer["Status"] == "FAILED"
    assert "0001_slow.sql failed" in listener.answer["Reason"]
    assert database_server.sessions() == []


def test_work_that_hangs_elsewhere_is_answered_in_time_and_only_once(
    app: types.ModuleType, monkeypatch: pytest.MonkeyPatch, listener: Listener
) -> None:
    def hang(*_: object) -> str:
        time.sleep(1)
        return "application"

    monkeypatch.setattr(app.migrations, "apply_new", lambda *_: [])
    monkeypatch.setattr(app.application_user, "set_users", hang)
    app.lambda_handler(from_cloudformation(listener, "Create"), context(1.4))
    assert listener.answer["Status"] == "FAILED"
    assert "Not done within this function's timeout" in listener.answer["Reason"]


def test_no_answer_holds_a_password(
    app: types.ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    listener: Listener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A syntax error of the server quotes the statement: here just before the password."""
    monkeypatch.setenv("APPLICATION_PASSWORD", "hunter2-hunter2")
    monkeypatch.setattr(app, "GRANTS", {"products": "NONSENSE 'hunter2-hunter2'"})
    app.lambda_handler(from_cloudformation(listener, "Create"), context())
    assert "user 'application' cannot be set up, error 1064" in listener.answer["Reason"]
    assert "hunter2" not in listener.answer["Reason"]
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("sql", ["NONSENSE", "SELECT"])
def test_no_frame_of_an_error_holds_a_password(
    app: types.ModuleType, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    """Error trackers send each frame's variables, of the errors before it too."""
    monkeypatch.setenv("APPLICATION_PASSWORD", "hunter2-hunter2")
    monkeypatch.setattr(app, "GRANTS", {"no_such_table": sql})
    with pytest.raises(app.migrations.MigrationError) as failure:
        migrate(app)
    seen: BaseException | None = failure.value
    while seen is not None:
        shown = traceback.TracebackException.from_exception(seen, capture_locals=True)
        assert "hunter2" not in "".join(shown.format(chain=False))
        seen = seen.__context__


def test_an_answer_is_sent_again_when_it_does_not_get_through(listener: Listener) -> None:
    listener.statuses = [503, 500]
    load_function("migrate").lambda_handler(from_cloudformation(listener, "Delete"), context())
    assert [json.loads(body)["Status"] for _, _, body in listener.requests] == ["SUCCESS"] * 3


@pytest.mark.parametrize("status", [403, 503])
def test_an_answer_that_is_not_taken_is_raised_so_that_lambda_tries_again(
    listener: Listener, status: int
) -> None:
    app = load_function("migrate")
    listener.statuses = [status] * 9
    with pytest.raises(app.cloudformation.UnansweredError):
        app.lambda_handler(from_cloudformation(listener, "Delete"), context())


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ({"RequestType": "Create"}, "ResponseURL, StackId"),
        ({**read_event("migrate.create"), "ResponseURL": ["http://127.0.0.1"]}, "ResponseURL"),
        ({**read_event("migrate.create"), "PhysicalResourceId": "x" * 5000}, "ids fill"),
        ([], "must be a JSON object"),
        (None, "must be a JSON object"),
        ({"action": "rollback"}, "action must be migrate, and is 'rollback'"),
    ],
)
def test_an_event_that_cannot_be_answered_is_refused_before_any_work(
    event: Any, problem: str
) -> None:
    app = load_function("migrate")
    with pytest.raises(app.cloudformation.InvalidEventError, match=problem):
        app.lambda_handler(event, context())
