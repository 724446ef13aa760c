"""Debian packages with all that they need, unpacked into a folder; nothing of the host changes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class DebianError(Exception):
    """The packages are not to be had on this machine; says why."""


def missing() -> list[str]:
    """What of Debian this needs and this machine lacks; nothing where it can work."""
    tools = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    return tools or ([] if KEYRING.exists() else [str(KEYRING)])


def download(apt: Path, suite: str, *packages: str) -> list[Path]:
    """Fetch packages of a suite and all they need, with an apt state of its own in `apt`.

    Only directories are overridden: proxies and credentials set up for the host's apt still hold.
    An empty status file makes apt believe nothing is installed, so that every library comes along.

    Raises:
        DebianError: apt failed, or knows no mirror of Debian.
    """
    for directory in ("state/lists/partial", "cache/archives/partial", "none"):
        (apt / directory).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")
    (apt / "apt.conf").write_text(
        f"""
        Dir::State "{apt}/state";
        Dir::State::status "{apt}/status";
        Dir::Cache "{apt}/cache";
        Dir::Etc::SourceList "{apt}/sources.list";
        Dir::Etc::SourceParts "{apt}/none";
        Dir::Etc::Preferences "{apt}/none/preferences";
        Dir::Etc::PreferencesParts "{apt}/none";
        Acquire::Languages "none";
        Acquire::Retries "3";
        APT::Install-Recommends "false";
        // As root, apt would fetch as its own user, who may not read a directory of root's.
        APT::Sandbox::User "root";
        // The hooks of the host's apt look after the host.
        #clear APT::Update::Post-Invoke;
        #clear APT::Update::Post-Invoke-Success;
        """
    )
    # -c is read last; a file in APT_CONFIG would be read first, and the host's would win.
    apt_get = ["apt-get", "-c", str(apt / "apt.conf")]
    run([*apt_get, "update"])
    run([*apt_get, "install", "-y", "--download-only", *packages])
    return sorted((apt / "cache/archives").glob("*.deb"))


def unpack(archive: Path, root: Path) -> None:
    """Put the files of a package below `root`; its scripts are not run."""
    run(["dpkg-deb", "-x", str(archive), str(root)])


def mirror() -> str:
    """The mirror this machine's apt already uses for Debian itself, not for security updates."""
    wanted = ["--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]
    targets = subprocess.run(
        ["apt-get", "indextargets", *wanted], capture_output=True, text=True, check=False
    )
    for target in targets.stdout.splitlines():
        origin, label, uri = target.split("|", 2)
        if origin == label == "Debian":
            return uri
    raise DebianError(
        "this machine's apt knows no mirror of Debian (if it is a Debian, run `apt-get update` "
        "first)"
    )


def run(command: list[str]) -> None:
    """Run it quietly.

    Raises:
        DebianError: It failed; with the last that it said.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no reason given"]
        raise DebianError(f"`{' '.join(command)}` failed: {' '.join(said[-3:])}")
