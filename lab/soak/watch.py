"""Looks at the server's own list of sessions all the while: none may outlive its lease."""

import asyncio
import math
import time
from dataclasses import dataclass
from pathlib import Path

import pymysql

from lab.soak.proxy import Door
from lab.soak.stage import Stage
from local.database import LocalDatabaseError, Session

EVERY = 0.25  # seconds between two looks
# The lease is in whole seconds, and so is the time the server shows; one more is allowed.
BEYOND = 1.0
# Of what a client says under TLS: the end of the handshake, and the login.
BEFORE_THE_LEASE = 2
FORGIVEN = 3.0  # seconds in which a server that was stopped or frozen ends what is due


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server counted; None where it did not answer."""

    at: float
    sessions: int | None
    in_flight: int


class Watch:
    """Samples from entry to the end of its task, and enters what is wrong among the violations."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._user = stage.database.application_environ()["DATABASE_USER"]
        self._seen: set[int] = set()
        self._excused_until = 0.0
        self.samples: list[Sample] = []
        # Cut off between login and set-up: they hold a connection, no locks, and live by the
        # server's own wait_timeout, or until the census ends them. Counted, and said.
        self.without_lease: list[int] = []

    async def run(self) -> None:
        """Until cancelled."""
        stage = self._stage
        while True:
            if stage.one_at_a_time.locked():
                self._excused_until = stage.now + FORGIVEN
            try:
                sessions = await asyncio.to_thread(self.sessions)
            except (pymysql.err.MySQLError, LocalDatabaseError, OSError):
                self.samples.append(Sample(stage.now, None, stage.in_flight))
            else:
                self.samples.append(Sample(stage.now, len(sessions), stage.in_flight))
                if stage.now > self._excused_until:
                    self.judge(sessions)
            await asyncio.sleep(EVERY)

    def sessions(self) -> list[Session]:
        """The functions' sessions: neither the observer's nor a visitor's."""
        return [one for one in self._stage.database.sessions() if one.user != "master"]

    def judge(self, sessions: list[Session]) -> None:
        """Each session once: idle for longer than its lease, or older than two of them."""
        now = asyncio.get_running_loop().time()
        for session in sessions:
            if session.id in self._seen:
                continue
            link = self._stage.network.owner(int(session.host.rpartition(":")[2]))
            timeout = link.door.timeout if link else self._stage.longest
            lease = math.ceil(timeout) + BEYOND
            age = now - link.opened if link else 0.0
            if session.time > lease or age > 2 * timeout + BEYOND:
                self._seen.add(session.id)
                if link and link.dead and link.said <= BEFORE_THE_LEASE:
                    self.without_lease.append(session.id)
                    continue
                self._stage.violations.append(
                    f"{self._stage.now:.2f} s: session {session.id} of {session.user}, "
                    f"{session.command} {session.state or ''} for {session.time} s, {age:.1f} s "
                    f"old, outlived its lease: no longer than {timeout:.0f} s, and a second"
                )

    async def none_is_left(self) -> list[str]:
        """Wait for the longest lease and a second; what is still there then, a sentence each."""
        until = time.monotonic() + self._stage.longest + BEYOND + FORGIVEN
        while sessions := [
            one
            for one in await asyncio.to_thread(self.sessions)
            if one.id not in self.without_lease
        ]:
            if time.monotonic() > until:
                return [f"a session is left at the end: {session}" for session in sessions]
            await asyncio.sleep(0.05)
        return []


def left_in_environments(stage: Stage) -> list[str]:
    """Sockets that lead to the database in environments that do nothing: a sentence each."""
    pairs = [pair for each in stage.environments.values() for pair in each]
    return [
        f"environment {environment.name} {environment.pid} holds {count} sockets to the database"
        for environment, door in pairs
        if environment.pid and (count := sockets_to(environment.pid, door))
    ]


def sockets_to(pid: int, door: Door) -> int:
    """How many of the process's sockets lead to that door, by the kernel's own lists."""
    targets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.add(str(entry.readlink()))
        except OSError:  # closed while we looked
            continue
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return sum(
        int(fields[2].split(":")[1], 16) == door.port and f"socket:[{fields[9]}]" in targets
        for fields in map(str.split, lines)
    )
