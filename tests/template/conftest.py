"""The template as data: as written, as it stands for given parameters, and as SAM translates it."""

import copy
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from deploy.template import read_template
from local.template import Values

Document = dict[str, Any]
Resolve = Callable[..., Document]
Translate = Callable[..., Document]


def functions(resources: Document) -> Document:
    """Of each function its properties, whatever it is called."""
    return {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Serverless::Function"
    }


# Yours, with their folders, the two that stay, and the one that is made if it is asked for.
FUNCTIONS = {name: own["CodeUri"] for name, own in functions(read_template()["Resources"]).items()}
KEPT = {"Migrate", "ConnectionCensus"}
ASKED_FOR = {"RotateSecret"}


@pytest.fixture(scope="session")
def _template() -> Document:
    return read_template()


@pytest.fixture
def template(_template: Document) -> Document:
    """A copy, so that a test may change it."""
    return copy.deepcopy(_template)


@pytest.fixture
def resolve(template: Document) -> Resolve:
    """The resources that exist for these parameters, what only AWS knows left as it is."""

    def _resolve(region: str = "us-east-1", **parameters: str) -> Document:
        values = Values(template, {"AWS::Region": region, **parameters}, keep=True)
        return {
            name: values.resolve(resource)
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
