"""What template.yaml says of each function, as far as running it locally needs.

Parameters are read at their defaults (or those given), mappings and conditions are followed. What
exists only once deployed (an address, a secret's name) is left out; who runs the function passes
its own `DATABASE_*` instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from samtranslator.yaml_helper import yaml_parse

from local.debug import Debug
from local.environment import ROOT, Environment
from local.intrinsics import UNKNOWN, TemplateError, Values, is_intrinsic

__all__ = [
    "TEMPLATE",
    "Function",
    "TemplateError",
    "Values",
    "api_is_signed",
    "find_function",
    "read_functions",
]

TEMPLATE = ROOT / "template.yaml"

# AWS SAM and Lambda defaults for what a template leaves open.
DEFAULT_TIMEOUT = 3
DEFAULT_MEMORY = 128


@dataclass(frozen=True, slots=True)
class Function:
    """One AWS::Serverless::Function. Times in seconds, memory in MB."""

    logical_id: str
    name: str  # the folder under functions/
    directory: Path
    handler: str
    runtime: str
    timeout: float
    memory: int
    reserved_concurrency: int | None
    environ: Mapping[str, str]
    events: Mapping[str, Any] = field(default_factory=dict)  # what calls it, by name

    def environment(self, environ: Mapping[str, str], *, debug: Debug | None = None) -> Environment:
        """An execution environment of it; `environ` wins over the template's variables."""
        return Environment(
            self.directory,
            self.handler,
            environ={**self.environ, **environ},
            timeout=self.timeout,
            memory=self.memory,
            name=self.name,
            debug=debug,
        )


def read_functions(
    template: Path = TEMPLATE, parameters: Mapping[str, str] | None = None
) -> dict[str, Function]:
    """The template's functions by folder name, in its order: those made for the parameters.

    Raises:
        TemplateError: the file is missing, is no YAML, or is no template with functions.
    """
    document = _read(template)
    values = Values(document, parameters or {})
    shared = document.get("Globals", {}).get("Function", {})
    functions = {}
    for logical_id, resource in document["Resources"].items():
        if resource.get("Type") == "AWS::Serverless::Function" and values.exists(resource):
            own = resource.get("Properties", {})
            function = _function(logical_id, shared, own, values, template.parent)
            functions[function.name] = function
    return functions


def api_is_signed(template: Path = TEMPLATE) -> bool:
    """Whether an HTTP API of the template asks its callers for IAM, by default."""
    return any(
        resource.get("Type") == "AWS::Serverless::HttpApi"
        and (resource.get("Properties", {}).get("Auth") or {}).get("DefaultAuthorizer") == "AWS_IAM"
        for resource in _read(template)["Resources"].values()
    )


def _read(template: Path) -> dict[str, Any]:
    try:
        document = yaml_parse(template.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TemplateError(f"{template} does not exist; expected a SAM template there") from error
    except yaml.YAMLError as error:
        raise TemplateError(f"{template} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or not isinstance(document.get("Resources"), dict):
        raise TemplateError(f"{template} has no Resources; expected a SAM template")
    return document


def find_function(name: str, template: Path = TEMPLATE) -> Function:
    """The function of that folder name or logical id.

    Raises:
        TemplateError: there is none; the sentence lists those there are.
    """
    functions = read_functions(template)
    for function in functions.values():
        if name in {function.name, function.logical_id}:
            return function
    known = ", ".join(sorted(functions)) or "none"
    raise TemplateError(f"no function is called {name!r}; {template.name} has: {known}")


def _function(
    logical_id: str,
    shared: Mapping[str, Any],
    own: Mapping[str, Any],
    values: "Values",
    root: Path,
) -> Function:
    merged = _merge(shared, own)

    def value(key: str, default: Any) -> Any:
        resolved = values.resolve(merged.get(key))
        return default if resolved is None or resolved is UNKNOWN else resolved

    code = merged.get("CodeUri")
    if not isinstance(code, str):
        raise TemplateError(f"{logical_id} has no CodeUri; expected functions/<name>/")
    directory = (root / code).resolve()
    variables = value("Environment", {}).get("Variables", {})
    environ = {
        name: str(given)
        for name, given in variables.items()
        if isinstance(given, (str, int, float))
    }
    if log_format := value("LoggingConfig", {}).get("LogFormat"):
        environ["AWS_LAMBDA_LOG_FORMAT"] = log_format
    reserved = value("ReservedConcurrentExecutions", None)
    return Function(
        logical_id=logical_id,
        name=directory.name,
        directory=directory,
        handler=str(value("Handler", "app.lambda_handler")),
        runtime=str(value("Runtime", "")),
        timeout=float(value("Timeout", DEFAULT_TIMEOUT)),
        memory=int(value("MemorySize", DEFAULT_MEMORY)),
        reserved_concurrency=None if reserved is None else int(reserved),
        environ=environ,
        events=value("Events", {}),
    )


def _merge(shared: Any, own: Any) -> Any:
    """SAM's Globals: maps are merged key by key, lists are joined, anything else is overridden."""
    if isinstance(shared, dict) and isinstance(own, dict):
        if is_intrinsic(shared) or is_intrinsic(own):
            return own
        both = {key: _merge(shared[key], own[key]) for key in shared.keys() & own.keys()}
        return {**shared, **own, **both}
    if isinstance(shared, list) and isinstance(own, list):
        return [*shared, *own]
    return own
