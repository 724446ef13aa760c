"""Data directories of a server that was never used, made once and copied from then on."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from local.servers import BUILD, Server, locked


class LocalDatabaseError(Exception):
    """The local database cannot do what it was asked to."""


def prepare(server: Server, cache: Path = BUILD / "databases") -> Path:
    """An initialised data directory of that server, made once and kept; copy it, don't run it.

    Safe when several processes ask at once.
    """
    recipe = repr((server, common_options(server, Path("data")), _bootstrap_files(server)))
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
            [*server.command, *common_options(server, data), *command],
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
            f"the end of what it said:\n{tail_of(said)}"
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


def common_options(server: Server, data: Path) -> list[str]:
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


def tail_of(text: str, lines: int = 12) -> str:
    """The last lines of a log."""
    return "\n".join(text.strip().splitlines()[-lines:])
