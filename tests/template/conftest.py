"""The template as data: as written, as it stands for given parameters, and as SAM translates it."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import boto3
import pytest
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from deploy.template import read_template

Document = dict[str, Any]
Resolve = Callable[..., Document]
Translate = Callable[..., Document]

_ABSENT = object()


@pytest.fixture(scope="session")
def _template() -> Document:
    return read_template()


@pytest.fixture
def template(_template: Document) -> Document:
    """A copy, so that a test may change it."""
    return copy.deepcopy(_template)


class _Values:
    """If, FindInMap and Ref of a parameter, replaced by what they stand for."""

    def __init__(self, template: Document, parameters: Mapping[str, str]) -> None:
        self.template = template
        defaults = {name: str(p["Default"]) for name, p in template["Parameters"].items()}
        self.parameters = {**defaults, **parameters}

    def holds(self, condition: Mapping[str, Any]) -> bool:
        match condition:
            case {"Condition": str(name)}:
                return self.holds(self.template["Conditions"][name])
            case {"Fn::Not": [inner]}:
                return not self.holds(inner)
            case {"Fn::And": [*inner]}:
                return all(map(self.holds, inner))
            case {"Fn::Or": [*inner]}:
                return any(map(self.holds, inner))
            case {"Fn::Equals": [left, right]}:
                return bool(self.plain(left) == self.plain(right))
        raise AssertionError(condition)

    def exists(self, resource: Mapping[str, Any]) -> bool:
        name = resource.get("Condition")
        return name is None or self.holds(self.template["Conditions"][name])

    def plain(self, node: Any) -> Any:
        match node:
            case list():
                return [item for item in map(self.plain, node) if item is not _ABSENT]
            case {"Ref": "AWS::NoValue"}:
                return _ABSENT
            case {"Ref": str(name)}:
                return self.parameters.get(name, node)
            case {"Fn::FindInMap": [*path]}:
                found = self.template["Mappings"]
                for key in path:
                    found = found[self.plain(key)]
                return found
            case {"Fn::Split": [separator, whole]} if isinstance(self.plain(whole), str):
                return self.plain(whole).split(separator)
            case {"Fn::If": [name, yes, no]}:
                return self.plain(yes if self.holds(self.template["Conditions"][name]) else no)
            case dict():
                pairs = ((key, self.plain(value)) for key, value in node.items())
                return {key: value for key, value in pairs if value is not _ABSENT}
        return node


@pytest.fixture
def resolve(template: Document) -> Resolve:
    """The resources that exist for these parameters, what only AWS knows left as it is."""

    def _resolve(region: str = "us-east-1", **parameters: str) -> Document:
        values = _Values(template, {"AWS::Region": region, **parameters})
        return {
            name: values.plain(resource)
            for name, resource in template["Resources"].items()
            if values.exists(resource)
        }

    return _resolve


@pytest.fixture
def translate(template: Document) -> Translate:
    """What CloudFormation gets: SAM's own translator, with code that lies in a bucket."""

    def _translate(document: Document | None = None, **parameters: str) -> Document:
        given = copy.deepcopy(document or template)
        for resource in given["Resources"].values():
            for key in ("CodeUri", "ContentUri"):
                if isinstance(uri := resource.get("Properties", {}).get(key), str):
                    resource["Properties"][key] = f"s3://bucket/{uri.strip('/')}"
        session = boto3.Session(region_name="us-east-1")
        translator = Translator(managed_policy_map=None, sam_parser=Parser(), boto_session=session)
        translated: Document = translator.translate(
            given, parameter_values=parameters, get_managed_policy_map=dict
        )
        return translated

    return _translate
