"""A virtual environment from a lock file, with a word about what is going on.

    python3 -m local.install .venv requirements-dev.lock --size "650 MB"

Called by `make`, by whatever Python there is: it needs nothing but the standard library. A
half-made environment is made anew. pip itself says nothing for minutes, or a thousand lines.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

RETRIES = 2
# From an index, or a file that is here already.
_FETCHED = re.compile(r"(?:Collecting|Processing) (?:[^(]*/)?([A-Za-z0-9_.-]+?)(?:==|-\d)")
_NO_NETWORK = re.compile(
    r"ProxyError|NewConnectionError|ConnectTimeout|ReadTimeout|SSLError|Name or service not known"
    r"|Temporary failure in name resolution|Tunnel connection failed|Connection refused"
)


class InstallError(Exception):
    """pip could not install; the message says why, and what to do."""


def packages_of(lock: Path) -> int:
    """How many packages it pins."""
    return len(re.findall(r"^[A-Za-z0-9][\w.-]*==", lock.read_text(encoding="utf-8"), re.MULTILINE))


def install(venv: Path, lock: Path, *, show: "Progress", environ: Mapping[str, str]) -> None:
    """Make the environment, whatever was there, and install what the lock pins.

    Raises:
        InstallError: venv or pip failed.
    """
    making = [sys.executable, "-m", "venv", "--clear", str(venv)]
    made = subprocess.run(making, capture_output=True, text=True, check=False)
    if made.returncode:
        raise InstallError(f"{' '.join(making)} failed: {(made.stdout + made.stderr).strip()}")
    command = [
        *(str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"),
        *("--no-deps", "--require-hashes", "--progress-bar", "off", "--retries", str(RETRIES)),
        *("--requirement", str(lock)),
    ]
    said: list[str] = []
    with subprocess.Popen(
        command,
        env={**environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as pip:
        assert pip.stdout  # noqa: S101 - a pipe was asked for
        collected = 0
        for line in pip.stdout:
            said.append(line.strip())
            if found := _FETCHED.match(line):
                collected += 1
                show.package(collected, found[1])
            elif line.startswith("Installing collected packages"):
                show.installing()
            elif "Retrying" in line:
                show.say("pip gets no answer from the package index, and tries again …")
    if pip.returncode:
        raise InstallError(_why(said, environ))


def _why(said: Sequence[str], environ: Mapping[str, str]) -> str:
    errors = [line for line in said if line.startswith("ERROR")] or list(said[-3:])
    reason = " ".join(errors[:2])[:600]
    if not any(_NO_NETWORK.search(line) for line in said):
        return f"pip failed: {reason}"
    proxies = sorted(set(_proxies(environ)))
    way = f"through the proxy {', '.join(proxies)}" if proxies else "without a proxy"
    return (
        f"pip does not reach the package index {way}: set or correct HTTPS_PROXY, or name a mirror "
        f"in PIP_INDEX_URL, and run this again. It said: {_without_secrets(reason)}"
    )


def _proxies(environ: Mapping[str, str]) -> Iterator[str]:
    """Where proxies are, without who may use them."""
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        if given := environ.get(name):
            yield _without_secrets(given)


def _without_secrets(text: str) -> str:
    """The text, its addresses without user and password."""

    def bare(found: re.Match[str]) -> str:
        parts = urlsplit(found[0])
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    return re.sub(r"\w+://[^\s'\"]+", bare, text)


class Progress:
    """One line that changes at a terminal; elsewhere a line now and then."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._moving = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """A line of its own."""
        start = "\r\x1b[K" if self._moving else ""
        print(f"{start}{text}", file=sys.stderr, flush=True)

    def package(self, number: int, name: str) -> None:
        """One more has been fetched."""
        text = f"  {number} of {self._total}: {name}"
        if self._moving:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif number % 25 == 0 or number == self._total:
            self.say(text)

    def installing(self) -> None:
        """All are fetched; what follows takes as long again."""
        self.say("  all fetched; unpacking them …")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m local.install", description=__doc__)
    parser.add_argument("venv", type=Path)
    parser.add_argument("lock", type=Path)
    parser.add_argument("--size", default="some 100 MB", help="what it takes on disk, to be said")
    chosen = parser.parse_args(arguments)
    total = packages_of(chosen.lock)
    show = Progress(total)
    show.say(f"{chosen.venv}: {total} packages, {chosen.size}; one to two minutes …")
    started = time.monotonic()
    try:
        install(chosen.venv, chosen.lock, show=show, environ=os.environ)
    except InstallError as error:
        show.say(f"error: {error}")
        return 1
    show.say(f"  done after {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
