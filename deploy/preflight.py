"""Asks AWS whether a deployment would succeed, before half an hour has gone into finding out.

    python -m deploy.preflight --environment dev

Every question is optional: where the answer may not be read, the table says so and what is assumed.
A deployment that would fail is refused in one sentence. What it chose is written to
build/preflight/<environment>.yaml, for `sam deploy --parameter-overrides file://…`.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deploy.settings import SettingsError, read_environment
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
# RDS's pattern for the name of an instance, which is the stack's; in lower case, because RDS writes
# it so, and the log groups carry it.
INSTANCE_NAME = re.compile(r"[a-z](-?[a-z0-9]){0,62}")
# What an account on the free plan is allowed (FreeTierRestrictionError).
FREE_PLAN_RETENTION_DAYS = 1

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
    deployed: dict[str, str] = field(default_factory=dict)  # what the stack has now

    def run(self) -> dict[str, str]:
        """The parameters to deploy with.

        Raises:
            RefusedError: it would fail.
        """
        self._check_name()
        self._check_identity()
        new = self._find_stack() is None
        self._check_prefix_list()
        self._choose_class()
        self._check_plan()
        self._check_parameters()
        self._choose_reservation()
        if new:
            self._check_names_are_free()
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
        """What the stack will have: `sam deploy` keeps what it has and nobody overrides."""
        default = str(self.template["Parameters"][name].get("Default", ""))
        return self.parameters.get(name, self.deployed.get(name, default))

    def _budget(self, name: str) -> Budget:
        budgets = read_budgets(self.template)
        if name not in budgets:
            raise RefusedError(
                f"DatabaseInstanceClass is {name!r}; expected one of {', '.join(budgets)}, or a "
                "new line in template.yaml's mapping InstanceClasses with its connection budget."
            )
        return budgets[name]

    def _check_name(self) -> None:
        if not INSTANCE_NAME.fullmatch(self.stack):
            raise RefusedError(
                f"The stack is called {self.stack!r}; the database takes its name, so it must be a "
                "lower-case letter and then lower-case letters, digits and single hyphens, 63 "
                "characters at most and no hyphen at the end: change stack_name in samconfig.toml."
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
        self._refuse_state(status)
        self._say("Stack", f"{self.stack}, {status}")
        if status == "REVIEW_IN_PROGRESS":  # a change set that nobody executed: nothing is there
            return None
        self.deployed.update(
            (p["ParameterKey"], p["ParameterValue"]) for p in stack.get("Parameters", ())
        )
        return stack

    def _refuse_state(self, status: str) -> None:
        if status in DEAD_STATES:
            raise RefusedError(
                f"The stack {self.stack} is in state {status}, which CloudFormation cannot update: "
                f"delete it first (`sam delete --stack-name {self.stack}`). If its database is "
                "protected, that needs `aws rds modify-db-instance --db-instance-identifier "
                f"{self.stack} --no-deletion-protection --apply-immediately` before."
            )
        if status == "UPDATE_ROLLBACK_FAILED":
            raise RefusedError(
                f"The stack {self.stack} could not go back to what it was (UPDATE_ROLLBACK_FAILED):"
                " remove the cause that its events name, then `aws cloudformation "
                f"continue-update-rollback --stack-name {self.stack}`, then run this again."
            )
        if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
            raise RefusedError(
                f"Something else is at work on the stack {self.stack} ({status}): wait until it "
                "has ended, then run this again."
            )

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
            if wanted.startswith(prefix) and not self.deployed:
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

    def _check_plan(self) -> None:
        """The free plan refuses what costs more than its credits are meant for."""
        answer = self._ask(
            "Plan",
            "freetier:GetAccountPlanState",
            lambda: self.client("freetier").get_account_plan_state(),
        )
        if answer is None:
            return
        if answer["accountPlanType"] != "FREE":
            self._say("Plan", "paid")
            return
        provisioned = self._budget(self._parameter("DatabaseInstanceClass")).provisioned
        if not provisioned.endswith(".micro"):
            raise RefusedError(
                f"The account is on the free plan, where RDS makes no {provisioned}: choose a "
                "micro class, or upgrade the account's plan."
            )
        said = "free, which allows micro classes and one day of backups"
        if int(self._parameter("BackupRetentionInDays")) > FREE_PLAN_RETENTION_DAYS:
            self.parameters["BackupRetentionInDays"] = str(FREE_PLAN_RETENTION_DAYS)
            said += ": BackupRetentionInDays will be 1"
        self._say("Plan", said)

    def _choose_reservation(self) -> None:
        if self.parameters.get("ReserveConcurrency") == "false":
            self._say("Concurrency", "nothing is reserved, as samconfig.toml says")
            return
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
        free += self._already_reserved()
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
        # Said each time: a parameter that is not named keeps the value that the stack has.
        self.parameters["ReserveConcurrency"] = "true" if enough else "false"

    def _already_reserved(self) -> int:
        """What the deployed stack gives back when it is updated."""
        name = self.deployed.get("DatabaseInstanceClass", "")
        reserves = self.deployed.get("ReserveConcurrency") == "true"
        if not reserves or name not in read_budgets(self.template):
            return 0
        return self._budget(name).reserved(proxy=self.deployed.get("UseProxy") == "true")

    def _check_names_are_free(self) -> None:
        """A new stack makes an instance and log groups of its own name."""

        def find_instance() -> bool:
            try:
                self.client("rds").describe_db_instances(DBInstanceIdentifier=self.stack)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == "DBInstanceNotFound":
                    return False
                raise
            return True

        if self._ask("Names", "rds:DescribeDBInstances", find_instance):
            raise RefusedError(
                f"There is a database instance called {self.stack} already, which this stack would "
                "be the second to make: choose another stack_name in samconfig.toml."
            )
        prefix = f"/aws/rds/instance/{self.stack}/"
        answer = self._ask(
            "Names",
            "logs:DescribeLogGroups",
            lambda: self.client("logs").describe_log_groups(logGroupNamePrefix=prefix),
        )
        if answer and answer["logGroups"]:
            names = [group["logGroupName"] for group in answer["logGroups"]]
            removal = "; ".join(f"aws logs delete-log-group --log-group-name {n}" for n in names)
            raise RefusedError(
                f"An earlier database called {self.stack} left its logs behind, and this stack "
                f"would make the same log groups: remove them (`{removal}`), or choose another "
                "stack_name in samconfig.toml."
            )

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
        wanted = read_environment(ROOT, given.environment)
        client, region = connect(given.profile or wanted.profile, given.region or wanted.region)
        template = read_template()
        chosen = Preflight(
            client, region, wanted.stack, dict(wanted.parameters), template, rows
        ).run()
    except (RefusedError, SettingsError) as error:
        print_table(rows)
        print(f"Not deployed. {error}", file=sys.stderr)
        return 1
    print_table(rows)
    target = BUILD / f"{given.environment}.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
    said = " ".join(f"{name}={value!r}" for name, value in chosen.items())
    print(f"\nsam deploy --config-env {given.environment} --parameter-overrides {said}")
    return 0


def print_table(rows: list[tuple[str, str]]) -> None:
    """One question a line."""
    width = max((len(question) for question, _ in rows), default=0)
    for question, answer in rows:
        print(f"{question:<{width}}  {answer}")


if __name__ == "__main__":
    sys.exit(main())
