"""What is asked about the account, the region and the stack as it is now."""

import re
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deploy.questions import Questions, RefusedError
from deploy.template import read_budgets

# Lambda keeps this much of an account's concurrency for functions that reserve none.
MUST_STAY_UNRESERVED = 100
VPCS_PER_REGION = ("vpc", "L-F678F1CE")  # the code of the quota in Service Quotas
DEFAULT_VPCS_PER_REGION = 5
# States of a stack that CloudFormation does not update.
DEAD_STATES = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
# RDS's pattern for the name of an instance, which is the stack's; in lower case, because RDS writes
# it so, and the log groups carry it.
INSTANCE_NAME = re.compile(r"[a-z](-?[a-z0-9]){0,62}")


def check_name(asked: Questions) -> None:
    """The database and much else takes the stack's name."""
    if not INSTANCE_NAME.fullmatch(asked.stack):
        raise RefusedError(
            f"The stack is called {asked.stack!r}; the database takes its name, so it must be a "
            "lower-case letter and then lower-case letters, digits and single hyphens, 63 "
            "characters at most and no hyphen at the end: change stack_name in samconfig.toml."
        )


def check_identity(asked: Questions) -> None:
    """Who asks; everything else is for somebody that AWS knows."""
    try:
        identity = asked.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise RefusedError(
            f"AWS does not know who you are ({error}); sign in first, for example with "
            "`aws sso login` or `aws configure`."
        ) from error
    asked.say("Who", f"{identity['Arn']}, account {identity['Account']}")
    asked.say("Where", asked.region)


def find_stack(asked: Questions) -> dict[str, Any] | None:
    """The stack as it is deployed, or None."""

    def describe() -> dict[str, Any] | None:
        try:
            answer = asked.client("cloudformation").describe_stacks(StackName=asked.stack)
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        found: dict[str, Any] = answer["Stacks"][0]
        return found

    before = len(asked.rows)
    stack = asked.ask("Stack", "cloudformation:DescribeStacks", describe)
    if stack is None:
        if len(asked.rows) == before:
            asked.say("Stack", f"{asked.stack}, new")
        return None
    status = stack["StackStatus"]
    refuse_state(asked, status)
    asked.say("Stack", f"{asked.stack}, {status}")
    if status == "REVIEW_IN_PROGRESS":  # a change set that nobody executed: nothing is there
        return None
    asked.deployed.update(
        (p["ParameterKey"], p["ParameterValue"]) for p in stack.get("Parameters", ())
    )
    asked.outputs.update((o["OutputKey"], o["OutputValue"]) for o in stack.get("Outputs", ()))
    return stack


def refuse_state(asked: Questions, status: str) -> None:
    """A state in which CloudFormation takes no update is refused with the way out of it."""
    if status in DEAD_STATES:
        raise RefusedError(
            f"The stack {asked.stack} is in state {status}, which CloudFormation cannot update: "
            f"delete it first (`sam delete --stack-name {asked.stack}`). If its database is "
            "protected, that needs `aws rds modify-db-instance --db-instance-identifier "
            f"{asked.stack} --no-deletion-protection --apply-immediately` before."
        )
    if status == "UPDATE_ROLLBACK_FAILED":
        raise RefusedError(
            f"The stack {asked.stack} could not go back to what it was (UPDATE_ROLLBACK_FAILED):"
            " remove the cause that its events name, then `aws cloudformation "
            f"continue-update-rollback --stack-name {asked.stack}`, then run this again."
        )
    if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        raise RefusedError(
            f"Something else is at work on the stack {asked.stack} ({status}): wait until it "
            "has ended, then run this again."
        )


def check_shape(asked: Questions) -> None:
    """Where the database is; a stack never parts with the one that it made."""
    host = asked.parameter("DatabaseHost")
    owns = asked.outputs.get("DatabaseHost") if not asked.deployed.get("DatabaseHost") else None
    if host and owns:
        raise RefusedError(
            f"The stack {asked.stack} made a database of its own ({owns}) and would remove it, "
            f"since DatabaseHost is now {host}: leave DatabaseHost out, or take another stack_name."
        )
    if host and not asked.makes_functions:
        raise RefusedError(
            "DataOnly makes a database and DatabaseHost says that there is one: leave one of them "
            "out."
        )
    needed = ["SubnetIds", "FunctionSecurityGroupId", "MasterSecretArn"]
    if asked.parameter("UseProxy") == "true":
        needed += ["DatabaseInstanceIdentifier", "DatabaseSecurityGroupId", "VpcId"]
    if host and (missing := [name for name in needed if not asked.parameter(name)]):
        raise RefusedError(f"With DatabaseHost, {', '.join(missing)} must be given too.")
    if host:
        asked.say("Data", f"a database that is there, {host}")
    elif not asked.makes_functions:
        asked.say("Data", "a network and a database alone")


def choose_reservation(asked: Questions) -> None:
    """Whether the account can spare what the budget reserves."""
    if asked.parameters.get("ReserveConcurrency") == "false":
        asked.say("Concurrency", "nothing is reserved, as samconfig.toml says")
        return
    answer = asked.ask(
        "Concurrency",
        "lambda:GetAccountSettings",
        lambda: asked.client("lambda").get_account_settings(),
    )
    if answer is None:
        return
    proxy = asked.parameter("UseProxy") == "true"
    needed = asked.budget(asked.parameter("DatabaseInstanceClass")).reserved(proxy=proxy)
    free = answer["AccountLimit"]["UnreservedConcurrentExecutions"] - MUST_STAY_UNRESERVED
    free += already_reserved(asked)
    enough = free >= needed
    quota = answer["AccountLimit"]["ConcurrentExecutions"]
    said = f"{needed} of the account's {quota} will be reserved"
    if not enough:
        said = (
            f"nothing is reserved: {needed} are needed and {max(free, 0)} of {quota} may be. "
            "Ask Service Quotas for more (L-B99A9384); until then the database user's limit "
            "alone protects the database"
        )
    asked.say("Concurrency", said)
    # Said each time: a parameter that is not named keeps the value that the stack has.
    asked.parameters["ReserveConcurrency"] = "true" if enough else "false"


def already_reserved(asked: Questions) -> int:
    """What the deployed stack gives back when it is updated."""
    name = asked.deployed.get("DatabaseInstanceClass", "")
    reserves = asked.deployed.get("ReserveConcurrency") == "true"
    if not reserves or name not in read_budgets(asked.template):
        return 0
    return asked.budget(name).reserved(proxy=asked.deployed.get("UseProxy") == "true")


def check_vpcs(asked: Questions) -> None:
    """One more VPC is allowed."""
    answer = asked.ask(
        "VPCs", "ec2:DescribeVpcs", lambda: asked.client("ec2").describe_vpcs(MaxResults=1000)
    )
    if answer is None:
        return
    service, code = VPCS_PER_REGION
    quota = asked.ask(
        "VPC quota",
        "servicequotas:GetServiceQuota",
        lambda: asked.client("service-quotas").get_service_quota(
            ServiceCode=service, QuotaCode=code
        ),
    )
    most = int(quota["Quota"]["Value"]) if quota else DEFAULT_VPCS_PER_REGION
    used = len(answer["Vpcs"])
    if used >= most:
        raise RefusedError(
            f"All {most} VPCs that {asked.region} allows this account are taken: remove one, or "
            f"ask Service Quotas for more ({code})."
        )
    asked.say("VPCs", f"{used} of {most} taken")
