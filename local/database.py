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
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pymysql

from local.accounts import account_statements
from local.certificates import write_certificates
from local.observer import Observer, Row, Session
from local.ports import free_port, is_free
from local.prepared import LocalDatabaseError, common_options, prepare, tail_of
from local.servers import Server

__all__ = ["LocalDatabase", "LocalDatabaseError", "Session"]

START_SECONDS = 60.0
SYSTEM_SCHEMAS = frozenset({"information_schema", "mysql", "performance_schema", "sys"})

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


class LocalDatabase:
    """A database server of our own: nothing of it is left when it stops, or when we die.

    Args:
        server: what to run, from `local.servers`.
        directory: where it keeps its files, in a new directory that it removes.
        max_connections: the server's limit; 65 is that of RDS's smallest class.
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
        self._passwords = {
            user: secrets.token_urlsafe(16) for user in ("observer", "master", "application")
        }
        self.observer = Observer(server, self._passwords["observer"], name)
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._owner = 0
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
        if self._asked_port and not is_free(self._bind, self._asked_port):
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
            self._fill(prepared)
            self._launch(ports_may_change=True)
            self._variables = self._global_variables()
        except BaseException:
            self.stop()
            raise

    def _fill(self, prepared: Path) -> None:
        """Put a new server's files into the directory."""
        self._certify()
        shutil.copytree(prepared, self.directory / "data")
        (self.directory / "data").chmod(0o700)
        (self.directory / "tmp").mkdir(0o700)

    def _certify(self) -> None:
        self.ca_file = write_certificates(self.directory / "tls").ca_file
        self.observer.ca_file = self.ca_file

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
    def _observer_port(self) -> int:
        return self.observer.port

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

    def _end(self, how: signal.Signals) -> None:
        self.observer.forget()
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
                self.port = self._asked_port or free_port(self._bind)
                self.observer.port = free_port("127.0.0.1")
            (self.directory / "error.log").unlink(missing_ok=True)
            (self.directory / "init.sql").touch(mode=0o600)
            statements = account_statements(self.server.flavor, self.name, self._passwords)
            (self.directory / "init.sql").write_text("".join(f"{one};\n" for one in statements))
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
                    f"the end of its log:\n{tail_of(self.log)}"
                )
            try:
                self.execute("SELECT 1")
            except pymysql.err.MySQLError:
                time.sleep(0.02)
            else:
                return
        raise LocalDatabaseError(
            f"{self.server} did not answer within {START_SECONDS:.0f} seconds; "
            f"the end of its log:\n{tail_of(self.log)}"
        )

    def _tell_keeper(self, line: str) -> None:
        if self._keeper and self._keeper.stdin:
            self._keeper.stdin.write(f"{line}\n".encode())
            self._keeper.stdin.flush()

    def _server_options(self) -> list[str]:
        tls = self.directory / "tls"
        options = [
            *common_options(self.server, self.directory / "data"),
            f"--init-file={self.directory / 'init.sql'}",
            f"--port={self.port}",
            f"--bind-address={self._bind}",
            f"--ssl-cert={tls / 'server.pem'}",
            f"--ssl-key={tls / 'server.key'}",
            "--require-secure-transport=ON",
            # As the template's parameter group sets them.
            f"--max-connections={self.max_connections + self.observer.counted}",
            f"--thread-cache-size={self.max_connections}",
            "--skip-name-resolve",
            "--performance-schema=OFF",
            # A test that breaks connections by the hundred must not be locked out for it.
            "--max-connect-errors=1000000000",
        ]
        # A door for the observer that stays open when all connections are taken.
        if self.server.flavor == "mysql":
            options += ["--admin-address=127.0.0.1", f"--admin-port={self.observer.port}"]
        else:
            options += [f"--extra-port={self.observer.port}", "--extra-max-connections=10"]
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

    # --- what the server says ------------------------------------------------------------------

    def execute(self, statement: str, *arguments: object) -> list[Row]:
        """Run a statement as the observer; see `Observer.execute`."""
        return self.observer.execute(statement, *arguments)

    def sessions(self) -> list[Session]:
        """The server's own list of sessions; see `Observer.sessions`."""
        return self.observer.sessions()

    def status(self, name: str) -> int:
        """A global counter of the server; see `Observer.status`."""
        return self.observer.status(name)

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
        self.observer.forget()  # with what a test may have set in its session
        self.end_sessions()
        for row in self.execute("SELECT SCHEMA_NAME AS name FROM information_schema.SCHEMATA"):
            if row["name"] not in SYSTEM_SCHEMAS:
                self.drop_schema(row["name"])
        for row in self.execute("SELECT User AS user, Host AS host FROM mysql.user"):
            user, host = row["user"], row["host"]
            if user not in {"observer", "root", "mariadb.sys"} and not user.startswith("mysql."):
                self.execute("DROP USER %s@%s", user, host)
        self._restore_variables()
        for statement in account_statements(self.server.flavor, self.name, self._passwords):
            self.execute(statement)
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
