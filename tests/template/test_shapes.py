"""One stack of everything, or data and functions apart: nothing missing, nothing made twice."""

from typing import Any

import pytest
import yaml
from samcli.cli.types import CfnParameterOverridesType

from deploy import __main__ as deploy
from deploy import preflight
from deploy.settings import read_environment
from deploy.template import ROOT
from tests.template.conftest import Document, Resolve, functions
from tests.template.test_network_and_secrets import walk

GIVEN = {
    "DatabaseHost": "db.example",
    "SubnetIds": "subnet-1,subnet-2",
    "FunctionSecurityGroupId": "sg-1",
    "MasterSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:master",
    "ApplicationSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:application",
    "CensusSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:census",
}
FOR_PROXY = {
    "UseProxy": "true",
    "VpcId": "vpc-1",
    "DatabaseSecurityGroupId": "sg-2",
    "DatabaseInstanceIdentifier": "db",
}
SHAPES: dict[str, dict[str, str]] = {
    "everything": {},
    "everything, proxy": {"UseProxy": "true"},
    "data": {"DataOnly": "true"},
    "data, by IPv6": {"DataOnly": "true", "SecretsBy": "ipv6"},
    "sleeping": {"DatabaseInstanceClass": "aurora.serverless", "SecretsBy": "ipv6"},
    "sleeping data": {"DatabaseInstanceClass": "aurora.serverless", "DataOnly": "true"},
    "without alarms": {"MakeAlarms": "false", "MakeDashboard": "false", "RunCensus": "false"},
    "rotating": {"PasswordRotationInDays": "30"},
    "data, rotating": {"DataOnly": "true", "PasswordRotationInDays": "30"},
    "functions, rotating": {**GIVEN, "PasswordRotationInDays": "30"},
    "functions": GIVEN,
    "functions, proxy": {**GIVEN, **FOR_PROXY},
    "functions, secrets made here": {**GIVEN, "ApplicationSecretArn": "", "CensusSecretArn": ""},
}
HOLDS_DATA = ("AWS::RDS::DBInstance", "AWS::RDS::DBCluster", "AWS::EC2::VPC", "AWS::EC2::Subnet")


def kinds(resources: Document) -> set[str]:
    return {resource["Type"] for resource in resources.values()}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_shape_refers_to_is_there(template: Document, resolve: Resolve, shape: str) -> None:
    resources = resolve(**SHAPES[shape])
    for name, resource in resources.items():
        for node in walk(resource):
            if not isinstance(node, dict) or len(node) != 1:
                continue
            [(function, target)] = node.items()
            if function == "Ref" and not target.startswith("AWS::"):
                # Migrate.Version is SAM's own.
                assert target.partition(".")[0] in resources, (name, target)
            if function == "Fn::GetAtt":
                assert target[0] in resources, (name, target)
        waits = resource.get("DependsOn", [])
        for target in [waits] if isinstance(waits, str) else waits:
            assert target in resources, (name, target)


def test_the_data_alone_has_no_function_and_the_functions_alone_no_data(resolve: Resolve) -> None:
    data, functions = resolve(**SHAPES["data"]), resolve(**SHAPES["functions"])
    assert "AWS::Serverless::Function" not in kinds(data)
    assert not kinds(functions) & set(HOLDS_DATA)
    assert "AWS::SecretsManager::Secret" not in kinds(functions)
    assert "AWS::SecretsManager::Secret" in kinds(resolve(**SHAPES["functions, secrets made here"]))
    everything = resolve()
    assert data.keys() | functions.keys() == everything.keys()
    # Each tells somebody of its own alarms.
    assert data.keys() & functions.keys() == {"AlarmTopic"}


def test_the_datas_outputs_are_the_functions_parameters(template: Document) -> None:
    outputs = {n for n, o in template["Outputs"].items() if "Data" in o.get("Condition", "")}
    taken = outputs & template["Parameters"].keys()
    secrets = {"ApplicationSecretArn", "CensusSecretArn"}
    assert taken >= {*GIVEN, *FOR_PROXY} - {"UseProxy"} - secrets
    assert template["Outputs"].keys() >= secrets


@pytest.mark.parametrize("shape", ["data", "data, by IPv6", "sleeping data"])
def test_a_protected_database_is_made_last_and_deleted_first(resolve: Resolve, shape: str) -> None:
    """So that what fails fails before it is there, and a refused deletion has deleted nothing."""
    data = resolve(**SHAPES[shape])
    [database] = data.keys() & {"DatabaseInstance", "DatabaseCluster"}
    needed, waiting = set(), [database]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        resource = data[name]
        found = [resource["DependsOn"]] if isinstance(resource.get("DependsOn"), str) else []
        found += resource.get("DependsOn", []) if not found else []
        for node in walk(resource["Properties"]):
            if isinstance(node, dict) and len(node) == 1:
                [(function, target)] = node.items()
                found += [target] if function == "Ref" else []
                found += [target[0]] if function == "Fn::GetAtt" else []
        waiting += [n for n in found if n in data]
    watching = {n for n, r in data.items() if r["Type"].startswith(("AWS::CloudWatch", "AWS::SNS"))}
    # A cluster's instance holds no data, and goes with it.
    of_the_cluster = {n for n in data if n.startswith("ClusterInstance")}
    assert data.keys() - needed == watching | of_the_cluster


