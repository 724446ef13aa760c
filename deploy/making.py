"""What is asked before a database is made: from what snapshot, on what plan, under a free name."""

from botocore.exceptions import ClientError

from deploy.questions import Questions, RefusedError

# What an account on the free plan is allowed (FreeTierRestrictionError).
FREE_PLAN_RETENTION_DAYS = 1


def check_snapshot(asked: Questions) -> None:
    """A database is made from a snapshot once, when it is made."""
    wanted = asked.parameter("SnapshotIdentifier")
    has = asked.deployed.get("SnapshotIdentifier", "")
    if not asked.is_new and wanted != has:
        raise RefusedError(
            f"The stack {asked.stack} has its database, made from {has or 'nothing'}; a snapshot "
            "is for a new one: deploy it under another stack_name, as docs/restore.md says."
        )
    if wanted and asked.is_new:
        asked.say("Data", f"restored from the snapshot {wanted}")


def check_plan(asked: Questions) -> None:
    """The free plan refuses what costs more than its credits are meant for."""
    answer = asked.ask(
        "Plan",
        "freetier:GetAccountPlanState",
        lambda: asked.client("freetier").get_account_plan_state(),
    )
    if answer is None:
        return
    if answer["accountPlanType"] != "FREE":
        asked.say("Plan", "paid")
        return
    provisioned = asked.budget(asked.parameter("DatabaseInstanceClass")).provisioned
    if not provisioned.endswith((".micro", ".serverless")):  # of the latter nothing is known
        raise RefusedError(
            f"The account is on the free plan, where RDS makes no {provisioned}: choose a "
            "micro class, or upgrade the account's plan."
        )
    said = "free, which allows micro classes and one day of backups"
    if int(asked.parameter("BackupRetentionInDays")) > FREE_PLAN_RETENTION_DAYS:
        asked.parameters["BackupRetentionInDays"] = str(FREE_PLAN_RETENTION_DAYS)
        said += ": BackupRetentionInDays will be 1"
    asked.say("Plan", said)


def check_names_are_free(asked: Questions) -> None:
    """A new stack makes an instance and log groups of its own name."""

    def find_instance() -> bool:
        try:
            asked.client("rds").describe_db_instances(DBInstanceIdentifier=asked.stack)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "DBInstanceNotFound":
                return False
            raise
        return True

    if asked.ask("Names", "rds:DescribeDBInstances", find_instance):
        raise RefusedError(
            f"There is a database instance called {asked.stack} already, which this stack would "
            "be the second to make: choose another stack_name in samconfig.toml."
        )
    prefix = f"/aws/rds/instance/{asked.stack}/"
    answer = asked.ask(
        "Names",
        "logs:DescribeLogGroups",
        lambda: asked.client("logs").describe_log_groups(logGroupNamePrefix=prefix),
    )
    if answer and answer["logGroups"]:
        names = [group["logGroupName"] for group in answer["logGroups"]]
        removal = "; ".join(f"aws logs delete-log-group --log-group-name {n}" for n in names)
        raise RefusedError(
            f"An earlier database called {asked.stack} left its logs behind, and this stack "
            f"would make the same log groups: remove them (`{removal}`), or choose another "
            "stack_name in samconfig.toml."
        )
