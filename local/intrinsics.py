"""CloudFormation's intrinsic functions and conditions, at the parameters' values."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_PSEUDO_PARAMETERS = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::StackName": "local",
    "AWS::URLSuffix": "amazonaws.com",
}


class TemplateError(ValueError):
    """The template cannot be read, or does not hold what was asked for."""


def is_intrinsic(value: Mapping[str, Any]) -> bool:
    """Whether it is a function, not a map."""
    return len(value) == 1 and next(iter(value)).startswith(("Ref", "Fn::"))


UNKNOWN = object()
"""What only a deployed stack knows."""


class Values:
    """Resolves intrinsic functions at the parameters' values; NoValue is None, or left out.

    Args:
        document: The template.
        parameters: Instead of their defaults.
        keep: What only a deployed stack knows stays as it is written; else it is UNKNOWN.
    """

    def __init__(
        self, document: Mapping[str, Any], parameters: Mapping[str, str], *, keep: bool = False
    ) -> None:
        declared = document.get("Parameters", {})
        self._parameters: dict[str, Any] = {
            name: str(parameter["Default"])
            for name, parameter in declared.items()
            if "Default" in parameter
        }
        self._parameters |= parameters
        if not keep:
            self._parameters = _PSEUDO_PARAMETERS | self._parameters
        self._keep = keep
        self._mappings = document.get("Mappings", {})
        self._conditions = document.get("Conditions", {})

    def resolve(self, value: Any) -> Any:
        """The value with every function in it followed."""
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not None]
        if not isinstance(value, dict):
            return value
        if is_intrinsic(value):
            [(key, argument)] = value.items()
            result = self._intrinsic(key, argument)
            if result is not UNKNOWN or not self._keep:
                return result
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not None}

    def _intrinsic(self, key: str, argument: Any) -> Any:
        result: Any = UNKNOWN
        match key, argument:
            case "Ref", "AWS::NoValue":
                result = None
            case "Ref", name:
                result = self._parameters.get(name, UNKNOWN)
            case "Fn::If", [condition, yes, no]:
                result = self.resolve(yes if self.holds({"Condition": condition}) else no)
            case "Fn::FindInMap", [*path]:
                result = self._find(path)
            case "Fn::Split", [str(separator), whole]:
                text = self.resolve(whole)
                result = text.split(separator) if isinstance(text, str) else UNKNOWN
            case "Fn::Sub", str(text) if not self._keep:
                result = self._substitute(text, {})
            case "Fn::Sub", [str(text), dict(given)] if not self._keep:
                result = self._substitute(text, given)
        return result

    def exists(self, resource: Mapping[str, Any]) -> bool:
        """Whether a resource is made at all."""
        return "Condition" not in resource or self.holds({"Condition": resource["Condition"]})

    def holds(self, condition: Any) -> bool:
        """Whether a condition is true at the parameters' values."""
        match condition:
            case {"Condition": name}:
                return self.holds(self._conditions[name])
            case {"Fn::Equals": [left, right]}:
                return str(self.resolve(left)) == str(self.resolve(right))
            case {"Fn::Not": [inner]}:
                return not self.holds(inner)
            case {"Fn::And": parts}:
                return all(map(self.holds, parts))
            case {"Fn::Or": parts}:
                return any(map(self.holds, parts))
        raise TemplateError(f"this condition cannot be read: {condition}")

    def _find(self, path: Sequence[Any]) -> Any:
        found = self._mappings
        for key in map(self.resolve, path):
            if not isinstance(found, dict) or key not in found:
                return UNKNOWN
            found = found[key]
        return found

    def _substitute(self, text: str, given: Mapping[str, Any]) -> Any:
        def put(match: re.Match[str]) -> str:
            name = match[1]
            value = self.resolve(given.get(name, {"Ref": name}))
            if value is UNKNOWN:
                raise KeyError(name)
            return str(value)

        try:
            return re.sub(r"\$\{([^!}][^}]*)\}", put, text)
        except KeyError:
            return UNKNOWN