def test_nothing_keeps_a_sleeping_database_awake(resolve: Resolve) -> None:
    """No schedule by the minute, and a request may wait for it to wake up."""
    resources = resolve(**SHAPES["sleeping"])
    for resource in resources.values():
        for event in resource.get("Properties", {}).get("Events", {}).values():
            if (
                event["Type"] == "ScheduleV2"
                and "minute" in event["Properties"]["ScheduleExpression"]
            ):
                assert event["Properties"]["State"] == "DISABLED"
    scaling = resources["DatabaseCluster"]["Properties"]["ServerlessV2ScalingConfiguration"]
    assert scaling["MinCapacity"] == 0
    called = [
        function["Timeout"]
        for function in functions(resources).values()
        if any(event["Type"] == "HttpApi" for event in function.get("Events", {}).values())
    ]
    assert all(timeout > 15 for timeout in called)  # seconds that waking up takes
    assert "CensusMissingAlarm" not in resources
    awake = resolve()["ConnectionCensus"]["Properties"]["Events"]["EachMinute"]["Properties"]
    assert awake["State"] == "ENABLED"


def test_every_data_section_of_samconfig_is_protected_and_makes_data_alone() -> None:
    data = read_environment(ROOT, "prod-data").parameters
    assert data["DataOnly"] == data["ProtectDatabase"] == "true"
    assert deploy.find_data("default") is None


class Cloud:
    """CloudFormation, as far as `deploy` asks it: outputs of stacks, and termination protection."""

    def __init__(self, **stacks: dict[str, str]) -> None:
        self.stacks = stacks
        self.protected: list[str] = []

    def __call__(self, service: str) -> "Cloud":
        assert service == "cloudformation"
        return self

    def describe_stacks(self, StackName: str) -> Document:  # noqa: N803 - boto3's name
        outputs = self.stacks.get(StackName.rpartition("-")[2], {})
        found = [{"OutputKey": k, "OutputValue": v} for k, v in outputs.items()]
        return {"Stacks": [{"Outputs": found}]}

    def update_termination_protection(self, *, StackName: str, **_: bool) -> None:  # noqa: N803
        self.protected.append(StackName)


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """Runs `deploy` against a cloud; gives what `sam deploy` would be called with."""

    def _deploy(cloud: Cloud, name: str, fails: str = "") -> list[tuple[str, dict[str, str]]]:
        calls = []

        def run(command: list[str], check: bool) -> Any:
            environment = command[command.index("--config-env") + 1]
            file = command[command.index("--parameter-overrides") + 1]
            calls.append((environment, CfnParameterOverridesType().convert((file,), None, None)))
            return type("Done", (), {"returncode": int(environment == fails)})

        def ask(wanted: Any, *_: Any) -> dict[str, str]:
            preflight.write_parameters(wanted.name, wanted.parameters)
            return dict(wanted.parameters)

        monkeypatch.setattr(deploy, "connect", lambda *_: (cloud, "us-east-1"))
        monkeypatch.setattr("subprocess.run", run)
        monkeypatch.setattr(preflight, "ask", ask)
        monkeypatch.setattr(preflight, "BUILD", tmp_path)
        monkeypatch.setattr(deploy, "BUILD", tmp_path)
        assert deploy.main([name]) == (1 if fails else 0)
        return calls

    return _deploy


def test_prod_is_its_data_first_protected_and_then_its_functions(deployed: Any) -> None:
    cloud = Cloud(data={**GIVEN, "MaxConnections": "65"})
    (first, data), (second, functions) = deployed(cloud, "prod")
    assert (first, second) == ("prod-data", "prod")
    assert data["DataOnly"] == "true"
    assert cloud.protected == ["single-connection-prod-data"]
    assert functions["DatabaseHost"] == "db.example"
    assert "MaxConnections" not in functions  # an output that is no parameter


def test_functions_are_not_deployed_on_data_that_failed(deployed: Any) -> None:
    cloud = Cloud(data=GIVEN)
    [(name, _)] = deployed(cloud, "prod", fails="prod-data")
    assert name == "prod-data"
    assert not cloud.protected


def test_data_is_protected_before_its_functions_can_fail(deployed: Any) -> None:
    cloud = Cloud(data=GIVEN)
    deployed(cloud, "prod", fails="prod")
    assert cloud.protected == ["single-connection-prod-data"]


def test_a_prod_that_made_its_own_database_keeps_it(deployed: Any) -> None:
    cloud = Cloud(prod={"DatabaseHost": "its.own"})
    [(name, parameters)] = deployed(cloud, "prod")
    assert name == "prod"
    assert "DatabaseHost" not in parameters
    assert cloud.protected == ["single-connection-prod"]


def test_dev_is_one_stack_that_may_be_deleted(deployed: Any) -> None:
    cloud = Cloud()
    [(name, _)] = deployed(cloud, "default")
    assert name == "default"
    assert not cloud.protected


def test_make_deploy_is_this_command() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-m deploy $(ENVIRONMENT)" in makefile
    workflow = yaml.safe_load((ROOT / ".github/workflows/deploy.yaml").read_text(encoding="utf-8"))
    assert "make deploy ENVIRONMENT=prod" in str(workflow)
