"""A database that stays: its data, port and passwords outlive whoever started it.

`make invoke` and `make serve` use it while it runs, so that events build on each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pymysql

from local.database import LocalDatabase, LocalDatabaseError
from local.observer import Observer
from local.ports import free_port, is_free
from local.prepared import prepare
from local.servers import BUILD, Flavor, Server, any_server, locked, require_server

KEPT = BUILD / "database"
USERS = ("observer", "master", "application")
STOP_SECONDS = 30.0


class KeptDatabase(LocalDatabase):
    """The one database of a directory: started, used and stopped by different processes."""

    def __init__(self, server: Server, directory: Path, state: dict[str, Any]) -> None:
        super().__init__(server, directory, port=state["port"], bind=state["bind"])
        self.directory = directory.resolve()
        self.ca_file = self.directory / "tls" / "ca.pem"
        self.migrated = state.get("migrated", "")
        self._passwords = dict(state["passwords"])
        self.observer = Observer(server, self._passwords["observer"], self.name)
        self.observer.port, self.observer.ca_file = state["observer_port"], self.ca_file

    @classmethod
    def at(cls, directory: Path = KEPT) -> KeptDatabase | None:
        """The database kept there, running or not; None where there is none.

        Raises:
            ServerMissingError: the server it was made by is not on this machine any more.
            LocalDatabaseError: what is there cannot be read.
        """
        file = directory / "database.json"
        try:
            state = json.loads(file.read_text())
            return cls(require_server(state["flavor"]), directory, state)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LocalDatabaseError(
                f"{file} is none of ours, or of an older version ({error!r}): end its server if "
                f"one runs, and delete {directory}."
            ) from error

    @classmethod
    def running(cls, directory: Path = KEPT) -> KeptDatabase | None:
        """The database kept there, if it answers."""
        kept = cls.at(directory)
        return kept if kept and kept.is_running else None

    @classmethod
    def create(
        cls,
        directory: Path = KEPT,
        *,
        flavor: Flavor | None = None,
        port: int | None = None,
        bind: str = "127.0.0.1",
    ) -> KeptDatabase:
        """A new and empty one, not yet started; arguments as those of `LocalDatabase`."""
        server = require_server(flavor) if flavor else any_server()
        directory.mkdir(parents=True, exist_ok=True)
        state = {
            "flavor": server.flavor,
            "port": port or free_port(bind),
            "bind": bind,
            "observer_port": free_port("127.0.0.1"),
            "passwords": {user: secrets.token_urlsafe(16) for user in USERS},
        }
        kept = cls(server, directory, state)
        try:
            kept._fill(prepare(server))
            kept._save()
        except BaseException:
            kept.remove()
            raise
        return kept

    @property
    def is_running(self) -> bool:
        """Whether it answers to its own password: another server at its port does not."""
        for _ in range(2):  # a connection from before it was started anew is lost at first use
            try:
                self.execute("SELECT 1")
            except pymysql.err.MySQLError:
                continue
            return True
        return False

    def start(self) -> None:
        """Start it where it was left; does nothing while it runs."""
        with locked(self.directory / ".lock"):
            if self.is_running:
                return
            if not is_free(self._bind, self.port):
                raise LocalDatabaseError(
                    f"Port {self.port} is taken: stop what listens there, or take another port for "
                    "the database (`make database-remove` first, which takes its data away)."
                )
            self._certify()  # certificates age, also those of a database that stays
            self._launch(ports_may_change=False)
            self._variables = self._global_variables()

    def stop(self) -> None:
        """Shut down in order; everything stays. Does nothing where it is not running."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Shut down in order (if running), and start again."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Stop it and take away all it has."""
        self._end(signal.SIGKILL)
        for name in ("data", "tls", "tmp"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in ("database.json", "client.cnf", "init.sql", "error.log", ".lock"):
            (self.directory / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody else's files are in it
            self.directory.rmdir()

    def note_migration(self, fingerprint: str) -> None:
        """Remember which migrations it has."""
        self.migrated = fingerprint
        self._save()

    def client_command(self, program: str) -> list[str]:
        """A client's command line; the password is in a file that nobody else may read."""
        # Debian's mysql is a link to mariadb.
        is_mariadb = Path(program).resolve().name.startswith("mariadb")
        verified = "--ssl-verify-server-cert" if is_mariadb else "--ssl-mode=VERIFY_IDENTITY"
        return [program, f"--defaults-file={self.directory / 'client.cnf'}", verified, self.name]

    def exports(self) -> str:
        """Lines for a shell: what a function has in its environment."""
        return "\n".join(
            f"export {name}={shlex.quote(value)}"
            for name, value in self.application_environ().items()
        )

    def _end(self, how: signal.Signals) -> None:
        if self._process:  # our own child
            super()._end(how)
            return
        if not self.is_running:
            return
        # Whoever started it last: its own file says so, and it has just proved to be ours.
        running = int((self.directory / "data" / "server.pid").read_text())
        self.observer.forget()
        with contextlib.suppress(ProcessLookupError):
            os.kill(running, how)
        deadline = time.monotonic() + STOP_SECONDS
        while _exists(running):
            if time.monotonic() > deadline:
                raise LocalDatabaseError(
                    f"{self.server} (process {running}) has not shut down within "
                    f"{STOP_SECONDS:.0f} seconds: look into {self.directory / 'error.log'}."
                )
            time.sleep(0.02)

    def _save(self) -> None:
        state = {
            "flavor": self.server.flavor,
            "port": self.port,
            "bind": self._bind,
            "observer_port": self.observer.port,
            "migrated": self.migrated,
            "passwords": self._passwords,
        }
        _write_private(self.directory / "database.json", json.dumps(state, indent=1) + "\n")
        master = self.master_environ()
        lines = {
            "host": self.host,
            "port": self.port,
            "user": master["DATABASE_USER"],
            "password": master["DATABASE_PASSWORD"],
            "ssl-ca": self.ca_file,
        }
        text = "".join(f'{name}="{value}"\n' for name, value in lines.items())
        _write_private(self.directory / "client.cnf", f"[client]\n{text}")


def _write_private(file: Path, text: str) -> None:
    """Whole or not at all, and for the owner alone."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(file)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
