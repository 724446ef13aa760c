"""examples/existing-database: one function and the layer, for those who have all the rest."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.template import ROOT, read_template
from local.database import LocalDatabase
from local.environment import Answer, Environment
from tests.template.conftest import Document, Translate

FOLDER = ROOT / "examples" / "existing-database"
PARAMETERS = {
    "SubnetIds": "subnet-1,subnet-2",
    "SecurityGroupId": "sg-1",
    "DatabaseHost": "database.example.com",
    "DatabaseName": "shop",
    "DatabaseSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:application-AbCdEf",
}


@pytest.fixture
def example() -> Document:
    return read_template(FOLDER / "template.yaml")


def test_it_is_read_in_a_minute() -> None:
    assert len((FOLDER / "template.yaml").read_text("utf-8").splitlines()) < 100


def test_only_what_cannot_be_known_is_asked_and_every_question_is_explained(
    example: Document,
) -> None:
    parameters = example["Parameters"]
    assert {name for name, one in parameters.items() if "Default" not in one} == PARAMETERS.keys()
    for name, parameter in parameters.items():
        assert parameter["Description"], name
        if pattern := parameter.get("AllowedPattern"):
            assert parameter["ConstraintDescription"], name
            assert re.fullmatch(pattern, PARAMETERS[name]), name


def test_it_makes_a_function_and_the_layer_and_reads_no_secret_but_the_one_named(
    example: Document, translate: Translate
) -> None:
    resources = translate(example, **PARAMETERS)["Resources"]
    kinds = sorted(resource["Type"] for resource in resources.values())
    assert kinds == ["AWS::IAM::Role", "AWS::Lambda::Function", "AWS::Lambda::LayerVersion"]
    role = resources["FunctionRole"]["Properties"]
    [policy] = role["Policies"]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["secretsmanager:GetSecretValue"]
    assert statement["Resource"] == {
        "Fn::Sub": ["${secretArn}", {"secretArn": {"Ref": "DatabaseSecretArn"}}]
    }
    managed = {arn.rpartition("/")[2] for arn in role["ManagedPolicyArns"]}
    assert managed == {"AWSLambdaBasicExecutionRole", "AWSLambdaVPCAccessExecutionRole"}
    function = resources["Function"]["Properties"]
    assert function["VpcConfig"]["SecurityGroupIds"] == [{"Ref": "SecurityGroupId"}]
    assert function["ReservedConcurrentExecutions"] == {"Ref": "MostConnections"}
    assert function["Layers"]


def test_its_layer_and_runtime_are_those_of_the_starter(
    example: Document, template: Document
) -> None:
    [ours] = [one for one in template["Resources"].values() if is_layer(one)]
    [its] = [one for one in example["Resources"].values() if is_layer(one)]
    content = (FOLDER / its["Properties"]["ContentUri"]).resolve()
    assert content == ROOT / ours["Properties"]["ContentUri"]
    for name in ("CompatibleRuntimes", "CompatibleArchitectures", "LicenseInfo"):
        assert its["Properties"][name] == ours["Properties"][name]
    assert (
        example["Resources"]["Function"]["Properties"]["Runtime"]
        in (its["Properties"]["CompatibleRuntimes"])
    )


def is_layer(resource: dict[str, Any]) -> bool:
    return bool(resource["Type"] == "AWS::Serverless::LayerVersion")


def test_the_linters_of_the_starter_read_it_too() -> None:
    checked = yaml.safe_load((ROOT / ".checkov.yaml").read_text("utf-8"))["file"]
    assert str((FOLDER / "template.yaml").relative_to(ROOT)) in checked
    assert f"--template {FOLDER.relative_to(ROOT)}/template.yaml" in (ROOT / "Makefile").read_text()


def test_every_variable_of_the_function_is_one_that_the_layer_reads(example: Document) -> None:
    package = ROOT / "layers/single_connection/src/single_connection"
    source = "".join(path.read_text("utf-8") for path in package.glob("*.py"))
    variables = example["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    assert [name for name in variables if f'"{name}"' not in source] == []


def test_its_handler_answers_from_a_real_database_and_leaves_no_connection(
    database_server: LocalDatabase, tmp_path: Path
) -> None:
    shutil.copy(FOLDER / "app.py", tmp_path)

    async def invoke() -> Answer:
        environ = database_server.application_environ()
        async with Environment(tmp_path, environ=environ, timeout=15) as environment:
            return await environment.invoke({})

    answer = asyncio.run(invoke())
    assert answer.status == "ok", answer.log
    said = json.loads(answer.payload)
    # One more where the test's own look at the server counts among its connections.
    seen = database_server.observer.counted
    assert said["max_connections"] == database_server.max_connections + seen
    assert re.match(r"\d+\.\d+", said["version"])
    assert database_server.sessions() == []
