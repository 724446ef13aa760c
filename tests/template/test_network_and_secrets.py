"""Nothing open, nothing public, nothing secret in the clear, no wildcard without a reason."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.template import TEMPLATE
from tests.template.conftest import FUNCTIONS, Document, Resolve, Translate, functions

BOTH = pytest.mark.parametrize("proxy", ["false", "true"])


def walk(node: Any) -> Iterator[Any]:
    """Every dict, list and scalar in it."""
    yield node
    children: Any = ()
    if isinstance(node, dict):
        children = node.values()
    elif isinstance(node, list):
        children = node
    for child in children:
        yield from walk(child)


def statements(resources: Document) -> Iterator[Document]:
    for node in walk(resources):
        if isinstance(node, dict) and "Effect" in node and "Action" in node:
            yield node


@BOTH
def test_nothing_is_open_to_the_world(resolve: Resolve, proxy: str) -> None:
    """Nothing lets the world in, and no route leads out but that of the endpoint of S3."""
    resources = resolve(UseProxy=proxy)
    for resource in resources.values():
        if resource["Type"] == "AWS::EC2::SecurityGroupIngress":
            assert not {"CidrIp", "CidrIpv6"} & resource["Properties"].keys()
        assert "SecurityGroupIngress" not in ensure_dict(resource.get("Properties"))
    types = {resource["Type"] for resource in resources.values()}
    assert not types & {
        "AWS::EC2::EgressOnlyInternetGateway",
        "AWS::EC2::EIP",
        "AWS::EC2::InternetGateway",
        "AWS::EC2::NatGateway",
        "AWS::EC2::Route",
        "AWS::EC2::TransitGatewayAttachment",
    }
    gateways = [
        resource["Properties"]["ServiceName"]["Fn::Sub"]
        for resource in resources.values()
        if ensure_dict(resource.get("Properties")).get("VpcEndpointType") == "Gateway"
    ]
    assert gateways == ["com.amazonaws.${AWS::Region}.s3"]


@BOTH
def test_rules_name_groups_not_addresses(resolve: Resolve, proxy: str) -> None:
    """Only the rule to nowhere, which stands for none at all, and the one to S3 have an address."""
    resources = resolve(UseProxy=proxy)
    assert not [node for node in walk(resources) if "CidrIpv6" in ensure_dict(node)]
    addresses = {
        (node["CidrIp"], node["FromPort"])
        for node in walk(resources)
        if "CidrIp" in ensure_dict(node)
    }
    assert addresses == {("255.255.255.255/32", 252), ("0.0.0.0/0", 443)}


@BOTH
def test_every_group_says_where_it_may_call(resolve: Resolve, proxy: str) -> None:
    """Without a rule for egress, a security group may call everybody."""
    for name, resource in resolve(UseProxy=proxy).items():
        if resource["Type"] == "AWS::EC2::SecurityGroup":
            assert resource["Properties"]["SecurityGroupEgress"], name


@BOTH
def test_what_one_group_may_call_the_other_lets_in(resolve: Resolve, proxy: str) -> None:
    resources = resolve(UseProxy=proxy)
    calls = {
        (name, rule["DestinationSecurityGroupId"]["Ref"], rule["FromPort"])
        for name, resource in resources.items()
        if resource["Type"] == "AWS::EC2::SecurityGroup"
        for rule in resource["Properties"]["SecurityGroupEgress"]
        if "DestinationSecurityGroupId" in rule
    } | {
        (rule["GroupId"]["Ref"], rule["DestinationSecurityGroupId"]["Ref"], rule["FromPort"])
        for rule in (
            resource["Properties"]
            for resource in resources.values()
            if resource["Type"] == "AWS::EC2::SecurityGroupEgress"
        )
    }
    answers = {
        (rule["SourceSecurityGroupId"]["Ref"], rule["GroupId"]["Ref"], rule["FromPort"])
        for rule in (
            resource["Properties"]
            for resource in resources.values()
            if resource["Type"] == "AWS::EC2::SecurityGroupIngress"
        )
    }
    # A call that nobody answers: kept, so that UseProxy can be switched without an outage.
    kept = {("FunctionSecurityGroup", "DatabaseSecurityGroup", 3306)} if proxy == "true" else set()
    assert calls == answers | kept
    assert not answers & kept
    assert {port for _, _, port in calls} == {443, 3306}


def test_only_what_looks_after_the_database_reaches_it_past_the_proxy(resolve: Resolve) -> None:
    resources = resolve(UseProxy="true")
    groups = {
        name: resource["Properties"]["VpcConfig"]["SecurityGroupIds"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    operators = {n for n, group in groups.items() if group == [{"Ref": "OperatorSecurityGroup"}]}
    rest = {n for n, group in groups.items() if group == [{"Ref": "FunctionSecurityGroup"}]}
    assert rest | operators == groups.keys()
    assert operators == {"Migrate", "ConnectionCensus"}
    for name in operators:
        variables = resources[name]["Properties"]["Environment"]["Variables"]
        assert variables["DATABASE_HOST"] == {
            "Fn::GetAtt": ["DatabaseInstance", "Endpoint.Address"]
        }


def test_the_database_is_private_encrypted_and_leaves_a_snapshot(resolve: Resolve) -> None:
    resource = resolve()["DatabaseInstance"]
    database = resource["Properties"]
    assert database["PubliclyAccessible"] is False
    assert database["StorageEncrypted"] is True
    assert database["ManageMasterUserPassword"] is True
    assert "MasterUserPassword" not in database
    assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Snapshot"
    assert database["EngineLifecycleSupport"] == "open-source-rds-extended-support-disabled"


def test_plain_text_is_refused_by_database_and_proxy(resolve: Resolve) -> None:
    resources = resolve(UseProxy="true")
    assert resources["DatabaseParameters"]["Properties"]["Parameters"]["require_secure_transport"]
    assert resources["DatabaseProxy"]["Properties"]["RequireTLS"] is True


@BOTH
def test_no_variable_and_no_default_carries_a_secret(
    template: Document, translate: Translate, proxy: str
) -> None:
    translated = translate(UseProxy=proxy)
    for resource in translated["Resources"].values():
        variables = resource.get("Properties", {}).get("Environment", {}).get("Variables", {})
        for name, value in variables.items():
            if re.search("PASSWORD|TOKEN|KEY", name):
                assert value == "", name
            assert "GenerateSecretString" not in str(value)
    assert "resolve:secretsmanager" not in json.dumps(translated, default=str)
    for name in template["Parameters"]:
        if re.search("(?i)password|secret", name) and name not in (
            "SecretsBy",
            "PasswordRotationInDays",
        ):
            assert name.endswith("SecretArn")  # where it is, and not what it is


@BOTH
def test_each_function_reads_its_own_secrets_only(translate: Translate, proxy: str) -> None:
    resources = translate(UseProxy=proxy)["Resources"]
    instance = {"Fn::GetAtt": ["DatabaseInstance", "MasterUserSecret.SecretArn"]}
    cluster = {"Fn::GetAtt": ["DatabaseCluster", "MasterUserSecret.SecretArn"]}
    otherwise = {"Fn::If": ["MakesInstance", instance, {"Ref": "MasterSecretArn"}]}
    master = {"Fn::If": ["MakesCluster", cluster, otherwise]}
    given = {"Ref": "ApplicationSecretArn"}
    application = {"Fn::If": ["MakesApplicationSecret", {"Ref": "ApplicationSecret"}, given]}
    given = {"Ref": "CensusSecretArn"}
    census = {"Fn::If": ["MakesCensusSecret", {"Ref": "CensusSecret"}, given]}
    secrets = {
        "ConnectionCensus": [census],
        "Migrate": [master, application, census],
        "RotateSecret": [master, application],
    }
    for name in FUNCTIONS:
        policies = resources[f"{name}Role"]["Properties"]["Policies"]
        read = [
            statement["Resource"]["Fn::Sub"][1]["secretArn"]
            for statement in statements(policies)
            if statement["Action"] == ["secretsmanager:GetSecretValue"]
        ]
        assert read == secrets.get(name, [application])
        written = [
            s for s in statements(policies) if "secretsmanager:PutSecretValue" in s["Action"]
        ]
        assert [s["Resource"] for s in written] == [application] * (name == "RotateSecret")


def test_the_password_changes_by_itself_only_where_it_is_asked_for(resolve: Resolve) -> None:
    def writes(resources: Document) -> list[Document]:
        return [s for s in statements(resources) if "PutSecretValue" in str(s["Action"])]

    resources = resolve()
    assert "RotateSecret" not in resources
    assert not writes(resources)
    resources = resolve(PasswordRotationInDays="30")
    assert {str(s["Resource"]).strip("[]") for s in writes(resources)} == {
        str({"Ref": "ApplicationSecret"})
    }
    # As where the function is: in a stack of the data, the endpoint lets it through.
    assert len(writes(resources)) == 2
    assert len(writes(resolve(PasswordRotationInDays="30", DataOnly="true"))) == 1
    rotation = resources["RotateSecret"]["Properties"]
    [schedule] = rotation["Events"].values()
    assert schedule["Properties"]["ScheduleExpression"] == {
        "Fn::Sub": "rate(${PasswordRotationInDays} days)"
    }
    assert rotation["VpcConfig"]["SecurityGroupIds"] == [{"Ref": "OperatorSecurityGroup"}]
    assert rotation["Tags"] == {"waits-for": {"Ref": "SecretsEndpoint"}}
    # What fails is told by the alarm that there is for dead letters.
    letters = {"Fn::GetAtt": ["ScheduleDeadLetters", "Arn"]}
    assert rotation["DeadLetterQueue"]["TargetArn"] == letters
    assert schedule["Properties"]["DeadLetterConfig"]["Arn"] == letters


@BOTH
def test_no_wildcard_without_a_written_reason(translate: Translate, proxy: str) -> None:
    """No action or resource of ours is a wildcard; a principal is one only beside its reason."""
    for statement in statements(translate(UseProxy=proxy)["Resources"]):
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action, statement
        assert statement.get("Resource") != "*", statement
    for line in TEMPLATE.read_text(encoding="utf-8").splitlines():
        if re.search(r"""Principal: ["']\*["']""", line):
            assert re.search(r'"\*" # \w+', line), line


def test_the_managed_policies_are_those_the_template_explains(translate: Translate) -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    for resource in translate()["Resources"].values():
        for arn in ensure_dict(resource.get("Properties")).get("ManagedPolicyArns", ()):
            written = arn["Fn::Sub"] if isinstance(arn, dict) else arn
            assert written.rpartition("/")[2] in text


def test_every_request_must_be_signed(translate: Translate) -> None:
    body = translate()["Resources"]["HttpApi"]["Properties"]["Body"]
    # Every operation has its integration, wherever SAM's Fn::If of a condition has put it.
    operations = [
        node
        for node in walk(body["paths"])
        if "x-amazon-apigateway-integration" in ensure_dict(node)
    ]
    assert operations
    assert all(operation["security"] == [{"AWS_IAM": []}] for operation in operations)


def test_queues_are_encrypted_and_hand_on_what_fails(resolve: Resolve) -> None:
    resources = resolve()
    queues = {n: r["Properties"] for n, r in resources.items() if r["Type"] == "AWS::SQS::Queue"}
    assert all(queue["SqsManagedSseEnabled"] for queue in queues.values())
    handed_on = {
        name: queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
        for name, queue in queues.items()
        if "RedrivePolicy" in queue
    }
    scheduled = {
        event["Properties"]["DeadLetterConfig"]["Arn"]["Fn::GetAtt"][0]
        for function in functions(resources).values()
        for event in function.get("Events", {}).values()
        if event["Type"].startswith("Schedule")
    }
    assert scheduled
    assert queues.keys() == handed_on.keys() | {*handed_on.values()} | scheduled


def test_only_cloudformations_answer_may_leave_for_s3(template: Document) -> None:
    [statement] = template["Resources"]["S3Endpoint"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Action"] == "s3:PutObject"
    assert "cloudformation-custom-resource-response-" in statement["Resource"]["Fn::Sub"][0]


def ensure_dict(node: Any) -> Document:
    return node if isinstance(node, dict) else {}


def test_by_ipv6_connections_leave_for_port_443_alone_and_none_come_in(
    template: Document, resolve: Resolve
) -> None:
    dual = template["Globals"]["Function"]["VpcConfig"]["Ipv6AllowedForDualStack"]
    assert dual == {"Fn::If": ["MakesIpv6", True, {"Ref": "AWS::NoValue"}]}
    resources = resolve(SecretsBy="ipv6")
    kinds = {resource["Type"] for resource in resources.values()}
    assert "AWS::EC2::EgressOnlyInternetGateway" in kinds
    assert not kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway"}
    endpoints = [r for r in resources.values() if r["Type"] == "AWS::EC2::VPCEndpoint"]
    assert [e["Properties"]["VpcEndpointType"] for e in endpoints] == ["Gateway"]
    routes = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::EC2::Route"]
    assert [route["DestinationIpv6CidrBlock"] for route in routes] == ["::/0"]
    out = [node for node in walk(resources) if "CidrIpv6" in ensure_dict(node)]
    assert {(rule["FromPort"], rule["ToPort"]) for rule in out} == {(443, 443)}


def test_a_cluster_is_kept_like_an_instance(resolve: Resolve) -> None:
    resources = resolve(DatabaseInstanceClass="aurora.serverless", ProtectDatabase="true")
    cluster = resources["DatabaseCluster"]
    assert cluster["DeletionPolicy"] == cluster["UpdateReplacePolicy"] == "Snapshot"
    properties = cluster["Properties"]
    assert properties["StorageEncrypted"] is properties["ManageMasterUserPassword"] is True
    assert properties["DeletionProtection"] == "true"
    group = resources[properties["DBClusterParameterGroupName"]["Ref"]]["Properties"]
    assert group["Parameters"]["require_secure_transport"] == "ON"
    instance = resources["ClusterInstance"]["Properties"]
    assert instance["PubliclyAccessible"] is False
    assert instance["DBInstanceClass"] == "db.serverless"
    assert "DatabaseInstance" not in resources
