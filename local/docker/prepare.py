"""Everything `sam local` needs on this machine: a database, a build that trusts it, the schema.

    python -m local.docker.prepare           MySQL in Docker (compose.yaml), until you stop it
    python -m local.docker.prepare --host    a throw-away one on this machine, until Ctrl-C

Each call makes a new certificate authority. Its certificate must get into the functions'
containers, where `sam local` puts their code and their layers and nothing else. So it is laid into
the layer that `sam build` has just made. The next `sam build`, and so each deployment, is without
it: then the functions refuse to start and name the missing file, whose name says what to run.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from local.certificates import write_certificates
from local.database import LocalDatabase, LocalDatabaseError
from local.docker.daemon import HOW_TO_INSTALL, answers
from local.servers import ServerMissingError, find_servers, require_server

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "build" / "local"
ENVIRONMENT_FILE = ROOT / "local" / "env.json"
MASTER = ROOT / "local" / "docker" / "master.sql"
MIGRATION = ROOT / "events" / "migrate.by_hand.json"
LAYER = "SingleConnectionLayer"
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


def build(
    ca_file: Path, folder: Path | None = None, environ: Mapping[str, str] | None = None
) -> Path:
    """The built template, whose layer carries `ca_file`; in `folder`, or where sam looks for it."""
    elsewhere = () if folder is None else ("--build-dir", str(folder), "--no-cached")
    _run([sam(), "build", *elsewhere], environ)
    built = folder or ROOT / ".aws-sam" / "build"
    (built / LAYER / CA_FILE).parent.mkdir(exist_ok=True)
    shutil.copyfile(ca_file, built / LAYER / CA_FILE)
    return built / "template.yaml"


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


def in_docker() -> None:
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
    print(f"    {json.dumps(invoke('Migrate', MIGRATION))}")
    print("Ready: sam local invoke OrdersApi -e events/orders_api.products.json")


def on_this_machine() -> None:
    """A throw-away database here, migrated; until Ctrl-C."""
    print("1/3 A database on this machine", flush=True)
    with host_database(LOCAL) as (database, environment):
        print("2/3 sam build", flush=True)
        build(database.ca_file)
        print("3/3 Migrations (the first time, Lambda's image is pulled)", flush=True)
        options = ("--config-env", "host", "--env-vars", str(environment))
        print(f"    {json.dumps(invoke('Migrate', MIGRATION, *options))}")
        print(
            "Ready: sam local invoke OrdersApi -e events/orders_api.products.json --config-env host"
            f"\n{database.server} runs until Ctrl-C."
        )
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


@contextlib.contextmanager
def host_database(folder: Path) -> Iterator[tuple[LocalDatabase, Path]]:
    """A throw-away database that containers reach, and the env file that leads them to it.

    It listens on every address, as there is none on every system that containers reach and others
    do not; its passwords are random, and it answers nothing without TLS.
    """
    servers = {server.flavor: server for server in find_servers()}
    server = servers.get("mysql") or require_server("mariadb")  # RDS runs MySQL
    with LocalDatabase(server, folder, bind="0.0.0.0") as database:  # noqa: S104
        values = json.loads(ENVIRONMENT_FILE.read_text())
        application = database.application_environ()["DATABASE_PASSWORD"]
        master = database.master_environ()["DATABASE_PASSWORD"]
        values["Parameters"] |= {
            "DATABASE_PORT": str(database.port),
            "DATABASE_PASSWORD": application,
        }
        values["Migrate"] |= {"DATABASE_PASSWORD": master, "APPLICATION_PASSWORD": application}
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
    chosen = parser.parse_args(arguments)
    if not answers(os.environ):
        print(f"error: No Docker daemon answers: {HOW_TO_INSTALL}.", file=sys.stderr)
        return 1
    try:
        if chosen.host:
            on_this_machine()
        else:
            in_docker()
    except (PreparationError, LocalDatabaseError, ServerMissingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
