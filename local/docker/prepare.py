"""Everything `sam local` needs on this machine: a database, a build that trusts it, the schema.

    python -m local.docker.prepare              MySQL in Docker (compose.yaml), until you stop it
    python -m local.docker.prepare --host       one on this machine, until Ctrl-C
    python -m local.docker.prepare --own-image  Lambda's image made here, where none can be pulled

Both databases keep their data. The functions run from where they are edited (`local.docker.live`):
only a change of the layer, of a requirement or of the template needs this again. All of it is built
into build/local/, apart from what `sam build` makes for a deployment: the certificate authority of
the local database, which is in that layer, gets nowhere else.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from local.certificates import write_certificates
from local.database import LocalDatabaseError
from local.docker import image
from local.docker.daemon import HOW_TO_INSTALL, answers
from local.docker.live import built_layers, write_live_template
from local.events import event_names
from local.kept import KeptDatabase
from local.migration import migration_function
from local.servers import ServerMissingError, find_servers
from local.template import TemplateError, read_functions

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "build" / "local"
ENVIRONMENT_FILE = ROOT / "local" / "env.json"
MASTER = ROOT / "local" / "docker" / "master.sql"
CA_FILE = "made-by-make-local/database-ca.pem"  # under /opt in a container
# The database on this machine, as containers see it: Docker itself knows the address.
FROM_HOST = ("--add-host", "database:host-gateway")


class PreparationError(Exception):
    """`sam local` cannot be made ready; the message says what to do."""


def sam() -> str:
    """The `sam` of this project's environment, or the one on the PATH."""
    beside = Path(sys.executable).with_name("sam")
    found = str(beside) if beside.exists() else shutil.which("sam")
    if found is None:
        raise PreparationError("There is no `sam` here: `make venv` installs it for this project.")
    return found


