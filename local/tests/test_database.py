"""The throw-away database behaves like the one in AWS, and nothing of it is left behind."""

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymysql
import pytest

from local.certificates import write_certificates
from local.database import LocalDatabase, LocalDatabaseError
from local.prepared import prepare
from local.servers import Server

ROOT = Path(__file__).resolve().parents[2]
Connect = Callable[..., "pymysql.Connection[Any]"]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens connections that are closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def connect(environ: dict[str, str], **changes: Any) -> "pymysql.Connection[Any]":
            arguments: dict[str, Any] = {
                "host": environ["DATABASE_HOST"],
                "port": int(environ["DATABASE_PORT"]),
                "user": environ["DATABASE_USER"],
                "password": environ["DATABASE_PASSWORD"],
                "database": environ["DATABASE_NAME"],
                "ssl": ssl.create_default_context(cafile=environ["DATABASE_CA_FILE"]),
                "autocommit": True,
                "read_timeout": 20,
            }
            connection = pymysql.connect(**{**arguments, **changes})
            stack.callback(quietly_close, connection)
            return connection

        yield connect


def quietly_close(connection: "pymysql.Connection[Any]") -> None:
    with contextlib.suppress(pymysql.err.Error):
        connection.close()


def run(connection: "pymysql.Connection[Any]", statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def command_line(pid: int) -> str:
    """Empty once the process has ended, even if nobody has asked yet how."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    asked = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return "" if shown.startswith("(") else shown  # macOS puts what has ended into brackets


def is_running(pid: int) -> bool:
    return bool(command_line(pid))


def eventually(true: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# --- like the one in AWS -----------------------------------------------------------------------


def test_plain_text_is_refused(database_server: LocalDatabase, connect: Connect) -> None:
    with pytest.raises(pymysql.err.OperationalError) as refused:
        connect(database_server.master_environ(), ssl=None, ssl_disabled=True)
    assert refused.value.args[0] in {3159, 1045}  # MySQL says why, MariaDB does not


def test_a_certificate_of_another_authority_is_refused(
    database_server: LocalDatabase, connect: Connect, tmp_path: Path
) -> None:
    environ = database_server.master_environ()
    environ["DATABASE_CA_FILE"] = str(write_certificates(tmp_path).ca_file)
    with pytest.raises(pymysql.err.OperationalError, match="certificate verify failed"):
        connect(environ)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_certificate_holds_under_strict_verification(
    database_server: LocalDatabase, connect: Connect, host: str
) -> None:
    environ = database_server.master_environ()
    context = ssl.create_default_context(cafile=environ["DATABASE_CA_FILE"])
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    connection = connect(environ, ssl=context, host=host)
    assert run(connection, "SHOW STATUS LIKE 'Ssl_version'")[0][1] in {"TLSv1.2", "TLSv1.3"}


def test_all_65_connections_can_be_taken_the_next_gets_1040_and_the_observer_still_sees(
    database_server: LocalDatabase, connect: Connect
) -> None:
    environ = database_server.master_environ()
    for _ in range(65):
        connect(environ)
    for _ in range(3):
        with pytest.raises(pymysql.err.OperationalError) as refused:
            connect(environ)
        assert refused.value.args[0] == 1040
    assert len(database_server.sessions()) == 65
    assert database_server.status("Threads_connected") == 65
    database_server.end_sessions()
    assert database_server.sessions() == []
    assert run(connect(environ), "SELECT 1") == ((1,),)


def test_the_application_user_may_hold_55_of_them(
    database_server: LocalDatabase, connect: Connect
) -> None:
    environ = database_server.application_environ()
    for _ in range(55):
        connect(environ)
    with pytest.raises(pymysql.err.OperationalError) as refused:
        connect(environ)
    assert refused.value.args[0] == 1226
    assert run(connect(database_server.master_environ()), "SELECT 1") == ((1,),)


def test_the_application_user_reads_and_writes_its_schema_and_nothing_else(
    database_server: LocalDatabase, connect: Connect
) -> None:
    database_server.execute("CREATE TABLE t (n INT)")
    connection = connect(database_server.application_environ())
    run(connection, "INSERT INTO t VALUES (1)")
    run(connection, "UPDATE t SET n = 2")
    assert run(connection, "SELECT n FROM t") == ((2,),)
    run(connection, "DELETE FROM t")
    for forbidden in ("DROP TABLE t", "CREATE TABLE u (n INT)", "SELECT * FROM mysql.user"):
        with pytest.raises(pymysql.err.OperationalError) as refused:
            run(connection, forbidden)
        assert refused.value.args[0] == 1142


def test_the_master_user_can_do_what_rds_lets_it(
    database_server: LocalDatabase, connect: Connect
) -> None:
    connection = connect(database_server.master_environ())
    run(connection, "CREATE TABLE t (n INT)")
    run(connection, "CREATE USER 'someone'@'%' IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 5")
    run(connection, "GRANT SELECT ON shop.t TO 'someone'@'%'")
    other = connect(database_server.application_environ())
    for forbidden in (f"KILL {other.thread_id()}", "SET GLOBAL max_connections = 1000"):
        with pytest.raises(pymysql.err.MySQLError) as refused:
            run(connection, forbidden)
        assert refused.value.args[0] in {1095, 1227}


def test_sessions_are_the_servers_own_list(
    database_server: LocalDatabase, connect: Connect
) -> None:
    connection = connect(database_server.application_environ())
    # The server says yes to a login a moment before it lists the session as idle.
    assert eventually(lambda: [s.command for s in database_server.sessions()] == ["Sleep"])
    (session,) = database_server.sessions()
    assert session.id == connection.thread_id()
    assert (session.user, session.db) == ("application", "shop")
    assert session.host.startswith("127.0.0.1:")
    assert isinstance(session.time, int)
    connection.close()
    assert eventually(lambda: database_server.sessions() == [])


def test_a_lost_connection_is_rolled_back_and_so_are_its_locks(
    database_server: LocalDatabase, connect: Connect
) -> None:
    database_server.execute("CREATE TABLE t (n INT) ENGINE = InnoDB")
    connection = connect(database_server.application_environ(), autocommit=False)
    run(connection, "INSERT INTO t VALUES (1)")
    database_server.end_sessions()
    database_server.execute("LOCK TABLES t WRITE")
    database_server.execute("UNLOCK TABLES")
    assert database_server.execute("SELECT * FROM t") == []


def test_an_unknown_status_is_named(database_server: LocalDatabase) -> None:
    with pytest.raises(LocalDatabaseError, match="no status variable 'Threads_conected'"):
        database_server.status("Threads_conected")


# --- a clean state -----------------------------------------------------------------------------


def test_a_reset_undoes_whatever_a_test_did(
    database_server: LocalDatabase, connect: Connect
) -> None:
    before = database_server.execute("SHOW GLOBAL VARIABLES")
    connect(database_server.master_environ())
    database_server.execute("SET GLOBAL wait_timeout = 7, long_query_time = 0.5")
    database_server.execute("SET GLOBAL sql_mode = 'ANSI', max_connections = 11")
    database_server.execute("SET SESSION time_zone = '+05:00'")
    database_server.create_schema("other")
    database_server.execute("CREATE TABLE t (n INT)")
    database_server.execute("CREATE USER 'someone'@'%'")
    database_server.execute("DROP USER 'application'@'%'")
    database_server.execute("ALTER USER 'master'@'%' IDENTIFIED BY 'rotated'")

    database_server.reset()

    assert database_server.sessions() == []
    assert database_server.execute("SHOW GLOBAL VARIABLES") == before
    assert database_server.execute("SELECT @@time_zone AS zone") == [{"zone": "SYSTEM"}]
    assert database_server.execute("SHOW TABLES") == []
    assert database_server.execute("SHOW DATABASES LIKE 'other'") == []
    users = {row["user"] for row in database_server.execute("SELECT user AS user FROM mysql.user")}
    assert users >= {"master", "application"}
    assert "someone" not in users
    for environ in (database_server.master_environ(), database_server.application_environ()):
        assert run(connect(environ), "SELECT 1") == ((1,),)


def test_a_dropped_schema_can_be_made_again(database_server: LocalDatabase) -> None:
    database_server.execute("CREATE TABLE t (n INT)")
    database_server.drop_schema("shop")
    database_server.create_schema("shop")
    assert database_server.execute("SHOW TABLES") == []


# --- coming and going --------------------------------------------------------------------------


@pytest.fixture
def kind(server: LocalDatabase) -> Server:
    return server.server


def test_what_was_committed_survives_a_kill_and_a_restart_at_the_same_place(
    kind: Server, tmp_path: Path, connect: Connect
) -> None:
    with LocalDatabase(kind, tmp_path) as database:
        environ = database.master_environ()
        database.execute("CREATE TABLE t (n INT PRIMARY KEY) ENGINE = InnoDB")
        connection = connect(environ)
        run(connection, "INSERT INTO t VALUES (1)")
        first = database.pid
        database.kill()
        assert not is_running(first)
        with pytest.raises(pymysql.err.OperationalError) as lost:
            run(connection, "SELECT 1")
        assert lost.value.args[0] in {2006, 2013}
        with pytest.raises(LocalDatabaseError, match="not running"):
            _ = database.pid
        database.restart()
        assert database.master_environ() == environ
        assert run(connect(environ), "SELECT n FROM t") == ((1,),)

        os.kill(database.pid, signal.SIGSTOP)  # a reset thaws, and starts what a test has killed
        database.reset()
        database.kill()
        database.reset()
        assert run(connect(environ), "SHOW TABLES") == ()
        directory, last = database.directory, database.pid
    assert not is_running(last)
    assert not directory.exists()
    assert list(tmp_path.iterdir()) == []
    database.stop()


def test_two_run_side_by_side_with_certificates_of_their_own(
    server: LocalDatabase, tmp_path: Path, connect: Connect
) -> None:
    with LocalDatabase(server.server, tmp_path, max_connections=10) as other:
        assert other.port != server.port
        with pytest.raises(pymysql.err.OperationalError, match="certificate verify failed"):
            connect({**other.master_environ(), "DATABASE_CA_FILE": str(server.ca_file)})
        for _ in range(10):
            connect(other.master_environ())
        with pytest.raises(pymysql.err.OperationalError) as refused:
            connect(other.master_environ())
        assert refused.value.args[0] == 1040
        with pytest.raises(LocalDatabaseError, match="running already"):
            other.start()


PARENT = """
import sys
from pathlib import Path
from local.database import LocalDatabase
from local.servers import require_server
with LocalDatabase(require_server(sys.argv[1]), Path(sys.argv[2])) as database:
    print(database.pid, flush=True)
    sys.stdin.read()
"""


def test_a_server_that_starts_leaves_the_temporary_tables_of_another_alone(
    database_server: LocalDatabase, connect: Connect, tmp_path: Path
) -> None:
    connection = connect(database_server.master_environ())
    run(connection, "CREATE TEMPORARY TABLE kept (n INT) ENGINE=MyISAM")
    run(connection, "INSERT INTO kept VALUES (1)")
    with LocalDatabase(database_server.server, tmp_path):
        run(connection, "ALTER TABLE kept ADD COLUMN more INT")  # puts other files in their place
        assert run(connection, "SELECT n FROM kept") == ((1,),)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_parent_dies(
    either_server: Server, tmp_path: Path, how: signal.Signals
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, either_server.flavor, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        (directory,) = tmp_path.iterdir()
        parent.send_signal(how)
        parent.communicate(timeout=20)  # nobody keeps our pipes open either
    assert eventually(lambda: not is_running(pid))
    assert eventually(lambda: not directory.exists())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_neither_stops_the_database_nor_talks_on_its_parents_connection(
    database_server: LocalDatabase,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12+: fork beside threads
        child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            parents = database_server.execute("SELECT CONNECTION_ID() AS id")
            database_server.stop()
            os._exit(0 if parents else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert database_server.execute("SELECT 1 AS one") == [{"one": 1}]
    assert is_running(database_server.pid)


# --- what can go wrong -------------------------------------------------------------------------


def test_a_server_that_cannot_start_ends_in_its_own_last_words(
    kind: Server, tmp_path: Path
) -> None:
    with pytest.raises(LocalDatabaseError, match="klingon") as failed:
        LocalDatabase(kind, tmp_path, options=("--character-set-server=klingon",)).start()
    assert f"{kind} did not start (exit status" in str(failed.value)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_one_clear_sentence(server: LocalDatabase, tmp_path: Path) -> None:
    with pytest.raises(LocalDatabaseError, match=f"Port {server.port} is taken: stop what"):
        LocalDatabase(server.server, tmp_path, port=server.port).start()
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_gone_is_one_clear_sentence(tmp_path: Path) -> None:
    gone = Server("mysql", "8.4.0", (str(tmp_path / "mysqld"),), tmp_path)
    with pytest.raises(LocalDatabaseError, match=r"MySQL 8\.4\.0 cannot be run: .*mysqld"):
        prepare(gone, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_passwords_show_neither_in_repr_nor_in_the_process_list(server: LocalDatabase) -> None:
    passwords = [
        environ["DATABASE_PASSWORD"]
        for environ in (server.master_environ(), server.application_environ())
    ]
    assert len(set(passwords)) == 2
    shown = command_line(server.pid)
    assert f"--port={server.port}" in shown
    for text in (repr(server), shown, server.log):
        assert not any(password in text for password in passwords)


def test_it_listens_on_this_machine_only(server: LocalDatabase) -> None:
    rows = server.execute("SHOW GLOBAL VARIABLES LIKE 'bind_address'")
    assert [row["Value"] for row in rows] == ["127.0.0.1"]


def test_several_workers_preparing_at_once_make_the_data_once(
    either_server: Server, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(3) as workers:
        made = list(workers.map(lambda _: prepare(either_server, tmp_path), range(3)))
    assert len(set(made)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".lock", made[0].name])


def test_fewer_connections_than_mariadb_allows_are_refused_here_and_not_silently_raised(
    tmp_path: Path,
) -> None:
    mariadb = Server("mariadb", "10.11.0", ("mariadbd",), tmp_path)
    with pytest.raises(LocalDatabaseError, match="MariaDB takes 10 connections at least, not 9"):
        LocalDatabase(mariadb, tmp_path, max_connections=9)
