"""What is asked before a deployment, against answers in AWS's own shapes; nothing is sent."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from samcli.cli.types import CfnParameterOverridesType

from deploy import artifacts, preflight
from deploy.preflight import Preflight
from deploy.questions import RefusedError
from deploy.settings import SettingsError, read_environment
from deploy.template import ROOT, read_budgets, read_template
from tests.template.conftest import Document

IDENTITY = {
    "UserId": "AIDACKCEVSQ6C2EXAMPLE",
    "Account": "123456789012",
    "Arn": "arn:aws:iam::123456789012:user/someone",
}
VERSION = {
    "DBEngineVersions": [
        {
            "Engine": "mysql",
            "EngineVersion": "8.4.10",
            "DBParameterGroupFamily": "mysql8.4",
            "DBEngineDescription": "MySQL Community Edition",
            "Status": "available",
        }
    ]
}
ZONES = {
    "AvailabilityZones": [
        {"ZoneName": f"us-east-1{letter}", "ZoneId": f"use1-az{n}", "State": "available"}
        for n, letter in enumerate("abc", 1)
    ]
}
PARAMETERS = {
    "EngineDefaults": {
        "DBParameterGroupFamily": "mysql8.4",
        "Parameters": [
            {"ParameterName": name, "ApplyType": "dynamic", "IsModifiable": True}
            for name in read_template()["Resources"]["DatabaseParameters"]["Properties"][
                "Parameters"
            ]
        ],
    }
}
VPCS = {"Vpcs": [{"VpcId": "vpc-0a1b2c3d", "CidrBlock": "172.31.0.0/16", "IsDefault": True}]}
SERVICES = (
    "sts",
    "cloudformation",
    "ec2",
    "rds",
    "lambda",
    "service-quotas",
    "freetier",
    "logs",
)
# No new network, no new names: not asked.
UPDATE: dict[str, Any] = {
    "describe_vpc_endpoint_services": [],
    "describe_vpcs": [],
    "get_service_quota": [],
    "describe_db_instances": [],
    "describe_log_groups": [],
}
# What is asked about a database and its network, and about functions.
NETWORK = (
    "describe_vpc_endpoint_services",
    "describe_db_engine_versions",
    "describe_availability_zones",
    "describe_orderable_db_instance_options",
    "get_account_plan_state",
    "describe_engine_default_parameters",
    "get_account_settings",
    "describe_db_instances",
    "describe_log_groups",
    "describe_vpcs",
    "get_service_quota",
)
BUDGETS = read_budgets(read_template())
RESERVED = BUDGETS["db.t3.micro"].reserved(proxy=False)
NO_STACK = ("ValidationError", "Stack with id single-connection-dev does not exist")


def options(name: str, *letters: str) -> Document:
    return {
        "OrderableDBInstanceOptions": [
            {
                "Engine": "mysql",
                "EngineVersion": "8.4.10",
                "DBInstanceClass": name,
                "StorageType": "gp3",
                "AvailabilityZones": [{"Name": f"us-east-1{letter}"} for letter in letters],
            }
        ]
        if letters
        else []
    }


def settings(quota: int, unreserved: int) -> Document:
    return {
        "AccountLimit": {
            "ConcurrentExecutions": quota,
            "UnreservedConcurrentExecutions": unreserved,
            "TotalCodeSize": 80530636800,
        },
        "AccountUsage": {"TotalCodeSize": 0, "FunctionCount": 0},
    }


def plan(kind: str) -> Document:
    return {"accountId": "123456789012", "accountPlanType": kind, "accountPlanStatus": "ACTIVE"}


def stack(status: str, **parameters: str) -> Document:
    return {
        "Stacks": [
            {
                "StackName": "single-connection-dev",
                "CreationTime": "2026-11-01T00:00:00Z",
                "StackStatus": status,
                "Parameters": [
                    {"ParameterKey": key, "ParameterValue": value}
                    for key, value in parameters.items()
                ],
            }
        ]
    }


class Cloud:
    """AWS, as far as each answer was told beforehand; an unexpected question fails the test."""

    def __init__(self, clients: dict[str, Any]) -> None:
        every = {**clients, **make_clients(set(SERVICES) - clients.keys())}
        self.client = every.__getitem__
        self.stubs = {name: Stubber(client) for name, client in every.items()}

    def answers(self, service: str, operation: str, answer: Any) -> None:
        if isinstance(answer, tuple):
            code, message = answer
            self.stubs[service].add_client_error(operation, code, message)
        else:
            self.stubs[service].add_response(operation, answer)

    def willing(self, **instead: Any) -> "Cloud":
        """All that a deployment of the defaults needs, but for what is given `instead`."""
        told: dict[tuple[str, str], Any] = {
            ("sts", "get_caller_identity"): IDENTITY,
            ("cloudformation", "describe_stacks"): NO_STACK,
            ("ec2", "describe_vpc_endpoint_services"): {"ServiceNames": []},
            ("rds", "describe_db_engine_versions"): VERSION,
            ("ec2", "describe_availability_zones"): ZONES,
            ("rds", "describe_orderable_db_instance_options"): options("db.t3.micro", "a", "b"),
            ("freetier", "get_account_plan_state"): plan("PAID"),
            ("rds", "describe_engine_default_parameters"): PARAMETERS,
            ("lambda", "get_account_settings"): settings(1000, 1000),
            ("rds", "describe_db_instances"): ("DBInstanceNotFound", "not found"),
            ("logs", "describe_log_groups"): {"logGroups": []},
            ("ec2", "describe_vpcs"): VPCS,
            ("service-quotas", "get_service_quota"): {"Quota": {"Value": 5.0}},
        }
        for (service, operation), answer in told.items():
            for given in instead.get(operation, [answer]):
                self.answers(service, operation, given)
        return self


def make_clients(names: set[str]) -> dict[str, Any]:
    session: Any = boto3.Session("AKIAIOSFODNN7EXAMPLE", "x", region_name="us-east-1")
    return {name: session.client(name) for name in sorted(names)}


@pytest.fixture(scope="module")
def clients() -> dict[str, Any]:
    """Making clients takes half a second, so they are made once."""
    return make_clients(set(SERVICES))


@pytest.fixture
def cloud(clients: dict[str, Any]) -> Iterator[Cloud]:
    cloud = Cloud(clients)
    with ExitStack() as stack:
        for stub in cloud.stubs.values():
            stack.enter_context(stub)
        yield cloud


def ask(cloud: Cloud, template: Document, **parameters: str) -> Preflight:
    return Preflight(cloud.client, "us-east-1", "single-connection-dev", parameters, template)


def test_a_deployment_of_the_defaults_goes_ahead(cloud: Cloud, template: Document) -> None:
    asked = ask(cloud.willing(), template, DatabaseInstanceClass="db.t2.micro")
    assert asked.run() == {"DatabaseInstanceClass": "db.t2.micro", "ReserveConcurrency": "true"}
    assert dict(asked.rows) == {
        "Who": "arn:aws:iam::123456789012:user/someone, account 123456789012",
        "Where": "us-east-1",
        "Stack": "single-connection-dev, new",
        "Database": "db.t3.micro, which db.t2.micro stands for, mysql 8.4.10: can be ordered",
        "Plan": "paid",
        "Parameters": "all 10 may be set in mysql8.4",
        "Concurrency": f"{RESERVED} of the account's 1000 will be reserved",
        "VPCs": "1 of 5 taken",
    }
    for stub in cloud.stubs.values():
        stub.assert_no_pending_responses()


def test_a_new_accounts_ten_invocations_reserve_nothing(cloud: Cloud, template: Document) -> None:
    asked = ask(cloud.willing(get_account_settings=[settings(10, 10)]), template)
    assert asked.run() == {"ReserveConcurrency": "false"}
    assert f"{RESERVED} are needed and 0 of 10 may be" in dict(asked.rows)["Concurrency"]


@pytest.mark.parametrize(
    ("unreserved", "reserves"), [(RESERVED + 100, True), (RESERVED + 99, False)]
)
def test_a_hundred_invocations_stay_unreserved(
    cloud: Cloud, template: Document, unreserved: int, reserves: bool
) -> None:
    cloud.willing(get_account_settings=[settings(1000, unreserved)])
    assert (ask(cloud, template).run()["ReserveConcurrency"] == "true") is reserves


def test_what_the_stack_itself_has_reserved_counts_as_free(
    cloud: Cloud, template: Document
) -> None:
    deployed = stack(
        "UPDATE_COMPLETE",
        DatabaseInstanceClass="db.t2.micro",
        ReserveConcurrency="true",
        UseProxy="false",
    )
    cloud.willing(
        describe_stacks=[deployed],
        get_account_settings=[settings(RESERVED + 100, 100)],
        **UPDATE,
    )
    assert ask(cloud, template).run() == {"ReserveConcurrency": "true"}


def test_a_reservation_comes_back_once_the_account_has_room(
    cloud: Cloud, template: Document
) -> None:
    """SAM keeps the value of a parameter that is not named, so it has to be named each time."""
    cloud.willing(describe_stacks=[stack("UPDATE_COMPLETE", ReserveConcurrency="false")], **UPDATE)
    assert ask(cloud, template).run() == {"ReserveConcurrency": "true"}


def test_a_reservation_that_samconfig_declines_is_not_made(
    cloud: Cloud, template: Document
) -> None:
    asked = ask(cloud.willing(get_account_settings=[]), template, ReserveConcurrency="false")
    assert asked.run() == {"ReserveConcurrency": "false"}
    assert dict(asked.rows)["Concurrency"] == "nothing is reserved, as samconfig.toml says"


def test_a_database_that_was_enlarged_is_counted_as_it_is_and_not_made_smaller(
    cloud: Cloud, template: Document
) -> None:
    cloud.willing(
        describe_stacks=[stack("UPDATE_COMPLETE", DatabaseInstanceClass="db.t3.small")],
        describe_orderable_db_instance_options=[options("db.t3.small", "a")],
        **UPDATE,
    )
    asked = ask(cloud, template)
    assert "DatabaseInstanceClass" not in asked.run()
    reserved = BUDGETS["db.t3.small"].reserved(proxy=False)
    assert dict(asked.rows)["Concurrency"] == f"{reserved} of the account's 1000 will be reserved"


def test_a_database_that_is_there_never_becomes_its_sibling(
    cloud: Cloud, template: Document
) -> None:
    cloud.willing(
        describe_stacks=[stack("UPDATE_COMPLETE", DatabaseInstanceClass="db.t3.micro")],
        describe_orderable_db_instance_options=[options("db.t3.micro")],
        describe_availability_zones=[],
        **UPDATE,
    )
    with pytest.raises(RefusedError, match=r"offers no db.t3.micro"):
        ask(cloud, template).run()


def test_the_free_plan_gets_the_one_day_of_backups_that_it_allows(
    cloud: Cloud, template: Document
) -> None:
    cloud.willing(get_account_plan_state=[plan("FREE")])
    asked = ask(cloud, template, BackupRetentionInDays="30")
    assert asked.run()["BackupRetentionInDays"] == "1"
    assert "BackupRetentionInDays will be 1" in dict(asked.rows)["Plan"]


def test_the_free_plan_makes_no_larger_database(cloud: Cloud, template: Document) -> None:
    cloud.willing(
        get_account_plan_state=[plan("FREE")],
        describe_orderable_db_instance_options=[options("db.t3.small", "a")],
    )
    with pytest.raises(RefusedError, match="where RDS makes no"):
        ask(cloud, template, DatabaseInstanceClass="db.t3.small").run()


def test_what_the_template_says_by_itself_is_allowed_on_the_free_plan(
    template: Document,
) -> None:
    assert template["Parameters"]["BackupRetentionInDays"]["Default"] == 1
    assert template["Parameters"]["DatabaseInstanceClass"]["Default"].endswith(".micro")


def test_a_proxys_larger_reservation_is_asked_for(cloud: Cloud, template: Document) -> None:
    cloud.willing(get_account_settings=[settings(250, 250)])
    chosen = ask(cloud, template, UseProxy="true").run()
    assert chosen == {"UseProxy": "true", "ReserveConcurrency": "false"}  # 250 are not enough


def test_where_t3_is_not_offered_t4g_is_taken(cloud: Cloud, template: Document) -> None:
    cloud.willing(
        describe_orderable_db_instance_options=[
            options("db.t3.micro"),
            options("db.t4g.micro", "a"),
        ],
    )
    assert ask(cloud, template).run()["DatabaseInstanceClass"] == "db.t4g.micro"


def test_a_new_stack_takes_the_zones_in_which_its_class_is_offered(
    cloud: Cloud, template: Document
) -> None:
    cloud.willing(describe_orderable_db_instance_options=[options("db.t3.micro", "c")])
    asked = ask(cloud, template)
    assert asked.run()["AvailabilityZones"] == "us-east-1c,us-east-1a"
    assert "not offered in us-east-1a or us-east-1b" in dict(asked.rows)["Zones"]


def test_a_class_that_the_chosen_zones_lack_is_refused(cloud: Cloud, template: Document) -> None:
    cloud.willing(
        describe_availability_zones=[ZONES],
        describe_orderable_db_instance_options=[
            options("db.t3.micro", "c"),
            options("db.t4g.micro"),
        ],
    )
    with pytest.raises(RefusedError, match=r"offers no db.t2.micro with mysql 8.4.10"):
        ask(cloud, template, AvailabilityZones="us-east-1a,us-east-1b").run()


def test_a_stack_never_parts_with_the_database_that_it_made(
    cloud: Cloud, template: Document
) -> None:
    deployed = stack("UPDATE_COMPLETE", DatabaseInstanceClass="db.t3.micro")
    deployed["Stacks"][0]["Outputs"] = [{"OutputKey": "DatabaseHost", "OutputValue": "its.own"}]
    cloud.willing(describe_stacks=[deployed])
    with pytest.raises(RefusedError, match=r"made a database of its own \(its.own\)"):
        ask(cloud, template, DatabaseHost="another").run()


def test_a_database_that_is_there_is_asked_nothing_about(cloud: Cloud, template: Document) -> None:
    cloud.willing(**{name: [] for name in NETWORK if name != "get_account_settings"})
    given = {"SubnetIds": "subnet-1", "FunctionSecurityGroupId": "sg-1", "MasterSecretArn": "arn:x"}
    asked = ask(cloud, template, DatabaseHost="db.example", **given)
    assert asked.run()["ReserveConcurrency"] == "true"
    assert dict(asked.rows)["Data"] == "a database that is there, db.example"


def test_what_a_database_that_is_there_needs_is_named_at_once(
    cloud: Cloud, template: Document
) -> None:
    cloud.willing()
    with pytest.raises(
        RefusedError, match="SubnetIds, FunctionSecurityGroupId, MasterSecretArn, DatabaseInst"
    ):
        ask(cloud, template, DatabaseHost="db.example", UseProxy="true").run()


def test_the_data_alone_reserves_nothing(cloud: Cloud, template: Document) -> None:
    cloud.willing(get_account_settings=[])
    assert ask(cloud, template, DataOnly="true").run() == {"DataOnly": "true"}


def test_the_rules_of_the_template_ask_for_what_the_preflight_asks_for(template: Document) -> None:
    asserted = " ".join(
        assertion["AssertDescription"]
        for rule in template["Rules"].values()
        for assertion in rule["Assertions"]
    )
    for name in (
        "SubnetIds",
        "FunctionSecurityGroupId",
        "MasterSecretArn",
        "DatabaseInstanceIdentifier",
        "DatabaseSecurityGroupId",
        "VpcId",
    ):
        assert name in asserted


def test_a_version_that_rds_withdrew_is_refused(cloud: Cloud, template: Document) -> None:
    cloud.willing(describe_db_engine_versions=[{"DBEngineVersions": []}])
    with pytest.raises(RefusedError, match=r"offers no mysql 8.4 in us-east-1"):
        ask(cloud, template).run()


def test_a_parameter_that_rds_keeps_to_itself_is_refused(cloud: Cloud, template: Document) -> None:
    parameters = template["Resources"]["DatabaseParameters"]["Properties"]["Parameters"]
    parameters["ssl_session_cache_mode"] = "1"
    with pytest.raises(RefusedError, match=r"change ssl_session_cache_mode in mysql8.4: remove"):
        ask(cloud.willing(), template).run()


def test_a_class_without_a_budget_is_refused(cloud: Cloud, template: Document) -> None:
    with pytest.raises(RefusedError, match=r"'db.r6g.large'; expected one of db.t2.micro, "):
        ask(cloud.willing(), template, DatabaseInstanceClass="db.r6g.large").run()


def test_the_last_vpc_is_refused(cloud: Cloud, template: Document) -> None:
    five = {"Vpcs": [{"VpcId": f"vpc-{n}"} for n in range(5)]}
    with pytest.raises(RefusedError, match="All 5 VPCs that us-east-1 allows"):
        ask(cloud.willing(describe_vpcs=[five]), template).run()


def test_a_stack_that_failed_to_be_made_is_refused(cloud: Cloud, template: Document) -> None:
    cloud.willing(describe_stacks=[stack("ROLLBACK_COMPLETE")])
    with pytest.raises(RefusedError, match=r"ROLLBACK_COMPLETE.*sam delete --stack-name"):
        ask(cloud, template).run()


def test_a_region_whose_roots_are_not_shipped_is_refused_with_where_they_are(
    cloud: Cloud, template: Document
) -> None:
    for where, url in (
        ("ap-southeast-7", "https://truststore.pki.rds.amazonaws.com/ap-southeast-7/"),
        ("us-gov-west-1", "https://truststore.pki.us-gov-west-1.rds.amazonaws.com/us-gov-west-1/"),
        ("cn-north-1", "https://rds-truststore.s3.cn-north-1.amazonaws.com.cn/cn-north-1/"),
    ):
        cloud.willing(**{name: [] for name in NETWORK})
        with pytest.raises(RefusedError, match=f"no RDS roots of {where}.*{url}"):
            Preflight(cloud.client, where, "single-connection-dev", {}, template).run()


def test_a_region_of_ones_own_authorities_is_not_asked_for_roots(
    cloud: Cloud, template: Document
) -> None:
    given = {"DatabaseCaFile": "/var/task/authorities.pem"}
    asked = Preflight(
        cloud.willing().client, "ap-southeast-7", "single-connection-dev", given, template
    )
    asked.run()


def test_a_region_without_the_endpoints_is_refused(cloud: Cloud, template: Document) -> None:
    cloud.willing(
        describe_vpc_endpoint_services=[("InvalidServiceName", "does not exist")],
    )
    with pytest.raises(RefusedError, match="bring a network and a database"):
        ask(cloud, template).run()


@pytest.mark.parametrize("name", ["Shop", "a--b", "x-", "-x", "1a", "a_b", "a" * 64, ""])
def test_a_name_that_rds_refuses_is_refused(cloud: Cloud, template: Document, name: str) -> None:
    with pytest.raises(RefusedError, match=f"'{name}'; the database takes its name"):
        Preflight(cloud.client, "us-east-1", name, {}, template).run()


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback --stack-name single-connection-dev"),
        ("DELETE_FAILED", "--no-deletion-protection --apply-immediately"),
        ("ROLLBACK_FAILED", "--no-deletion-protection --apply-immediately"),
        ("UPDATE_IN_PROGRESS", "wait until it has ended"),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "wait until it has ended"),
    ],
)
def test_a_stack_that_cannot_be_updated_is_refused_with_the_way_out(
    cloud: Cloud, template: Document, status: str, advice: str
) -> None:
    with pytest.raises(RefusedError, match=f"(?s){status}.*{advice}"):
        ask(cloud.willing(describe_stacks=[stack(status)]), template).run()


def test_a_change_set_that_nobody_executed_is_no_stack(cloud: Cloud, template: Document) -> None:
    ask(cloud.willing(describe_stacks=[stack("REVIEW_IN_PROGRESS")]), template).run()


def test_an_instance_of_the_stacks_name_is_refused(cloud: Cloud, template: Document) -> None:
    cloud.willing(
        describe_db_instances=[{"DBInstances": [{"DBInstanceIdentifier": "single-connection-dev"}]}]
    )
    with pytest.raises(RefusedError, match="a database instance called single-connection-dev"):
        ask(cloud, template).run()


def test_log_groups_that_an_earlier_database_left_are_refused(
    cloud: Cloud, template: Document
) -> None:
    left = "/aws/rds/instance/single-connection-dev/error"
    cloud.willing(describe_log_groups=[{"logGroups": [{"logGroupName": left}]}])
    with pytest.raises(RefusedError, match=f"delete-log-group --log-group-name {left}"):
        ask(cloud, template).run()


def test_someone_unknown_is_refused(cloud: Cloud, template: Document) -> None:
    cloud.willing(get_caller_identity=[("ExpiredToken", "The security token is expired")])
    with pytest.raises(RefusedError, match="aws sso login"):
        ask(cloud, template).run()


def test_what_may_not_be_asked_is_said_and_stops_nothing(cloud: Cloud, template: Document) -> None:
    denied = [("AccessDenied", "not authorized")]
    cloud.willing(
        describe_stacks=denied,
        describe_vpc_endpoint_services=[("UnauthorizedOperation", "not authorized")],
        describe_db_engine_versions=denied,
        describe_availability_zones=[],
        describe_orderable_db_instance_options=denied,
        describe_engine_default_parameters=denied,
        get_account_settings=[("AccessDeniedException", "not authorized")],
        get_account_plan_state=[("AccessDeniedException", "not authorized")],
        describe_db_instances=denied,
        describe_log_groups=[("AccessDeniedException", "not authorized")],
        describe_vpcs=denied,
        get_service_quota=[],
    )
    asked = ask(cloud, template)
    assert asked.run() == {}
    unknown = {question for question, answer in asked.rows if answer.startswith("unknown, ")}
    assert unknown == {
        "Stack",
        "Endpoints",
        "Version",
        "Database",
        "Parameters",
        "Plan",
        "Names",
        "Concurrency",
        "VPCs",
    }
    assert all("is not allowed to you" in answer for q, answer in asked.rows if q in unknown)


def test_an_unknown_quota_is_taken_for_the_usual_five(cloud: Cloud, template: Document) -> None:
    cloud.willing(get_service_quota=[("AccessDeniedException", "not authorized")])
    asked = ask(cloud, template)
    asked.run()
    assert dict(asked.rows)["VPCs"] == "1 of 5 taken"


def test_every_environment_of_samconfig_can_be_asked_about() -> None:
    prod = read_environment(ROOT, "prod")
    assert prod.stack == "single-connection-prod"
    assert prod.parameters["ProtectDatabase"] == "true"


@pytest.mark.parametrize(
    "written",
    [
        # What `sam deploy --guided` writes, what a person writes, and SAM's two newer forms.
        r'"DatabaseInstanceClass=\"db.t3.small\" AlarmEmail=\"\""',
        r'"DatabaseInstanceClass=db.t3.small AlarmEmail=\"\""',
        r'["DatabaseInstanceClass=db.t3.small", "AlarmEmail=\"\""]',
        '{DatabaseInstanceClass = "db.t3.small", AlarmEmail = ""}',
    ],
)
def test_a_samconfig_that_sam_wrote_itself_is_read_as_sam_reads_it(
    tmp_path: Path, written: str
) -> None:
    """It has the stack's name and the region in the section of deploy."""
    text = f"""version = 0.1
[default.deploy.parameters]
stack_name = "mine"
region = "eu-central-1"
confirm_changeset = true
parameter_overrides = {written}
image_repositories = []
"""
    (tmp_path / "samconfig.toml").write_text(text, encoding="utf-8")
    read = read_environment(tmp_path, "default")
    assert (read.stack, read.region) == ("mine", "eu-central-1")
    assert read.parameters == {"DatabaseInstanceClass": "db.t3.small", "AlarmEmail": ""}


