"""A throw-away MySQL or MariaDB: like the instance in AWS where connections are concerned.

    with LocalDatabase(require_server("mysql"), directory) as database:
        database.master_environ()    # what a function needs in its environment
        database.sessions()          # what the server says about who is connected

65 connections, TLS with a certificate authority of its own and nothing without TLS, users like
RDS's. It listens on 127.0.0.1 only, on free ports, and is gone with its directory when it is
stopped, or when the process that started it dies in whatever way.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymysql
from pymysql.cursors import DictCursor

from local.certificates import write_certificates
from local.servers import BUILD, Server, locked

Row = dict[str, Any]

START_SECONDS = 60.0
SYSTEM_SCHEMAS = frozenset({"information_schema", "mysql", "performance_schema", "sys"})

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

# Outlives its parent by a moment: reads the server's process id until the pipe closes, which the
# kernel does however the parent dies, then ends the server and takes its files away. The kernel's
# own parent-death signal would fire when the starting *thread* ends, could not remove files, and
# exists on Linux alone.
KEEPER = """
while read -r next; do server=$next; done
if [ -n "$server" ]; then
    kill -9 "$server" 2>/dev/null
    for turn in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$server" 2>/dev/null && sleep 0.1; done
fi
rm -rf -- "$1"
"""


class LocalDatabaseError(Exception):
    """The throw-away database cannot do what it was asked to."""


@dataclass(frozen=True)
class Session:
    """One line of the server's own list of sessions; `time` in seconds spent in `state`."""

    id: int
    user: str
    host: str
    db: str | None
    command: str
    time: int
    state: str | None
    info: str | None


