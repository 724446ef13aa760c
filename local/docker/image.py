"""A base image for `sam local`, made from Debian packages where AWS's public one cannot be pulled.

It carries what a function meets in AWS's image: Python 3.13, the runtime client, boto3, the paths
and the order they are searched in. It is not Amazon Linux: use it for tests and offline work.

    python -m local.docker.image        builds it, loads it into Docker, prints how to use it
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from local import debian
from local.docker.daemon import HOW_TO_INSTALL

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements-dev.lock"
CACHE = ROOT / "build" / "docker"
NAME = "sam-single-connection/lambda-python:3.13"

# The first Debian with Python 3.13 of its own. Nothing of it is installed on this machine: the
# packages are unpacked into a folder.
SUITE = "trixie"
PACKAGES = (
    "busybox-static",  # sam builds on the image with `mv`, `chmod` and `cp`
    "libpython3.13-stdlib",
    "libstdc++6",  # the runtime client is C++ inside
    "python3.13-minimal",
)
COMMANDS = ("cat", "chmod", "cp", "ls", "mkdir", "mv", "rm", "sh")
RUNTIME = ("awslambdaric", "boto3")

# Search order as in Lambda: the function, its layers, what the runtime brings.
BOOTSTRAP = """\
#!/bin/sh
export AWS_EXECUTION_ENV=AWS_Lambda_python3.13
export PYTHONPATH=/var/task:/opt/python/lib/python3.13/site-packages:/opt/python:/var/runtime
exec python3.13 -m awslambdaric "$_HANDLER"
"""
CONFIGURATION = (
    "ENV PATH=/usr/bin LANG=C.UTF-8 TZ=:UTC",
    "ENV LAMBDA_TASK_ROOT=/var/task LAMBDA_RUNTIME_DIR=/var/runtime",
    "WORKDIR /var/task",
)


class ImageError(Exception):
    """The base image cannot be made on this machine; the message says what to do instead."""


def load(environ: Mapping[str, str] | None = None) -> str:
    """The image's name, after it has been loaded into the Docker that `environ` points at."""
    if not shutil.which("docker"):
        raise ImageError(f"there is no `docker` here: {HOW_TO_INSTALL}")
    tarball = build()
    changes = [word for line in CONFIGURATION for word in ("--change", line)]
    _run(["docker", "import", *changes, str(tarball), NAME], environ)
    return NAME


def build() -> Path:
    """The image's file system as a tarball, cached until the lock or this file changes."""
    recipe = hashlib.sha256(LOCK.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
    tarball = CACHE / f"lambda-python-{recipe}.tar"
    if tarball.exists():
        return tarball
    if debian.missing():
        raise ImageError(
            "the base image is made from Debian's packages, and this machine is no Debian; "
            "with internet access leave it out: `sam local` pulls AWS's own image"
        )
    if _run(["dpkg", "--print-architecture"]).strip() != "amd64":
        raise ImageError("the template asks for x86_64, and this machine's Debian is for another")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="image-") as name:
        work = Path(name)
        root = work / "root"
        try:
            _unpack_debian(work / "apt", root)
        except debian.DebianError as error:
            raise ImageError(f"{error}; or let `sam local` pull AWS's own image") from error
        _install_runtime(work / "constraints.txt", root / "var/runtime")
        unfinished = work / tarball.name
        _run(["tar", "-C", str(root), "--owner=0", "--group=0", "-cf", str(unfinished), "."])
        for older in CACHE.glob("lambda-python-*.tar"):
            older.unlink(missing_ok=True)
        unfinished.replace(tarball)
    return tarball


def _unpack_debian(apt: Path, root: Path) -> None:
    """Python and its libraries, downloaded by an apt that keeps all its state in `apt`."""
    archives = debian.download(apt, SUITE, *PACKAGES)
    # Debian's merged /usr: `base-files` would make these links, were its scripts run.
    for link in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / link).mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(f"usr/{link}")
    for folder in ("dev", "opt", "proc", "root", "run", "sys", "tmp", "var/task", "var/runtime"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for archive in archives:
        debian.unpack(archive, root)
    for command in COMMANDS:
        (root / "usr/bin" / command).symlink_to("busybox")


def _install_runtime(constraints: Path, target: Path) -> None:
    """The runtime client and boto3 as this project has locked them, for Python 3.13."""
    pins = re.findall(r"^[\w.-]+==[^ ;\\]+", LOCK.read_text(), re.MULTILINE)
    constraints.write_text("\n".join(pins))
    for_lambda = ("--python-version=3.13", "--implementation=cp", "--platform=manylinux2014_x86_64")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    quick = ("--only-binary=:all:", "--no-compile", f"--target={target}")
    _run([*pip, *quick, *for_lambda, f"--constraint={constraints}", *RUNTIME])
    bootstrap = target / "bootstrap"
    bootstrap.write_text(BOOTSTRAP)
    bootstrap.chmod(0o755)


def _run(command: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """What the command prints; its error output becomes the exception when it fails."""
    done = subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ImageError(f"`{' '.join(command[:3])} …` failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def main() -> int:
    try:
        name = load()
    except ImageError as error:
        print(f"local.docker.image: {error}", file=sys.stderr)
        return 1
    print(f"sam local invoke … --skip-pull-image --invoke-image {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