def test_a_samconfig_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "samconfig.toml").write_text("version = 0.1\n[default", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"samconfig\.toml cannot be read: .*line 2"):
        read_environment(tmp_path, "default")


def test_no_section_makes_a_database_smaller_that_was_enlarged_by_hand() -> None:
    for environment in ("default", "prod"):
        assert "DatabaseInstanceClass" not in read_environment(ROOT, environment).parameters


def test_an_environment_that_samconfig_lacks_is_refused() -> None:
    for unknown in ("staging", "host", "version"):
        with pytest.raises(SettingsError, match=f"no '{unknown}'; expected one of default, prod"):
            read_environment(ROOT, unknown)


def test_the_command_writes_the_parameters_it_chose(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    cloud.willing(get_account_settings=[settings(10, 10)])
    monkeypatch.setattr(preflight, "connect", lambda *_: (cloud.client, "us-east-1"))
    monkeypatch.setattr(preflight, "BUILD", tmp_path)
    assert preflight.main([]) == 0
    # As SAM reads it on the command line of `make deploy`.
    read = CfnParameterOverridesType().convert((f"file://{tmp_path}/default.yaml",), None, None)
    assert read == {"ReserveConcurrency": "false"}
    assert "--parameter-overrides ReserveConcurrency='false'" in capsys.readouterr().out


def test_a_refused_command_fails_in_one_sentence(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.willing(describe_stacks=[stack("ROLLBACK_COMPLETE")])
    monkeypatch.setattr(preflight, "connect", lambda *_: (cloud.client, "us-east-1"))
    assert preflight.main([]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("Not deployed. The stack single-connection-dev is in state")
    assert said.err.count("\n") == 1
    assert "Who" in said.out


def test_sam_takes_a_file_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "BUILD", tmp_path)
    written = preflight.write_parameters("dev", {})
    assert CfnParameterOverridesType().convert((f"file://{written}",), None, None) == {}


def test_no_region_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(RefusedError, match="No region is set"):
        preflight.connect(None, None)


def test_what_was_built_for_another_processor_is_refused(
    cloud: Cloud, template: Document, tmp_path: Path
) -> None:
    module = tmp_path / "OrdersApi" / "pydantic_core" / "core.cpython-313-x86_64-linux-gnu.so"
    module.parent.mkdir(parents=True)
    module.touch()
    artifacts.check_artifacts(ask(cloud, template), tmp_path)
    with pytest.raises(RefusedError, match=r"make build PYTHON_VERSION=3.13 ARCHITECTURE=arm64"):
        artifacts.check_artifacts(ask(cloud, template, Architecture="arm64"), tmp_path)
    with pytest.raises(RefusedError, match=r"built for python3.13 on x86_64.*python3.14 on"):
        artifacts.check_artifacts(ask(cloud, template, Runtime="python3.14"), tmp_path)


def test_a_database_that_is_there_is_not_made_from_a_snapshot(
    cloud: Cloud, template: Document
) -> None:
    cloud.willing(describe_stacks=[stack("UPDATE_COMPLETE", SnapshotIdentifier="")])
    with pytest.raises(RefusedError, match="a snapshot is for a new one"):
        ask(cloud, template, SnapshotIdentifier="yesterday").run()


def test_a_database_that_sleeps_is_asked_about_as_aurora(cloud: Cloud, template: Document) -> None:
    version = {"DBEngineVersions": [{"EngineVersion": "8.0.mysql_aurora.3.10.1"}]}
    cloud.willing(
        describe_db_engine_versions=[version],
        describe_orderable_db_instance_options=[options("db.serverless", "a")],
    )
    asked = ask(cloud, template, DatabaseInstanceClass="aurora.serverless")
    asked.run()
    said = dict(asked.rows)
    assert "aurora-mysql 8.0.mysql_aurora.3.10.1: can be ordered" in said["Database"]
    assert said["Parameters"] == "all 3 may be set in aurora-mysql8.0"


@pytest.mark.parametrize(
    ("has", "wanted"),
    [("db.t3.micro", "aurora.serverless"), ("aurora.serverless", "db.t3.micro")],
)
def test_an_instance_does_not_become_aurora_nor_aurora_an_instance(
    cloud: Cloud, template: Document, has: str, wanted: str
) -> None:
    cloud.willing(describe_stacks=[stack("UPDATE_COMPLETE", DatabaseInstanceClass=has)])
    with pytest.raises(RefusedError, match=f"is {has} and would be removed for {wanted}"):
        ask(cloud, template, DatabaseInstanceClass=wanted).run()
