"""Asks AWS whether a deployment would succeed, before half an hour has gone into finding out.

    python -m deploy.preflight --environment dev

Every question is optional: where the answer may not be read, the table says so and what is assumed.
A deployment that would fail is refused in one sentence. What it chose instead of the template's
defaults is written to build/preflight/<environment>.parameters, for
`sam deploy --parameter-overrides`.
"""

import argparse
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deploy.template import ROOT, Budget, read_budgets, read_template

BUILD = ROOT / "build" / "preflight"

# Lambda keeps this much of an account's concurrency for functions that reserve none.
MUST_STAY_UNRESERVED = 100
VPCS_PER_REGION = ("vpc", "L-F678F1CE")  # the code of the quota in Service Quotas
DEFAULT_VPCS_PER_REGION = 5
# Where the small t3 is not offered, its Graviton sibling of the same memory is.
SIBLINGS = {"db.t2.": "db.t4g.", "db.t3.": "db.t4g.", "db.t4g.": "db.t3."}
# States of a stack that CloudFormation does not update.
DEAD_STATES = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
# RDS allows 63 characters, and the log groups' names need the stack's to be in lower case.
LONGEST_STACK_NAME = 63

Answer = TypeVar("Answer")


class RefusedError(Exception):
    """The deployment would fail; the sentence says why and what to do."""


