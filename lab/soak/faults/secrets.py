"""What befalls passwords, certificates, and who keeps them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from lab.soak.faults.kinds import fault

if TYPE_CHECKING:
    from lab.soak.stage import Stage


@fault(
    "password rotated",
    (0.2, 1.5),
    shown_by="test_a_rotation_causes_no_failed_invocation",
    alone=True,
)
async def rotated(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """The server has a new password; while this lasts, the secret still has the old one."""
    user = stage.database.application_environ()["DATABASE_USER"]
    password = secrets.token_urlsafe(16)
    statement = f"ALTER USER '{user}'@'%%' IDENTIFIED BY %s"
    await asyncio.to_thread(stage.database.execute, statement, password)
    try:
        yield
    finally:
        stage.store.put(user, password)


@fault("certificate replaced", alone=True)
async def replaced(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """The server presents a new certificate, of another of the authorities that are trusted."""
    await asyncio.to_thread(_replace_certificate, stage)
    yield


def _replace_certificate(stage: Stage) -> None:
    database = stage.database
    directory: Path = database.directory / "tls"
    new = stage.certificates[0]
    stage.certificates.rotate()
    for old, file in (("server.pem", new.certificate_file), ("server.key", new.key_file)):
        shutil.copy2(file, directory / old)
    if database.server.flavor == "mysql":
        # It takes no certificate whose authority it has not been told.
        database.execute("SET GLOBAL ssl_ca = %s", str(database.ca_file))
        database.execute("ALTER INSTANCE RELOAD TLS")
    else:
        database.execute("FLUSH SSL")


def _end_idle_environments(stage: Stage) -> None:
    """So that some have to read the secret, which is kept warm else."""
    for pairs in stage.environments.values():
        for environment, _ in pairs:
            if not environment.busy:
                stage.signal(environment, signal.SIGKILL)


@fault(
    "secret store silent",
    (1.0, 5.0),
    shown_by="test_a_secret_that_cannot_be_read_says_what_to_check",
)
async def silent(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """Secrets Manager takes requests and does not answer; the idle environments were ended."""
    stage.store.become("silent")
    _end_idle_environments(stage)
    with contextlib.ExitStack() as stack:
        stack.callback(stage.store.become, "well")
        yield


@fault(
    "secret store refusing",
    (1.0, 3.0),
    shown_by="test_a_secret_that_cannot_be_read_says_what_to_check",
)
async def refusing(stage: Stage, _chance: random.Random) -> AsyncIterator[None]:
    """Secrets Manager throttles every request; the idle environments were ended."""
    stage.store.become("refusing")
    _end_idle_environments(stage)
    with contextlib.ExitStack() as stack:
        stack.callback(stage.store.become, "well")
        yield
