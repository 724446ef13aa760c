"""The database servers of this machine: which are there, and how to get one.

    python -m local.servers list
    python -m local.servers install [mariadb] [mysql]

MariaDB comes from the distribution. MySQL, the one RDS runs, is in no stable release of Debian, so
it is unpacked from Debian unstable into `build/mysql`: with its own libraries and dynamic loader it
runs beside the host's without touching them, and goes with `rm -r build`.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from local import debian

Flavor = Literal["mariadb", "mysql"]
FLAVORS: tuple[Flavor, ...] = ("mariadb", "mysql")
NAMES: dict[Flavor, str] = {"mariadb": "MariaDB", "mysql": "MySQL"}
BUILD = Path(__file__).resolve().parent.parent / "build"

# Servers live in sbin, which an ordinary user's PATH lacks; Homebrew keeps MySQL off it when
# MariaDB is installed too, and the other way round.
USUAL_PLACES = (
    "/usr/sbin",
    "/usr/libexec",
    "/usr/local/sbin",
    "/usr/local/mysql/bin",
    "/opt/homebrew/opt/mariadb/bin",
    "/opt/homebrew/opt/mysql/bin",
    "/usr/local/opt/mariadb/bin",
    "/usr/local/opt/mysql/bin",
)

BY_HAND: dict[Flavor, str] = {
    "mariadb": (
        "on Debian and Ubuntu `sudo apt-get install mariadb-server-core`, on macOS `brew install "
        "mariadb`, or do without and use the one in Docker: `make local`"
    ),
    "mysql": (
        "on macOS `brew install mysql`, on Linux put a mysqld of 8.4 or newer on the PATH, or do "
        "without and use the one in Docker: `make local`"
    ),
}


class ServerMissingError(Exception):
    """There is no such server here, or it could not be installed."""


@dataclass(frozen=True)
class Server:
    """A database server that can be started: `command` takes further options."""

    flavor: Flavor
    version: str
    command: tuple[str, ...]
    share: Path  # messages, character sets, and MariaDB's system tables

    def __str__(self) -> str:
        """Name it as its users do."""
        return f"{NAMES[self.flavor]} {self.version}"


def find_servers() -> list[Server]:
    """Every flavor found on this machine, MariaDB first; one server of each."""
    found: dict[Flavor, Server] = {}
    for server in _candidates():
        found.setdefault(server.flavor, server)
    return [found[flavor] for flavor in FLAVORS if flavor in found]


def require_server(flavor: Flavor) -> Server:
    """The server of that flavor.

    Raises:
        ServerMissingError: there is none; the message says how to install it.

    """
    for server in find_servers():
        if server.flavor == flavor:
            return server
    raise ServerMissingError(how_to_install(flavor))


def how_to_install(flavor: Flavor) -> str:
    """One sentence for people who lack it."""
    return (
        f"There is no {NAMES[flavor]} server on this machine: run "
        f"`.venv/bin/python -m local.servers install {flavor}`; or {BY_HAND[flavor]}."
    )


def identify(command: tuple[str, ...], share: Path | None = None) -> Server:
    """Ask a program what it is.

    Raises:
        ServerMissingError: it does not run, or is no MySQL or MariaDB server.

    """
    path = command[-1]
    try:
        asked = subprocess.run(
            [*command, "--no-defaults", "--version"],
            capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerMissingError(
            f"{path} does not run as a database server ({error}): name a mariadbd or mysqld."
        ) from error
    # As in: mysqld  Ver 9.7.4-2 for Linux on x86_64, mariadbd  Ver 10.11.19-MariaDB-0+deb12u1
    said = re.search(r"Ver (\d+\.\d+\.\d+)(\S*)", asked.stdout)
    is_server = said and re.search(r"(?i)mysqld|mariadbd", asked.stdout.split("Ver")[0])
    if not said or not is_server:
        answer = (asked.stdout + asked.stderr).strip().splitlines() or ["nothing"]
        raise ServerMissingError(
            f"{path} is no MySQL or MariaDB server (its version, it says, is {answer[0]!r}): "
            "name a mariadbd or mysqld."
        )
    flavor: Flavor = "mariadb" if "mariadb" in said[2].lower() else "mysql"
    share = share or _share_of(Path(path).resolve())
    options = ["--no-defaults"]  # must come first; the host's my.cnf is none of ours
    if share:
        options += [f"--lc-messages-dir={share}", f"--character-sets-dir={share / 'charsets'}"]
    return Server(flavor, said[1], (*command, *options), share or Path("/usr/share/mysql"))


def _candidates() -> Iterator[Server]:
    unpacked = _unpacked(BUILD / "mysql")
    if unpacked:
        yield unpacked
    directories = [*os.environ.get("PATH", "").split(os.pathsep), *USUAL_PLACES]
    seen = set()
    for name in ("mariadbd", "mysqld"):
        for directory in directories:
            program = Path(directory, name)
            # Debian's mysqld may be a link to mariadbd: each real file is asked once.
            if not directory or program.resolve() in seen or not os.access(program, os.X_OK):
                continue
            seen.add(program.resolve())
            try:
                yield identify((str(program),))
            except ServerMissingError:
                continue


def _unpacked(root: Path) -> Server | None:
    """The server of an unpacked tree, run by the tree's own loader on the tree's own libraries."""
    loader = next(root.glob("usr/lib/*-linux-gnu*/ld-linux*.so.*"), None)
    program = root / "usr/sbin/mysqld"
    if not loader or not program.exists():
        return None
    return identify(
        (str(loader), "--library-path", str(loader.parent), str(program)), root / "usr/share/mysql"
    )


def _share_of(program: Path) -> Path | None:
    for name in ("mysql", "mariadb", ""):
        share = program.parent.parent / "share" / name
        if (share / "charsets").is_dir():
            return share
    return None


# --- installing ---------------------------------------------------------------------------------


def install(flavor: Flavor) -> Server:
    """Install that flavor if it is missing; the same call twice does nothing the second time.

    Raises:
        ServerMissingError: it could not be installed; the message says why, and what to do.

    """
    for server in find_servers():
        if server.flavor == flavor:
            return server
    if flavor == "mariadb":
        _install_mariadb()
    else:
        _unpack_mysql(BUILD / "mysql")
    return require_server(flavor)


def any_server() -> Server:
    """A database server of this machine: MariaDB, or MySQL, or whichever can be installed.

    MariaDB comes quickest, and needs root; MySQL is unpacked without it.

    Raises:
        ServerMissingError: there is none and none could be installed; says why, and what to do.

    """
    if servers := find_servers():
        return servers[0]
    reasons = []
    for flavor in FLAVORS:
        try:
            return install(flavor)
        except ServerMissingError as error:
            reasons.append(str(error))
    raise ServerMissingError(" ".join(reasons))


def _install_mariadb() -> None:
    if not shutil.which("apt-get"):
        raise ServerMissingError(f"There is no apt-get to install MariaDB: {BY_HAND['mariadb']}.")
    root = ["env", "DEBIAN_FRONTEND=noninteractive"]
    if os.geteuid() != 0:
        root = ["sudo", "-n", *root]
        try:
            debian.run([*root, "true"])
        except (OSError, debian.DebianError) as error:
            raise ServerMissingError(
                f"Installing MariaDB needs root: {BY_HAND['mariadb']}."
            ) from error
    apt_install = [*root, "apt-get", "install", "-y", "--no-install-recommends"]
    _progress("Installing mariadb-server-core")
    try:
        debian.run([*apt_install, "mariadb-server-core"])
    except debian.DebianError:  # the package lists may be missing or old
        try:
            debian.run([*root, "apt-get", "update"])
            debian.run([*apt_install, "mariadb-server-core"])
        except debian.DebianError as error:
            raise ServerMissingError(str(error)) from error
    _progress("")


def _unpack_mysql(destination: Path) -> None:
    """Unpack MySQL and all it depends on; whole or not at all."""
    if missing := debian.missing():
        raise ServerMissingError(
            f"Unpacking MySQL needs Debian's {', '.join(missing)}, which is not here: "
            f"{BY_HAND['mysql']}."
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    with locked(destination.parent / ".mysql.lock"):
        if destination.exists():
            if _unpacked(destination):
                return
            shutil.rmtree(destination)
        work = Path(tempfile.mkdtemp(prefix=".mysql-", dir=destination.parent))
        try:
            _progress("Downloading MySQL and its libraries from Debian unstable (about 80 MB)")
            archives = debian.download(work / "apt", "sid", "mysql-server-core")
            for done, archive in enumerate(archives):
                _progress(f"Unpacking {done + 1} of {len(archives)}: {archive.name}")
                debian.unpack(archive, work / "root")
            _progress("")
            if not _unpacked(work / "root"):
                raise ServerMissingError(
                    f"The MySQL packages of Debian unstable held no mysqld: {BY_HAND['mysql']}."
                )
            (work / "root").rename(destination)
        except debian.DebianError as error:
            raise ServerMissingError(f"{error}. {NAMES['mysql']}: {BY_HAND['mysql']}.") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text and not text.startswith("Unpacking"):
        print(text, file=sys.stderr, flush=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file: one process at a time; the kernel lets go when its holder dies."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    """List the servers of this machine, or install one; 1 when that failed."""
    parser = argparse.ArgumentParser(prog="python -m local.servers", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the database servers of this machine")
    installer = commands.add_parser("install", help="install what is missing")
    installer.add_argument(
        "flavor", nargs="*", help="mariadb, mysql; without, both, where one is enough"
    )
    chosen = parser.parse_args(arguments)
    if unknown := set(getattr(chosen, "flavor", [])) - set(FLAVORS):
        parser.error(f"{', '.join(sorted(unknown))}: no flavor; choose mariadb or mysql")
    if chosen.command == "list":
        found = {server.flavor: server for server in find_servers()}
        for flavor in FLAVORS:
            if flavor in found:
                print(f"{found[flavor]} ({_program(found[flavor])})")
            else:
                print(how_to_install(flavor))
        return 0
    ready: list[Server] = []
    missing = 0
    for flavor in chosen.flavor or FLAVORS:
        try:
            ready.append(install(flavor))
            print(f"{ready[-1]} is ready ({_program(ready[-1])})", flush=True)
        except ServerMissingError as error:
            missing += 1
            _progress("")
            print(f"WITHOUT {NAMES[flavor].upper()}: {error}", file=sys.stderr)
    return 1 if missing and (chosen.flavor or not ready) else 0


def _program(server: Server) -> str:
    return next(part for part in reversed(server.command) if not part.startswith("--"))


if __name__ == "__main__":
    sys.exit(main())
