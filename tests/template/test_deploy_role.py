"""The deploy workflow's role may make what the template has, and nothing beyond the stack."""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import cfnlint
import pytest
from cfnlint.api import ManualArgs, lint

from deploy.template import ROOT, read_template
from tests.template.conftest import Document, Translate

PATH = ROOT / "deploy" / "role.yaml"
ROLE = read_template(PATH)
SCHEMAS = Path(cfnlint.__file__).parent / "data" / "schemas"
FILES = json.loads((SCHEMAS / "providers" / "us-east-1.json").read_text(encoding="utf-8"))

# What a type's handler may ask for, and this template never makes it ask for.
NEVER_ASKED = {
    "apigateway:*agResource": "IAM knows it as POST and DELETE on /tags",
    "ec2:*Ipam*": "no pool of addresses is managed",
    "ec2:CreateVpcEncryptionControl": "not set",
    "ec2:ModifyVpcTenancy": "not set",
    "elasticfilesystem:*": "no function mounts a file system",
    "firehose:*": "no log group is a delivery to Firehose",
    "iam:DeleteRolePermissionsBoundary": "a boundary that may be removed is none",
    "kms:*": "keys are AWS's own, whose policies let their service use them",
    "s3files:*": "no function mounts a bucket",
    "secretsmanager:*Region*": "no secret is replicated",
    "secretsmanager:GetSecretValue": "CloudFormation makes the password and reads it nowhere",
    "vpc-lattice:*": "no endpoint of a service network",
    "vpce:AllowMultiRegion": "endpoints are of this region",
}


def statements() -> Iterator[Document]:
    for resource in ROLE["Resources"].values():
        yield from resource["Properties"].get("PolicyDocument", {}).get("Statement", ())


def actions() -> set[str]:
    found = set()
    for statement in statements():
        given = statement["Action"]
        found |= {given} if isinstance(given, str) else set(given)
    return found


def asked_by(kind: str) -> set[str]:
    """What CloudFormation's handler of this type may call, by its own schema."""
    schema = json.loads((SCHEMAS / "resources" / f"{FILES[kind]}.json").read_text(encoding="utf-8"))
    return {
        permission
        for operation in ("create", "read", "update", "delete")
        for permission in schema.get("handlers", {}).get(operation, {}).get("permissions", ())
    }


@pytest.mark.parametrize("all_of_it", ["false", "true"])
def test_it_may_do_what_each_resource_of_the_template_asks_for(
    translate: Translate, all_of_it: str
) -> None:
    allowed = {action.lower() for action in (*actions(), *NEVER_ASKED)}
    kinds = {
        r["Type"]
        for r in translate(UseProxy=all_of_it, ShiftTraffic=all_of_it)["Resources"].values()
    }
    for kind in kinds & FILES.keys():
        for permission in asked_by(kind):
            assert any(fnmatchcase(permission.lower(), a) for a in allowed), (kind, permission)


def test_every_action_belongs_to_the_stacks_or_says_why_it_cannot() -> None:
    lines = PATH.read_text(encoding="utf-8").splitlines()
    for line in lines:
        if 'Resource: "*"' in line:
            assert re.search(r'"\*" # \w+', line), line
    for statement in statements():
        if statement["Resource"] == "*":
            assert not [a for a in statement["Action"] if a.endswith(":*")], statement["Sid"]


def test_it_gives_rights_to_the_stacks_own_roles_alone_and_within_the_boundary() -> None:
    for statement in statements():
        given = statement["Action"]
        names = [given] if isinstance(given, str) else given
        if not any(name.startswith("iam:") and "List" not in name for name in names):
            continue
        assert "role/" in statement["Resource"]["Fn::Sub"], statement["Sid"]
        if "iam:PutRolePolicy" in names:
            assert statement["Condition"]["Fn::If"][0] == "HasBoundary"
    assert "iam:*" not in actions()
    assert "iam:DeleteRolePermissionsBoundary" not in actions()


def test_it_reads_no_secret() -> None:
    assert not any(fnmatchcase("secretsmanager:GetSecretValue", action) for action in actions())


@pytest.mark.parametrize(
    ("subject", "taken"),
    [
        ("repo:octo-org/shop:environment:prod", True),
        ("repo:octo-org@123456/shop@456789:environment:prod", True),  # since July 2026
        ("repo:octo-org/shop:*", False),
        ("repo:octo-org/*:environment:prod", False),
        ("repo:octo-org/shop:ref:refs/heads/main", False),
    ],
)
def test_one_repositorys_environment_takes_it_and_nobody_else(subject: str, taken: bool) -> None:
    pattern = ROLE["Parameters"]["Subject"]["AllowedPattern"]
    assert bool(re.search(pattern, subject)) is taken
    trust = ROLE["Resources"]["DeployRole"]["Properties"]["AssumeRolePolicyDocument"]
    [statement] = trust["Statement"]
    assert set(statement["Condition"]) == {"StringEquals"}


def test_cfn_lint_has_nothing_to_say() -> None:
    assert not lint(PATH.read_text(encoding="utf-8"), config=ManualArgs(regions=["us-east-1"]))