@dataclass(slots=True)
class Preflight:
    """One deployment's questions; `client` makes a boto3 client by service name."""

    client: Callable[[str], Any]
    region: str
    stack: str
    parameters: dict[str, str]  # what samconfig.toml overrides
    template: Mapping[str, Any]
    rows: list[tuple[str, str]] = field(default_factory=list)

    def run(self) -> dict[str, str]:
        """The parameters to deploy with.

        Raises:
            RefusedError: it would fail.
        """
        self._check_name()
        self._check_identity()
        existing = self._find_stack()
        self._check_prefix_list()
        self._choose_class()
        self._check_parameters()
        self._choose_reservation(existing)
        if existing is None:
            self._check_vpcs()
        return self.parameters

    def _say(self, question: str, answer: str) -> None:
        self.rows.append((question, answer))

    def _ask(self, question: str, permission: str, call: Callable[[], Answer]) -> Answer | None:
        """The answer, or None with a row that says why there is none."""
        try:
            return call()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if "AccessDenied" in code or "Unauthorized" in code:
                self._say(question, f"unknown, {permission} is not allowed to you")
            else:
                self._say(question, f"unknown, AWS answered {code}")
        except BotoCoreError as error:
            self._say(question, f"unknown, {error}")
        return None

    def _parameter(self, name: str) -> str:
        return self.parameters.get(name, str(self.template["Parameters"][name].get("Default", "")))

    def _budget(self, name: str) -> Budget:
        budgets = read_budgets(self.template)
        if name not in budgets:
            raise RefusedError(
                f"DatabaseInstanceClass is {name!r}; expected one of {', '.join(budgets)}, or a "
                "new line in template.yaml's mapping InstanceClasses with its connection budget."
            )
        return budgets[name]

    def _check_name(self) -> None:
        if self.stack != self.stack.lower() or len(self.stack) > LONGEST_STACK_NAME:
            raise RefusedError(
                f"The stack is called {self.stack!r}; the database takes its name, so it must be "
                f"in lower case and at most {LONGEST_STACK_NAME} characters: change stack_name in "
                "samconfig.toml."
            )

    def _check_identity(self) -> None:
        try:
            identity = self.client("sts").get_caller_identity()
        except (BotoCoreError, ClientError) as error:
            raise RefusedError(
                f"AWS does not know who you are ({error}); sign in first, for example with "
                "`aws sso login` or `aws configure`."
            ) from error
        self._say("Who", f"{identity['Arn']}, account {identity['Account']}")
        self._say("Where", self.region)

    def _find_stack(self) -> dict[str, Any] | None:
        """The stack as it is deployed, or None."""

        def describe() -> dict[str, Any] | None:
            try:
                answer = self.client("cloudformation").describe_stacks(StackName=self.stack)
            except ClientError as error:
                if "does not exist" in str(error):
                    return None
                raise
            found: dict[str, Any] = answer["Stacks"][0]
            return found

        before = len(self.rows)
        stack = self._ask("Stack", "cloudformation:DescribeStacks", describe)
        if stack is None:
            if len(self.rows) == before:
                self._say("Stack", f"{self.stack}, new")
            return None
        status = stack["StackStatus"]
        if status in DEAD_STATES:
            raise RefusedError(
                f"The stack {self.stack} is in state {status}, which CloudFormation cannot update: "
                f"delete it first (`sam delete --stack-name {self.stack}`)."
            )
        self._say("Stack", f"{self.stack}, {status}")
        return stack

    def _check_prefix_list(self) -> None:
        known = self.template["Mappings"]["S3PrefixLists"].get(self.region, {}).get("Id")
        name = f"com.amazonaws.{self.region}.s3"
        answer = self._ask(
            "S3 prefix list",
            "ec2:DescribeManagedPrefixLists",
            lambda: self.client("ec2").describe_managed_prefix_lists(
                Filters=[{"Name": "prefix-list-name", "Values": [name]}]
            ),
        )
        actual = answer["PrefixLists"][0]["PrefixListId"] if answer else known
        if known is None or actual != known:
            raise RefusedError(
                f"template.yaml has {known or 'no prefix list'} for S3 in {self.region}, which is "
                f"{actual or 'unknown here'}: put `{self.region}: {{ Id: {actual or 'pl-…'} }}` in "
                "its mapping S3PrefixLists, or Migrate could not answer CloudFormation."
            )
        if answer:
            self._say("S3 prefix list", f"{actual}, as in the template")

    def _choose_class(self) -> None:
        wanted = self._parameter("DatabaseInstanceClass")
        candidates = [wanted]
        for prefix, other in SIBLINGS.items():
            if wanted.startswith(prefix):
                candidates.append(wanted.replace(prefix, other))
        version = self._default_version()
        for name in candidates:
            provisioned = self._budget(name).provisioned
            offered = self._orderable(provisioned, version)
            if offered is None:
                return
            if offered:
                standing = "" if name == provisioned else f", which {name} stands for"
                self._say("Database", f"{provisioned}{standing}, MySQL {version}: can be ordered")
                if name != wanted:
                    self.parameters["DatabaseInstanceClass"] = name
                return
        raise RefusedError(
            f"RDS offers no {wanted} with MySQL {version} in the first two availability zones of "
            f"{self.region}: choose another DatabaseInstanceClass or another region."
        )

    def _default_version(self) -> str:
        """The minor version RDS takes for the template's."""
        major = str(self.template["Resources"]["DatabaseInstance"]["Properties"]["EngineVersion"])
        answer = self._ask(
            "MySQL",
            "rds:DescribeDBEngineVersions",
            lambda: self.client("rds").describe_db_engine_versions(
                Engine="mysql", EngineVersion=major, DefaultOnly=True
            ),
        )
        if answer is None:
            return major
        versions: list[dict[str, str]] = answer["DBEngineVersions"]
        if not versions:
            raise RefusedError(
                f"RDS offers no MySQL {major} in {self.region}: set EngineVersion and Family in "
                "template.yaml to one that `aws rds describe-db-engine-versions` lists."
            )
        return versions[0]["EngineVersion"]

    def _orderable(self, instance_class: str, version: str) -> bool | None:
        """Whether RDS makes it in a zone of our subnets; None if it may not be asked."""
        zones = self._ask(
            "Zones",
            "ec2:DescribeAvailabilityZones",
            lambda: self.client("ec2").describe_availability_zones(
                Filters=[{"Name": "zone-type", "Values": ["availability-zone"]}]
            ),
        )
        options = self._ask(
            "Database",
            "rds:DescribeOrderableDBInstanceOptions",
            lambda: self.client("rds").describe_orderable_db_instance_options(
                Engine="mysql", EngineVersion=version, DBInstanceClass=instance_class, Vpc=True
            ),
        )
        if options is None:
            return None
        offered = {
            zone["Name"]
            for option in options["OrderableDBInstanceOptions"]
            for zone in option["AvailabilityZones"]
        }
        if zones is None:
            return bool(offered)
        ours = sorted(zone["ZoneName"] for zone in zones["AvailabilityZones"])[:2]
        return bool(offered.intersection(ours))

    def _check_parameters(self) -> None:
        group = self.template["Resources"]["DatabaseParameters"]["Properties"]
        family = group["Family"]

        def describe() -> set[str]:
            pages = self.client("rds").get_paginator("describe_engine_default_parameters")
            return {
                parameter["ParameterName"]
                for page in pages.paginate(DBParameterGroupFamily=family)
                for parameter in page["EngineDefaults"]["Parameters"]
                if parameter.get("IsModifiable")
            }

        changeable = self._ask("Parameters", "rds:DescribeEngineDefaultParameters", describe)
        if changeable is None:
            return
        if refused := sorted(set(group["Parameters"]) - changeable):
            raise RefusedError(
                f"RDS lets nobody change {', '.join(refused)} in {family}: remove that from "
                "DatabaseParameters in template.yaml."
            )
        self._say("Parameters", f"all {len(group['Parameters'])} may be set in {family}")

    def _choose_reservation(self, existing: Mapping[str, Any] | None) -> None:
        answer = self._ask(
            "Concurrency",
            "lambda:GetAccountSettings",
            lambda: self.client("lambda").get_account_settings(),
        )
        if answer is None:
            return
        proxy = self._parameter("UseProxy") == "true"
        needed = self._budget(self._parameter("DatabaseInstanceClass")).reserved(proxy=proxy)
        free = answer["AccountLimit"]["UnreservedConcurrentExecutions"] - MUST_STAY_UNRESERVED
        free += self._already_reserved(existing)
        enough = free >= needed
        quota = answer["AccountLimit"]["ConcurrentExecutions"]
        said = f"{needed} of the account's {quota} will be reserved"
        if not enough:
            said = (
                f"nothing is reserved: {needed} are needed and {max(free, 0)} of {quota} may be. "
                "Ask Service Quotas for more (L-B99A9384); until then the database user's limit "
                "alone protects the database"
            )
        self._say("Concurrency", said)
        if not enough:
            self.parameters["ReserveConcurrency"] = "false"

    def _already_reserved(self, existing: Mapping[str, Any] | None) -> int:
        """What the deployed stack gives back when it is updated."""
        if existing is None:
            return 0
        given = {p["ParameterKey"]: p["ParameterValue"] for p in existing.get("Parameters", ())}
        name = given.get("DatabaseInstanceClass", "")
        if given.get("ReserveConcurrency") != "true" or name not in read_budgets(self.template):
            return 0
        return self._budget(name).reserved(proxy=given.get("UseProxy") == "true")

    def _check_vpcs(self) -> None:
        answer = self._ask(
            "VPCs", "ec2:DescribeVpcs", lambda: self.client("ec2").describe_vpcs(MaxResults=1000)
        )
        if answer is None:
            return
        service, code = VPCS_PER_REGION
        quota = self._ask(
            "VPC quota",
            "servicequotas:GetServiceQuota",
            lambda: self.client("service-quotas").get_service_quota(
                ServiceCode=service, QuotaCode=code
            ),
        )
        most = int(quota["Quota"]["Value"]) if quota else DEFAULT_VPCS_PER_REGION
        used = len(answer["Vpcs"])
        if used >= most:
            raise RefusedError(
                f"All {most} VPCs that {self.region} allows this account are taken: remove one, or "
                f"ask Service Quotas for more ({code})."
            )
        self._say("VPCs", f"{used} of {most} taken")


