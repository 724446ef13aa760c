"""What samconfig.toml says about one environment, read as SAM itself reads it."""

from pathlib import Path
from typing import Any, NamedTuple

import click
from samcli.cli.types import CfnParameterOverridesType
from samcli.lib.config.exceptions import SamConfigFileReadException
from samcli.lib.config.samconfig import SamConfig


class SettingsError(Exception):
    """samconfig.toml cannot be used; the sentence says why and what to do."""


class Environment(NamedTuple):
    """One section of samconfig.toml, as `sam deploy --config-env` takes it."""

    name: str
    stack: str
    region: str | None
    profile: str | None
    parameters: dict[str, str]


def read_environment(folder: Path, name: str) -> Environment:
    """The section `name` of the samconfig.toml in `folder`, whoever wrote it.

    Raises:
        SettingsError: It cannot be read, has no such section, or names no stack.
    """
    try:
        config = SamConfig(str(folder))
        known = {n: read(config, n) for n in config.get_stage_configuration_names()}
    except SamConfigFileReadException as error:
        raise SettingsError(f"samconfig.toml cannot be read: {error.args[0]}") from error
    deployed = {n: section for n, section in known.items() if section.get("stack_name")}
    if name not in deployed:
        raise SettingsError(
            f"samconfig.toml deploys no {name!r}; expected one of {', '.join(deployed)}."
        )
    section = deployed[name]
    try:
        parameters = CfnParameterOverridesType().convert(
            section.get("parameter_overrides", ""), None, None
        )
    except click.BadParameter as error:
        raise SettingsError(f"parameter_overrides of {name!r}: {error.message}") from error
    return Environment(
        name, section["stack_name"], section.get("region"), section.get("profile"), parameters
    )


def read(config: SamConfig, name: str) -> dict[str, Any]:
    """What `sam deploy` would take from this section; empty if it deploys nothing."""
    try:
        section: dict[str, Any] = config.get_all(["deploy"], "parameters", name)
    except KeyError:
        return {}
    return section
