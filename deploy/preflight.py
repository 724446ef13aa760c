"""Asks AWS whether a deployment would succeed, before half an hour has gone into finding out.

    python -m deploy.preflight --environment dev

Every question is optional: where the answer may not be read, the table says so and what is assumed.
A deployment that would fail is refused in one sentence. What it chose is written to
build/preflight/<environment>.yaml, for `sam deploy --parameter-overrides file://…`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from deploy import account, artifacts, database, making, region
from deploy.questions import Questions, RefusedError
from deploy.settings import Environment, SettingsError, read_environment
from deploy.template import ROOT, read_template

BUILD = ROOT / "build" / "preflight"


class Preflight(Questions):
    """All questions about one deployment, in the order in which it would fail."""

    def run(self) -> dict[str, str]:
        """The parameters to deploy with.

        Raises:
            RefusedError: it would fail.
        """
        account.check_name(self)
        account.check_identity(self)
        account.find_stack(self)
        account.check_shape(self)
        region.check_region(self)
        if self.makes_data:
            making.check_snapshot(self)
            database.choose_class(self)
            making.check_plan(self)
            database.check_parameters(self)
        if self.makes_functions:
            artifacts.check_artifacts(self)
            account.choose_reservation(self)
        if self.makes_data and self.is_new:
            making.check_names_are_free(self)
            account.check_vpcs(self)
        return self.parameters


def connect(profile: str | None, region: str | None) -> tuple[Callable[[str], Any], str]:
    """What makes clients, and the region they speak to."""
    try:
        session = boto3.Session(region_name=region, profile_name=profile)
    except BotoCoreError as error:
        raise RefusedError(f"{error}.") from error
    if not session.region_name:
        raise RefusedError("No region is set: set AWS_DEFAULT_REGION or pass --region.")
    # Impatient: each question is asked twice at most, and a deaf network fails in seconds.
    config = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 2})

    def client(service: str) -> Any:
        return session.client(service, config=config)  # type: ignore[call-overload]

    return client, session.region_name


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write the parameters; 1 if the deployment is refused."""
    parser = argparse.ArgumentParser(prog="python -m deploy.preflight", description=__doc__)
    parser.add_argument("--environment", default="default", help="a section of samconfig.toml")
    parser.add_argument("--region", help="default: what samconfig.toml or the profile says")
    parser.add_argument("--profile", help="a profile of ~/.aws/config")
    given = parser.parse_args(arguments)
    try:
        wanted = read_environment(ROOT, given.environment)
        client, where = connect(given.profile or wanted.profile, given.region or wanted.region)
        chosen = ask(wanted, client, where)
    except (RefusedError, SettingsError) as error:
        print(f"Not deployed. {error}", file=sys.stderr)
        return 1
    said = " ".join(f"{name}={value!r}" for name, value in chosen.items())
    print(f"\nsam deploy --config-env {given.environment} --parameter-overrides {said}")
    return 0


def ask(wanted: Environment, client: Callable[[str], Any], where: str) -> dict[str, str]:
    """Print the table for this environment and write what it chose, which is returned.

    Raises:
        RefusedError: the deployment would fail.
    """
    asked = Preflight(client, where, wanted.stack, dict(wanted.parameters), read_template())
    try:
        chosen = asked.run()
    finally:
        print_table(asked.rows)
    write_parameters(wanted.name, chosen)
    return chosen


def write_parameters(environment: str, parameters: dict[str, str]) -> Path:
    """The file that `sam deploy --parameter-overrides file://…` reads."""
    target = BUILD / f"{environment}.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return target


def print_table(rows: list[tuple[str, str]]) -> None:
    """One question a line."""
    width = max((len(question) for question, _ in rows), default=0)
    for question, answer in rows:
        print(f"{question:<{width}}  {answer}")


if __name__ == "__main__":
    sys.exit(main())