def read_environment(path: Path, environment: str) -> tuple[str, dict[str, str]]:
    """Stack name and parameter overrides of one section of samconfig.toml."""
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    deployed = [n for n, section in config.items() if n != "version" and "deploy" in section]
    if environment not in deployed:
        raise RefusedError(
            f"samconfig.toml deploys no {environment!r}; expected one of {', '.join(deployed)}."
        )
    section = config[environment]
    overrides = section["deploy"]["parameters"].get("parameter_overrides", "")
    pairs = (pair.partition("=") for pair in overrides.split())
    stack = section["global"]["parameters"]["stack_name"]
    return stack, {name: value for name, _, value in pairs}


def connect(profile: str | None, region: str | None) -> tuple[Callable[[str], Any], str]:
    """What makes clients, and the region they speak to."""
    try:
        session = boto3.Session(region_name=region, profile_name=profile)
    except BotoCoreError as error:
        raise RefusedError(f"{error}.") from error
    if not session.region_name:
        raise RefusedError("No region is set: set AWS_DEFAULT_REGION or pass --region.")
    # Impatient: each question is asked twice at most, and a deaf network fails in seconds.
    config = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 2})

    def client(service: str) -> Any:
        return session.client(service, config=config)  # type: ignore[call-overload]

    return client, session.region_name


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write the parameters; 1 if the deployment is refused."""
    parser = argparse.ArgumentParser(prog="python -m deploy.preflight", description=__doc__)
    parser.add_argument("--environment", default="default", help="a section of samconfig.toml")
    parser.add_argument("--region", help="default: what AWS_DEFAULT_REGION or the profile says")
    parser.add_argument("--profile", help="a profile of ~/.aws/config")
    given = parser.parse_args(arguments)
    rows: list[tuple[str, str]] = []
    try:
        stack, parameters = read_environment(ROOT / "samconfig.toml", given.environment)
        client, region = connect(given.profile, given.region)
        chosen = Preflight(client, region, stack, parameters, read_template(), rows).run()
    except RefusedError as error:
        print_table(rows)
        print(f"Not deployed. {error}", file=sys.stderr)
        return 1
    print_table(rows)
    text = " ".join(f"{name}={value}" for name, value in chosen.items())
    target = BUILD / f"{given.environment}.parameters"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n", encoding="utf-8")
    print(f"\nsam deploy --config-env {given.environment} --parameter-overrides {text}")
    return 0


def print_table(rows: list[tuple[str, str]]) -> None:
    """One question a line."""
    width = max((len(question) for question, _ in rows), default=0)
    for question, answer in rows:
        print(f"{question:<{width}}  {answer}")


if __name__ == "__main__":
    sys.exit(main())