def build(ca_file: Path, folder: Path = LOCAL, environ: Mapping[str, str] | None = None) -> Path:
    """The template for `sam local`, whose layer carries `ca_file`; in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    built = folder / "built"
    _run([sam(), "build", "--build-dir", str(built)], environ)
    for layer in built_layers(built / "template.yaml"):
        (layer / CA_FILE).parent.mkdir(exist_ok=True)
        shutil.copyfile(ca_file, layer / CA_FILE)
    return write_live_template(ROOT / "template.yaml", built / "template.yaml", folder)


def invoke(
    function: str, event: Path, *options: str, environ: Mapping[str, str] | None = None
) -> Any:
    """The function's answer, through `sam local invoke`.

    Raises:
        PreparationError: sam failed, or the function did (sam exits with 0 all the same).
    """
    said = _run([sam(), "local", "invoke", function, "--event", str(event), *options], environ)
    try:
        answer = json.loads(said.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise PreparationError(f"{function} did not answer:\n{said.stderr[-2000:]}") from error
    if isinstance(answer, dict) and "errorType" in answer:
        raise PreparationError(
            f"{function} failed with {answer['errorType']}: {answer.get('errorMessage')}"
        )
    return answer


def in_docker(image_options: Sequence[str]) -> None:
    """MySQL of compose.yaml, migrated; it stays when we are gone."""
    try:
        _run(["docker", "compose", "version"])
    except PreparationError as error:
        raise PreparationError(
            "Docker's compose plugin is missing: Docker Desktop brings it; on Debian 13 "
            "`apt-get install docker-compose`, on Ubuntu `apt-get install docker-compose-v2`; or "
            "have the database on this machine, with `--host`."
        ) from error
    print("1/4 A certificate authority, and the database's certificate", flush=True)
    ca_file = write_certificates(LOCAL / "certificates").ca_file
    print("2/4 MySQL in Docker (the first time, its image is pulled)", flush=True)
    # Made anew, data and all kept: it takes its certificate when it starts.
    _run(["docker", "compose", "up", "--detach", "--wait", "--force-recreate"])
    print("3/4 sam build", flush=True)
    build(ca_file)
    print("4/4 Migrations (the first time, Lambda's image is pulled)", flush=True)
    print(f"    {json.dumps(_migrate(*image_options))}")
    _say_ready(*image_options)


def on_this_machine(image_options: Sequence[str]) -> None:
    """A database here, migrated; it runs until Ctrl-C, and its data stays."""
    print("1/3 A database on this machine", flush=True)
    with host_database(LOCAL) as (database, _):
        print("2/3 sam build", flush=True)
        build(database.ca_file)
        print("3/3 Migrations (the first time, Lambda's image is pulled)", flush=True)
        options = ("--config-env", "host", *image_options)
        print(f"    {json.dumps(_migrate(*options))}")
        _say_ready(*options)
        print(f"{database.server} runs until Ctrl-C; its data stays.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def _migrate(*options: str) -> Any:
    event = LOCAL / "migrate.json"
    event.write_text("{}")
    return invoke(migration_function().logical_id, event, *options)


def _say_ready(*options: str) -> None:
    """The next command, with the first event that there is."""
    program = Path(sam())
    said = program.relative_to(ROOT) if program.is_relative_to(ROOT) else program
    command = [str(said), "local", "invoke"]
    for function in read_functions().values():
        if names := event_names(function.name):
            command += [function.logical_id, "-e", f"events/{function.name}.{names[0]}.json"]
            break
    print(f"Ready: {shlex.join([*command, *options])}", flush=True)


@contextlib.contextmanager
def host_database(folder: Path) -> Iterator[tuple[KeptDatabase, Path]]:
    """A database that containers reach, and the env file that leads them to it; its data stays.

    It listens on every address, as there is none on every system that containers reach and others
    do not; its passwords are random, and it answers nothing without TLS.
    """
    kept = KeptDatabase.at(folder / "database") or KeptDatabase.create(
        folder / "database",
        flavor="mysql" if any(one.flavor == "mysql" for one in find_servers()) else None,
        bind="0.0.0.0",  # noqa: S104
    )
    with kept as database:
        values = json.loads(ENVIRONMENT_FILE.read_text())
        application = database.application_environ()["DATABASE_PASSWORD"]
        master = database.master_environ()["DATABASE_PASSWORD"]
        values["Parameters"] |= {
            "DATABASE_PORT": str(database.port),
            "DATABASE_PASSWORD": application,
        }
        values[migration_function().logical_id] |= {
            "DATABASE_PASSWORD": master,
            "APPLICATION_PASSWORD": application,
        }
        environment = folder / "env.json"
        environment.touch(mode=0o600)
        environment.write_text(json.dumps(values, indent=2))
        try:
            yield database, environment
        finally:
            environment.unlink(missing_ok=True)


def _run(
    command: Sequence[str], environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise PreparationError(f"`{command[0]}` cannot be run: {error}") from error
    if done.returncode:
        what = " ".join([Path(command[0]).name, *command[1:3]])
        raise PreparationError(f"`{what}` failed:\n{(done.stderr or done.stdout)[-2000:].strip()}")
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Make ready; 1 when that failed."""
    parser = argparse.ArgumentParser(prog="python -m local.docker.prepare", description=__doc__)
    parser.add_argument("--host", action="store_true", help="the database here, not in Docker")
    parser.add_argument("--own-image", action="store_true", help="make Lambda's image, pull none")
    chosen = parser.parse_args(arguments)
    if not answers(os.environ):
        print(f"error: No Docker daemon answers: {HOW_TO_INSTALL}.", file=sys.stderr)
        return 1
    try:
        options: tuple[str, ...] = ()
        if chosen.own_image:
            print(
                "Lambda's image from Debian's packages (the first time, some minutes)", flush=True
            )
            options = ("--skip-pull-image", "--invoke-image", image.load())
        if chosen.host:
            on_this_machine(options)
        else:
            in_docker(options)
    except (
        PreparationError,
        LocalDatabaseError,
        ServerMissingError,
        TemplateError,
        image.ImageError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