class LocalDatabase:
    """A database server of our own: nothing of it is left when it stops, or when we die.

    Args:
        server: what to run, from `local.servers`.
        directory: where it keeps its files, in a new directory that it removes.
        max_connections: the limit the essay is about.
        port: a certain port; the default is a free one.
        bind: the address to listen on; "0.0.0.0" lets containers in.
        name: the schema that exists from the start.
        max_user_connections: what the application user may hold at once.
        options: further server options, such as "--wait-timeout=5".

    """

    def __init__(
        self,
        server: Server,
        directory: Path,
        *,
        max_connections: int = 65,
        port: int | None = None,
        bind: str = "127.0.0.1",
        name: str = "shop",
        max_user_connections: int = 55,
        options: tuple[str, ...] = (),
    ) -> None:
        if server.flavor == "mariadb" and max_connections < 10:
            raise LocalDatabaseError(
                f"MariaDB takes 10 connections at least, not {max_connections}: ask for more."
            )
        self.server = server
        self.host = "127.0.0.1"
        self.port = port or 0
        self.name = name
        self.max_connections = max_connections
        self.max_user_connections = max_user_connections
        self.directory = Path()  # set by start()
        self.ca_file = Path()
        self._parent_directory = Path(directory)
        self._asked_port = port
        self._bind = bind
        self._options = options
        self._observer_port = 0
        self._passwords = {
            user: secrets.token_urlsafe(16) for user in ("observer", "master", "application")
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._observer: pymysql.Connection[DictCursor] | None = None
        self._observer_owner = 0
        self._observing = threading.RLock()
        self._variables: dict[str, str] = {}

    def __repr__(self) -> str:
        """No password in it."""
        return f"<LocalDatabase {self.server} on {self.host}:{self.port}>"

    # --- life -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Start, and return when it can be connected to.

        Raises:
            LocalDatabaseError: it cannot start; the message ends with the server's own last words.

        """
        if self._keeper:
            raise LocalDatabaseError(f"{self!r} is running already: stop it first.")
        if self._asked_port and not _is_free(self._bind, self._asked_port):
            raise LocalDatabaseError(
                f"Port {self._asked_port} is taken: stop what listens there, or ask for another."
            )
        prepared = prepare(self.server)
        self._parent_directory.mkdir(parents=True, exist_ok=True)
        prefix = f"{self.server.flavor}-"
        self.directory = Path(tempfile.mkdtemp(prefix=prefix, dir=self._parent_directory)).resolve()
        self.directory.chmod(0o755)  # a container's user may read the CA; what is secret is 600
        self._owner = os.getpid()
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "keeper", str(self.directory)],
            stdin=subprocess.PIPE,
            # Whoever reads our output must not wait for the keeper to end as well.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for us; the keeper acts when we are gone
        )
        try:
            self.ca_file = write_certificates(self.directory / "tls").ca_file
            shutil.copytree(prepared, self.directory / "data")
            (self.directory / "data").chmod(0o700)
            (self.directory / "tmp").mkdir(0o700)
            self._launch(ports_may_change=True)
            self._variables = self._global_variables()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop, and remove everything; a second time does nothing."""
        if not self._keeper or os.getpid() != self._owner:
            return  # never started, stopped before, or we are a forked child
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        assert self._keeper.stdin  # noqa: S101  (a pipe was asked for)
        self._keeper.stdin.close()
        self._keeper.wait()
        self._keeper = None

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL), and return when it is gone.

        What was committed is still there after `restart()`.
        """
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Shut down in order (if running), and start again: same port, passwords and data."""
        if not self._keeper:
            raise LocalDatabaseError("The database was never started: call start() first.")
        self._end(signal.SIGTERM)
        self._launch(ports_may_change=False)

    @property
    def pid(self) -> int:
        """The server's process id."""
        if not self._process:
            raise LocalDatabaseError("The database is not running: call start() or restart().")
        return self._process.pid

    @property
    def log(self) -> str:
        """The server's error log."""
        file = self.directory / "error.log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def _observer_counts(self) -> int:
        """How many of the server's connections the observer's permanent one takes.

        MariaDB keeps its extra port out of all counts. MySQL never refuses an administrator at its
        admin port, but counts them: so there, the limit is one more than asked for.
        """
        return 1 if self.server.flavor == "mysql" else 0

    def _end(self, how: signal.Signals) -> None:
        self._forget_observer()
        process, self._process = self._process, None
        if not process:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # it may have been frozen by a test
            process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._tell_keeper("")

    def _launch(self, *, ports_may_change: bool) -> None:
        """Start the process; another port when someone else was faster."""
        for attempt in range(1, 6):
            if ports_may_change:
                self.port = self._asked_port or _free_port(self._bind)
                self._observer_port = _free_port("127.0.0.1")
            (self.directory / "error.log").unlink(missing_ok=True)
            (self.directory / "init.sql").touch(mode=0o600)
            (self.directory / "init.sql").write_text("\n".join(self._accounts()) + "\n")
            try:
                self._process = self._spawn()
                self._tell_keeper(str(self._process.pid))
                self._wait_until_ready(self._process)
            except LocalDatabaseError:
                self._end(signal.SIGKILL)
                taken = "Address already in use" in self.log
                if not (taken and ports_may_change and attempt < 5):
                    raise
            else:
                return

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.directory / "error.log").open("wb") as log:
            try:
                return subprocess.Popen(
                    [*self.server.command, *self._server_options()],
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise LocalDatabaseError(f"{self.server} cannot be run: {error}.") from error

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise LocalDatabaseError(
                    f"{self.server} did not start (exit status {process.returncode}); "
                    f"the end of its log:\n{_tail(self.log)}"
                )
            try:
                self.execute("SELECT 1")
            except pymysql.err.MySQLError:
                time.sleep(0.02)
            else:
                return
        raise LocalDatabaseError(
            f"{self.server} did not answer within {START_SECONDS:.0f} seconds; "
            f"the end of its log:\n{_tail(self.log)}"
        )

    def _tell_keeper(self, line: str) -> None:
        if self._keeper and self._keeper.stdin:
            self._keeper.stdin.write(f"{line}\n".encode())
            self._keeper.stdin.flush()

    def _server_options(self) -> list[str]:
        tls = self.directory / "tls"
        options = [
            *_common_options(self.server, self.directory / "data"),
            f"--init-file={self.directory / 'init.sql'}",
            f"--port={self.port}",
            f"--bind-address={self._bind}",
            f"--ssl-cert={tls / 'server.pem'}",
            f"--ssl-key={tls / 'server.key'}",
            "--require-secure-transport=ON",
            # As the template's parameter group sets them.
            f"--max-connections={self.max_connections + self._observer_counts}",
            f"--thread-cache-size={self.max_connections}",
            "--skip-name-resolve",
            "--performance-schema=OFF",
            # A test that breaks connections by the hundred must not be locked out for it.
            "--max-connect-errors=1000000000",
        ]
        # A door for the observer that stays open when all connections are taken.
        if self.server.flavor == "mysql":
            options += ["--admin-address=127.0.0.1", f"--admin-port={self._observer_port}"]
        else:
            options += [f"--extra-port={self._observer_port}", "--extra-max-connections=10"]
        return [*options, *self._options]

    # --- who may connect ----------------------------------------------------------------------

    def master_environ(self) -> dict[str, str]:
        """What the layer's settings need to connect as the master user."""
        return self._environ("master")

    def application_environ(self) -> dict[str, str]:
        """The same for the application user, once the migration has made it."""
        return self._environ("application")

    def _environ(self, user: str) -> dict[str, str]:
        return {
            "DATABASE_HOST": self.host,
            "DATABASE_PORT": str(self.port),
            "DATABASE_NAME": self.name,
            "DATABASE_USER": user,
            "DATABASE_PASSWORD": self._passwords[user],
            "DATABASE_CA_FILE": str(self.ca_file),
        }

    def create_application_user(self) -> None:
        """Make the application user as the migration does: four verbs, one schema, a limit."""
        account = "'application'@'%'"
        self.execute(f"DROP USER IF EXISTS {account}")
        self.execute(
            f"CREATE USER {account} IDENTIFIED BY '{self._passwords['application']}' "
            f"WITH MAX_USER_CONNECTIONS {self.max_user_connections}"
        )
        self.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{self.name}`.* TO {account}")

    def _accounts(self) -> list[str]:
        """Statements that make the observer, the master user and the schema; safe to repeat."""
        privileges = MASTER_PRIVILEGES
        if self.server.flavor == "mysql":
            privileges += MASTER_PRIVILEGES_MYSQL
        statements = [f"CREATE DATABASE IF NOT EXISTS `{self.name}`"]
        for account, granted in (
            ("observer'@'127.0.0.1", "ALL PRIVILEGES"),
            ("master'@'%", privileges),
        ):
            password = self._passwords[account.split("'")[0]]
            statements += [
                f"CREATE USER IF NOT EXISTS '{account}' IDENTIFIED BY '{password}'",
                f"ALTER USER '{account}' IDENTIFIED BY '{password}'",
                f"GRANT {granted} ON *.* TO '{account}' WITH GRANT OPTION",
            ]
        return [f"{statement};" for statement in statements]

    # --- what the server says ------------------------------------------------------------------

    def execute(self, statement: str, *arguments: object) -> list[Row]:
        """Run a statement as the observer, in the schema `name`; rows as dicts.

        Works when every connection is taken, and is none of them. One at a time.
        """
        with self._observing:
            try:
                connection = self._observe()
                with connection.cursor() as cursor:
                    cursor.execute(statement, arguments or None)
                    return list(cursor.fetchall())
            except (pymysql.err.OperationalError, pymysql.err.InterfaceError):
                self._forget_observer()
                raise

    def sessions(self) -> list[Session]:
        """The server's own list of sessions, without the observer's and its own threads."""
        rows = self.execute(
            "SELECT ID, USER, HOST, DB, COMMAND, TIME, STATE, INFO "
            "FROM information_schema.PROCESSLIST WHERE COMMAND <> 'Daemon' "
            "AND USER NOT IN ('observer', 'system user', 'event_scheduler') ORDER BY ID"
        )
        return [Session(**{column.lower(): value for column, value in row.items()}) for row in rows]

    def status(self, name: str) -> int:
        """A global counter of the server; the observer is left out of Threads_connected."""
        rows = self.execute("SHOW GLOBAL STATUS LIKE %s", name)
        if not rows:
            raise LocalDatabaseError(f"{self.server} has no status variable {name!r}.")
        value = int(rows[0]["Value"])
        return value - self._observer_counts if name.lower() == "threads_connected" else value

    def _observe(self) -> pymysql.Connection[DictCursor]:
        if self._observer and self._observer_owner != os.getpid():
            self._forget_observer()  # a forked child must not talk on its parent's connection
        if not self._observer:
            connection = pymysql.connect(
                host="127.0.0.1",
                port=self._observer_port,
                user="observer",
                password=self._passwords["observer"],
                ssl=ssl.create_default_context(cafile=str(self.ca_file)),
                autocommit=True,
                charset="utf8mb4",
                connect_timeout=5,
                read_timeout=30,
                init_command="SET SESSION wait_timeout = 31536000",
                cursorclass=DictCursor,
            )
            with contextlib.suppress(pymysql.err.OperationalError):  # the schema may be dropped
                connection.select_db(self.name)
            self._observer, self._observer_owner = connection, os.getpid()
        return self._observer

    def _forget_observer(self) -> None:
        with self._observing:
            connection, self._observer = self._observer, None
            if not connection:
                return
            if self._observer_owner == os.getpid():
                with contextlib.suppress(pymysql.err.Error):  # it may be closed already
                    connection.close()
            else:
                connection._force_close()  # a goodbye from a forked child would end its parent's

    # --- schemas -------------------------------------------------------------------------------

    def create_schema(self, name: str) -> None:
        """Create an empty schema."""
        self.execute(f"CREATE DATABASE `{name}`")
        if name == self.name:
            self.execute(f"USE `{name}`")

    def drop_schema(self, name: str) -> None:
        """Drop a schema with all in it, if it exists."""
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def reset(self) -> None:
        """Back to the start: no sessions, an empty schema, its two users, the first settings.

        Whatever was done to it: frozen, killed, filled, reconfigured.
        """
        if self._process and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)
        else:
            self.restart()
        self._forget_observer()  # with what a test may have set in its session
        self.end_sessions()
        for row in self.execute("SELECT SCHEMA_NAME AS name FROM information_schema.SCHEMATA"):
            if row["name"] not in SYSTEM_SCHEMAS:
                self.drop_schema(row["name"])
        for row in self.execute("SELECT User AS user, Host AS host FROM mysql.user"):
            user, host = row["user"], row["host"]
            if user not in {"observer", "root", "mariadb.sys"} and not user.startswith("mysql."):
                self.execute("DROP USER %s@%s", user, host)
        self._restore_variables()
        for statement in self._accounts():
            self.execute(statement.rstrip(";"))
        self.execute(f"USE `{self.name}`")
        self.create_application_user()

    def end_sessions(self) -> None:
        """Kill every session but the observer's, and return when the server has let them go."""
        deadline = time.monotonic() + 10
        while sessions := self.sessions():
            for session in sessions:
                with contextlib.suppress(pymysql.err.OperationalError):  # 1094: gone already
                    self.execute("KILL CONNECTION %s", session.id)
            if time.monotonic() > deadline:
                raise LocalDatabaseError(f"Sessions that do not end when killed: {sessions}")
            time.sleep(0.005)

    def _global_variables(self) -> dict[str, str]:
        rows = self.execute("SHOW GLOBAL VARIABLES")
        return {row["Variable_name"]: row["Value"] for row in rows}

    def _restore_variables(self) -> None:
        def changed() -> dict[str, str]:
            return dict(self._variables.items() - self._global_variables().items())

        for name, value in changed().items():
            number = re.fullmatch(r"-?\d+(\.\d+)?", value)
            with contextlib.suppress(pymysql.err.MySQLError):
                self.execute(
                    f"SET GLOBAL `{name}` = {value if number else '%s'}",
                    *([] if number else [value]),
                )
        if changed():  # what cannot be set back comes back with the server's options
            self.restart()


# --- preparing -------------------------------------------------------------------------------


def prepare(server: Server, cache: Path = BUILD / "databases") -> Path:
    """An initialised data directory of that server, made once and kept; copy it, don't run it.

    Safe when several processes ask at once.
    """
    recipe = repr((server, _common_options(server, Path("data")), _bootstrap_files(server)))
    key = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    prepared = cache / f"{server.flavor}-{server.version}-{key}"
    if prepared.exists():
        return prepared
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / ".lock"):
        if prepared.exists():  # made while we waited for the lock
            return prepared
        work = Path(tempfile.mkdtemp(prefix=".preparing-", dir=cache))
        try:
            _initialise(server, work / "data")
            (work / "data").rename(prepared)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return prepared


def _initialise(server: Server, data: Path) -> None:
    (data.parent / "tmp").mkdir()
    if server.flavor == "mysql":
        command = ["--initialize-insecure"]
        script = b""
    else:
        # What mariadb-install-db does, without the tools it needs and Debian packs elsewhere.
        data.mkdir()
        command = ["--bootstrap"]
        script = b"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket = NULL;\n"
        script += b"SET @skip_auth_anonymous = 1;\n"
        script += b"".join(file.read_bytes() for file in _bootstrap_files(server))
    try:
        done = subprocess.run(
            [*server.command, *_common_options(server, data), *command],
            input=script,
            capture_output=True,
            check=False,
            cwd=data.parent,
        )
    except OSError as error:
        raise LocalDatabaseError(f"{server} cannot be run: {error}.") from error
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace")
        raise LocalDatabaseError(
            f"{server} could not set up its data (exit status {done.returncode}); "
            f"the end of what it said:\n{_tail(said)}"
        )


def _bootstrap_files(server: Server) -> list[Path]:
    """MariaDB's system tables as SQL; renamed from mysql_* to mariadb_* over the versions."""
    if server.flavor == "mysql":
        return []
    files = []
    for name in ("system_tables", "performance_tables", "system_tables_data"):
        options = [server.share / f"{prefix}_{name}.sql" for prefix in ("mariadb", "mysql")]
        found = next((file for file in options if file.exists()), None)
        if not found:
            raise LocalDatabaseError(
                f"{server} came without {options[-1]}: install the whole of its package."
            )
        files.append(found)
    return files


def _common_options(server: Server, data: Path) -> list[str]:
    """What setting up and running share: small, quick to start, honest about commits."""
    options = [
        f"--datadir={data}",
        # Relative to the data directory, as a socket's path may have 107 characters at most.
        "--socket=server.sock",
        "--pid-file=server.pid",
        # A MariaDB that starts deletes what it finds of temporary tables in its tmpdir: in a shared
        # one, those of every other server.
        f"--tmpdir={data.parent / 'tmp'}",
        "--character-set-server=utf8mb4",
        "--innodb-buffer-pool-size=64M",
        "--innodb-doublewrite=0",
        "--innodb-use-native-aio=0",
        # Each commit reaches the kernel, so it survives kill(); not the disk, so it is quick.
        "--innodb-flush-log-at-trx-commit=2",
        "--skip-log-bin",
    ]
    if server.flavor == "mysql":
        options += [
            "--innodb-redo-log-capacity=8M",
            "--mysqlx=OFF",
            "--event-scheduler=OFF",
            "--secure-file-priv=NULL",  # Debian's default is a directory that is not there
            # We bring our own.
            "--auto-generate-certs=OFF",
            "--caching-sha2-password-auto-generate-rsa-keys=OFF",
        ]
    else:
        options += ["--innodb-log-file-size=8M"]
    if os.geteuid() == 0:
        options.append("--user=root")  # servers refuse root unless they are told
    return options


def _free_port(address: str) -> int:
    """A port that is free now, below those the kernel gives to clients.

    One of the kernel's choosing could be taken by any client while the server is down, or connect
    to itself on loopback.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        if _is_free(address, port):
            return port


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
