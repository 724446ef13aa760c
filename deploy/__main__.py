"""Deploys one environment of samconfig.toml after asking AWS whether it can work.

    python -m deploy prod [options of `sam deploy`]

An environment that has a second section for its data (`prod-data` beside `prod`) is two stacks: the
network and the database first, then the functions, which get the first one's outputs as parameters.
A stack that made its own database keeps it, whatever samconfig.toml says. What is protected
(ProtectDatabase) gets termination protection too, so that deleting it is refused as a whole.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deploy import preflight
from deploy.preflight import BUILD, connect
from deploy.questions import RefusedError
from deploy.settings import Environment, SettingsError, read_environment
from deploy.template import ROOT, read_template

SAM = Path(sys.executable).parent / "sam"


class FailedError(Exception):
    """Something was not done; the sentence says what, and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Deploy; 1 if it is refused, fails, or leaves unprotected what should be protected."""
    name, *options = (sys.argv[1:] if arguments is None else arguments) or ["default"]
    try:
        wanted = read_environment(ROOT, name)
        client, region = connect(wanted.profile, wanted.region)
        data = find_data(name)
        if data is not None and not owns_its_data(client, wanted.stack):
            deploy(data, client, region, options)
            given = outputs_for(client, data.stack)
            wanted = wanted._replace(parameters={**wanted.parameters, **given})
        deploy(wanted, client, region, options)
    except (RefusedError, SettingsError) as error:
        print(f"Not deployed. {error}", file=sys.stderr)
        return 1
    except FailedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def find_data(name: str) -> Environment | None:
    """The section of samconfig.toml for the data of this environment, if it has one."""
    try:
        return read_environment(ROOT, f"{name}-data")
    except SettingsError:
        return None


def deploy(
    wanted: Environment, client: Callable[[str], Any], region: str, options: list[str]
) -> None:
    """Ask, `sam deploy`, protect."""
    chosen = preflight.ask(wanted, client, region)
    overrides = f"file://{BUILD / wanted.name}.yaml"
    command = [str(SAM), "deploy", "--config-env", wanted.name, "--region", region]
    command += ["--parameter-overrides", overrides, *options]
    done = subprocess.run(command, check=False)  # noqa: S603 - our own words and the caller's
    if done.returncode:
        raise FailedError(f"`sam deploy --config-env {wanted.name}` failed; its events say why.")
    if chosen.get("ProtectDatabase") == "true" and not chosen.get("DatabaseHost"):
        protect(client, wanted.stack)


def protect(client: Callable[[str], Any], stack: str) -> None:
    """Deleting the stack is refused before anything of it is gone."""
    try:
        client("cloudformation").update_termination_protection(
            StackName=stack, EnableTerminationProtection=True
        )
    except (BotoCoreError, ClientError) as error:
        raise FailedError(
            f"{stack} is deployed, but has no termination protection ({error}): "
            "`aws cloudformation update-termination-protection --enable-termination-protection "
            f"--stack-name {stack}`."
        ) from error
    print(f"{stack} is protected: deleting it is refused.")


def owns_its_data(client: Callable[[str], Any], stack: str) -> bool:
    """Whether the stack, as it is deployed, made its own database."""
    return "DatabaseHost" in describe(client, stack)


def outputs_for(client: Callable[[str], Any], stack: str) -> dict[str, str]:
    """The data stack's outputs that are parameters of the functions' stack."""
    parameters: Mapping[str, Any] = read_template()["Parameters"]
    found = describe(client, stack)
    return {name: value for name, value in found.items() if name in parameters}


def describe(client: Callable[[str], Any], stack: str) -> dict[str, str]:
    """The outputs of a stack; none if there is no such stack."""
    try:
        answer = client("cloudformation").describe_stacks(StackName=stack)
    except (BotoCoreError, ClientError) as error:
        if "does not exist" in str(error):
            return {}
        raise FailedError(f"Not deployed. {stack} cannot be described: {error}") from error
    return {o["OutputKey"]: o["OutputValue"] for o in answer["Stacks"][0].get("Outputs", ())}


if __name__ == "__main__":
    sys.exit(main())
