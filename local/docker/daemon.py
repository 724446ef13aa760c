"""A Docker to run `sam local` in: the one that answers, else a private one for the time needed.

The private one needs root and Debian's `docker.io`. All it has is in a folder of its own, it never
touches the firewall, and it is gone, containers and all, when the `with` block ends.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

HOW_TO_INSTALL = (
    "start Docker if it is installed; else on Debian or Ubuntu `apt-get install docker.io`, "
    "then as root, or as a user in the group `docker` once it is running"
)
START_SECONDS = 30.0
STOP_SECONDS = 30.0
BRIDGE = "docker0"


class DockerMissingError(Exception):
    """There is no Docker on this machine, and none can be started."""


@contextlib.contextmanager
def docker() -> Iterator[dict[str, str]]:
    """The environment variables under which `docker` and `sam` reach a running daemon.

    Raises:
        DockerMissingError: none answers and none can be started; the message says how to get one.
    """
    if not shutil.which("docker"):
        raise DockerMissingError(f"There is no `docker` on this machine: {HOW_TO_INSTALL}.")
    if answers(os.environ):
        yield dict(os.environ)
        return
    daemon = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
    if daemon is None or os.geteuid() != 0:
        raise DockerMissingError(
            f"No Docker daemon answers, and only root can start one: {HOW_TO_INSTALL}."
        )
    # The socket's path must stay under 108 bytes, so not somewhere deep in the project.
    folder = Path(tempfile.mkdtemp(prefix="docker-"))
    had_bridge = Path("/sys/class/net", BRIDGE).exists()
    try:
        with _private(daemon, folder) as environ:
            yield environ
    finally:
        if not had_bridge:  # dockerd leaves the one it made
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def answers(environ: Mapping[str, str]) -> bool:
    """Whether a daemon answers under these variables."""
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            env=environ, capture_output=True, timeout=15, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


@contextlib.contextmanager
def _private(daemon: str, folder: Path) -> Iterator[dict[str, str]]:
    socket = f"unix://{folder}/docker.sock"
    environ = {**os.environ, "DOCKER_HOST": socket}
    log = folder / "log"
    command = [
        daemon,
        f"--host={socket}",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/run",
        f"--pidfile={folder}/pid",
        # Containers need to reach this machine and each other, not the world outside.
        "--iptables=false",
        "--ip6tables=false",
    ]
    if shutil.which("setpriv"):  # the daemon dies with us even when we are killed
        command = ["setpriv", "--pdeathsig", "TERM", *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is ours to handle: sam still has to clean up
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(environ):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip().splitlines()[-5:]
                raise DockerMissingError("The Docker daemon does not start:\n" + "\n".join(said))
            time.sleep(0.1)
        yield environ
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
