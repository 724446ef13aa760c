"""That it deploys: names, timeouts, migrations that run again, and words a stranger understands."""

import json
import re
import tomllib
from collections.abc import Iterator

import pytest

from deploy.settings import read_environment
from deploy.template import ROOT, TEMPLATE, read_template
from local.template import Values
from tests.template.conftest import (
    ASKED_FOR,
    FUNCTIONS,
    KEPT,
    Document,
    Resolve,
    Translate,
    functions,
)

HTTP_API_LIMIT = 30
# Names within a function and within a proxy.
OWN_NAMES = ("AWS::Lambda::Alias", "AWS::RDS::DBProxyTargetGroup")
VARIABLES = {
    "DATABASE_HOST",
    "DATABASE_PORT",
    "DATABASE_NAME",
    "DATABASE_SECRET_ARN",
    "DATABASE_USER",
    "DATABASE_PASSWORD",
    "DATABASE_CA_FILE",
}


def events(resources: Document, kind: str) -> Iterator[tuple[Document, Document]]:
    """Each function that such events call, with what is said of the event."""
    found = [
        (function, event["Properties"])
        for function in functions(resources).values()
        for event in function.get("Events", {}).values()
        if event["Type"] == kind
    ]
    if not found:
        pytest.skip(f"nothing is called by {kind} here: nothing to say")
    yield from found


def is_proxied(function: Document) -> bool:
    """Whether it takes the address that all functions share, the proxy's if there is one."""
    return "DATABASE_HOST" not in function.get("Environment", {}).get("Variables", {})


def ensure_list(node: str | list[str]) -> list[str]:
    return [node] if isinstance(node, str) else node


def migration(translated: Document) -> Document:
    properties: Document = translated["Resources"]["DatabaseMigration"]["Properties"]
    return properties


def test_each_folder_of_functions_is_a_function_and_each_function_has_one() -> None:
    folders = {f"{path.parent.relative_to(ROOT)}/" for path in ROOT.glob("functions/*/app.py")}
    assert sorted(FUNCTIONS.values()) == sorted(folders)
    assert FUNCTIONS.keys() >= KEPT | ASKED_FOR


def test_every_function_declares_what_sam_local_may_override(translate: Translate) -> None:
    resources = translate()["Resources"]
    for name in FUNCTIONS:
        declared = resources[name]["Properties"]["Environment"]["Variables"].keys()
        assert declared >= VARIABLES, name


def test_a_function_with_requirements_is_built_and_one_without_is_not(template: Document) -> None:
    for name, folder in FUNCTIONS.items():
        metadata = template["Resources"][name]["Metadata"]
        if (ROOT / folder / "requirements.txt").is_file():
            assert metadata["BuildMethod"] == "makefile", name
        else:
            assert metadata["SkipBuild"] is True, name


def test_wheels_are_downloaded_for_the_templates_python_and_processor(template: Document) -> None:
    runtime = template["Parameters"]["Runtime"]
    processor = template["Parameters"]["Architecture"]
    layer = template["Resources"]["SingleConnectionLayer"]["Properties"]
    assert layer["CompatibleArchitectures"] == processor["AllowedValues"]
    assert layer["CompatibleRuntimes"] == runtime["AllowedValues"]
    version = runtime["Default"].removeprefix("python")
    makefiles = [*ROOT.glob("functions/*/Makefile"), *ROOT.glob("layers/*/Makefile")]
    assert makefiles
    for makefile in makefiles:
        text = makefile.read_text(encoding="utf-8")
        assert f"PYTHON_VERSION ?= {version}\n" in text, makefile
        assert "--python-version $(PYTHON_VERSION) " in text, makefile
    functions_own = {path.read_text(encoding="utf-8") for path in ROOT.glob("functions/*/Makefile")}
    assert len(functions_own) <= 1, "the functions' Makefiles are copies of one"
    for text in functions_own:
        assert f"ARCHITECTURE ?= {processor['Default']}\n" in text
        for name in processor["AllowedValues"]:
            assert f"PROCESSOR_{name} := " in text


def test_the_layer_has_nothing_compiled_and_so_runs_on_both_processors() -> None:
    locked = ROOT / "layers" / "single_connection" / "requirements.txt"
    names = re.findall(r"^([\w-]+)==", locked.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(names) == {"aws-lambda-powertools", "jmespath", "pymysql", "typing-extensions"}


def test_a_changed_function_layer_or_setting_runs_the_migrations_again(
    template: Document, translate: Translate
) -> None:
    before = migration(translate(template))["MigrateVersion"]
    assert migration(translate(template))["MigrateVersion"] == before

    resources = template["Resources"]
    for change in (
        {"resource": "Migrate", "key": "CodeUri", "value": "changed"},
        {"resource": "SingleConnectionLayer", "key": "ContentUri", "value": "changed"},
        {"resource": "Migrate", "key": "Timeout", "value": 899},
    ):
        properties = resources[change["resource"]]["Properties"]
        original = properties[change["key"]]
        properties[change["key"]] = change["value"]
        assert migration(translate(template))["MigrateVersion"] != before, change
        properties[change["key"]] = original


def test_a_larger_class_runs_the_migrations_again(resolve: Resolve) -> None:
    """The application user's limit is in the grant, so it has to be granted anew."""
    small, micro = (
        resolve(DatabaseInstanceClass=name)["DatabaseMigration"]["Properties"]
        for name in ("db.t3.small", "db.t3.micro")
    )
    assert small["ApplicationMaxUserConnections"] != micro["ApplicationMaxUserConnections"]


def test_the_service_token_stays_the_same_for_ever(translate: Translate) -> None:
    """CloudFormation refuses one that changes, so it names the function and not its version."""
    assert migration(translate())["ServiceToken"] == {"Fn::GetAtt": ["Migrate", "Arn"]}


def test_migrations_wait_for_all_they_need_and_outlive_it_on_deletion(
    translate: Translate,
) -> None:
    """Everything that the function needs to reach the database, its secrets and S3."""
    resources = translate()["Resources"]
    [condition, waits, otherwise] = migration(translate())["WaitsFor"]["Fn::If"]
    assert condition == "MakesData"
    assert otherwise == {"Ref": "AWS::NoValue"}
    names = {node.get("Ref") or node["Fn::If"][1]["Ref"] for node in waits}
    kinds = ("AWS::EC2::VPCEndpoint", "AWS::EC2::SubnetRouteTableAssociation")
    assert {n for n, r in resources.items() if r["Type"] in kinds} <= names
    assert {"DatabaseFromOperators", "EndpointFromOperators"} <= names


def test_cloudformation_waits_for_all_three_tries_of_migrate(translate: Translate) -> None:
    """Lambda tries an asynchronous call again after one minute, and again after two."""
    resources = translate()["Resources"]
    assert "MigrateEventInvokeConfig" not in resources  # SAM would bind it to the alias
    timeout = resources["Migrate"]["Properties"]["Timeout"]
    assert 3 * timeout + 60 + 120 < migration(translate())["ServiceTimeout"] <= 3600


def test_the_server_forgets_idle_clients_only_after_the_longest_function(resolve: Resolve) -> None:
    resources = resolve()
    longest = max(function["Timeout"] for function in functions(resources).values())
    parameters = resources["DatabaseParameters"]["Properties"]["Parameters"]
    for limit in (parameters["wait_timeout"], parameters["interactive_timeout"]):
        assert longest < int(limit) <= 1.2 * longest


def test_the_proxy_forgets_idle_clients_only_after_the_longest_function(resolve: Resolve) -> None:
    resources = resolve(UseProxy="true")
    longest = max(f["Timeout"] for f in functions(resources).values() if is_proxied(f))
    limit = resources["DatabaseProxy"]["Properties"]["IdleClientTimeout"]
    assert longest < limit <= 1.2 * max(60, longest)


def test_the_server_leaves_a_proxys_pool_alone(resolve: Resolve) -> None:
    parameters = resolve(UseProxy="true")["DatabaseParameters"]["Properties"]["Parameters"]
    assert int(parameters["wait_timeout"]) == 8 * 3600


def test_the_proxy_logs_in_only_once_its_user_is_made(translate: Translate) -> None:
    resources = translate(UseProxy="true")["Resources"]
    targets = resources["DatabaseProxyTargets"]
    assert "DatabaseMigration" in targets["DependsOn"]


def test_new_code_waits_for_its_migration(resolve: Resolve) -> None:
    """A function that reads a column before it is there fails until the migration is done."""
    for name, function in resolve().items():
        if function["Type"] == "AWS::Serverless::Function" and name != "Migrate":
            assert "DatabaseMigration" in ensure_list(function["DependsOn"]), name


def test_functions_take_the_proxy_only_once_it_has_its_target(resolve: Resolve) -> None:
    """And the target waits for the rules of both ways; the old rule goes in the clean-up."""
    resources = resolve(UseProxy="true")
    proxied = {n: f for n, f in functions(resources).items() if is_proxied(f)}
    assert proxied
    for name, function in proxied.items():
        assert {"Ref": "DatabaseProxyTargets"} in function["Tags"].values(), name
    for name, function in functions(resolve(UseProxy="false")).items():
        if is_proxied(function):
            assert {"Ref": "DatabaseFromFunctions"} in function["Tags"].values(), name
    rules = {
        name
        for name, resource in resources.items()
        if resource["Type"].startswith("AWS::EC2::SecurityGroup") and "3306" in str(resource)
        if {"Ref": "ProxySecurityGroup"} in resource["Properties"].values()
    }
    assert len(rules) == 3
    assert rules <= set(resources["DatabaseProxyTargets"]["DependsOn"])


def test_no_rule_inside_a_group_depends_on_the_proxy(resolve: Resolve) -> None:
    """Those change before the functions do: switching UseProxy would cut all of them off."""
    with_proxy, without = resolve(UseProxy="true"), resolve(UseProxy="false")
    for name, resource in without.items():
        if resource["Type"] == "AWS::EC2::SecurityGroup":
            assert with_proxy[name] == resource, name


def test_the_census_spares_every_session_that_may_still_have_an_owner(resolve: Resolve) -> None:
    resources = resolve()
    longest = max(
        resources[n]["Properties"]["Timeout"]
        for n in FUNCTIONS.keys() - ASKED_FOR
        if n != "Migrate"
    )
    variables = resources["ConnectionCensus"]["Properties"]["Environment"]["Variables"]
    assert max(60, longest) == int(variables["LONGEST_INVOCATION_SECONDS"])


def test_the_census_leaves_a_proxys_pool_alone(resolve: Resolve) -> None:
    variables = resolve(UseProxy="true")["ConnectionCensus"]["Properties"]["Environment"]
    a_pooled_sessions_life = 24 * 3600
    assert int(variables["Variables"]["LONGEST_INVOCATION_SECONDS"]) > a_pooled_sessions_life


def test_the_api_waits_for_its_function_and_not_longer_than_it_may(resolve: Resolve) -> None:
    for name in ("db.t3.micro", "aurora.serverless"):
        for function, event in events(resolve(DatabaseInstanceClass=name), "HttpApi"):
            waits = event["TimeoutInMillis"]
            assert function["Timeout"] * 1000 < waits < HTTP_API_LIMIT * 1000


def test_a_message_stays_hidden_for_six_timeouts(resolve: Resolve) -> None:
    resources = resolve()
    for worker, event in events(resources, "SQS"):
        queue = resources[event["Queue"]["Fn::GetAtt"][0]]["Properties"]
        assert queue["VisibilityTimeout"] >= 6 * worker["Timeout"]
        assert event["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_with_the_proxy_the_functions_and_nobody_else_use_it(translate: Translate) -> None:
    resources = translate(UseProxy="true")["Resources"]
    through = {
        name
        for name in FUNCTIONS
        if "DatabaseProxy"
        in str(resources[name]["Properties"]["Environment"]["Variables"]["DATABASE_HOST"])
    }
    assert through == FUNCTIONS.keys() - KEPT - ASKED_FOR


def test_the_proxy_logs_in_as_the_application_user(resolve: Resolve) -> None:
    resources = resolve(UseProxy="true")
    [auth] = resources["DatabaseProxy"]["Properties"]["Auth"]
    assert auth["SecretArn"] == {"Ref": "ApplicationSecret"}
    assert not any("Proxy" in name for name in resolve() if name != "HttpApi")


def test_two_stacks_fit_into_one_account(translate: Translate) -> None:
    """What has a fixed name has the stack's in it, or is a part of what has."""
    named = ("Name", "DashboardName", "DBInstanceIdentifier", "DBProxyName", "LogGroupName")
    for logical_id, resource in translate(UseProxy="true")["Resources"].items():
        for key in named:
            name = resource.get("Properties", {}).get(key)
            if name is not None and resource["Type"] not in OWN_NAMES:
                assert "AWS::StackName" in str(name), (logical_id, key)


def test_every_log_group_forgets(resolve: Resolve) -> None:
    resources = resolve(PasswordRotationInDays="30")
    groups = {n for n, r in resources.items() if r["Type"] == "AWS::Logs::LogGroup"}
    # Under this prefix API Gateway needs no entry in a policy that can hold but so many.
    api = resources["HttpApi"]["Properties"]["AccessLogSettings"]["DestinationArn"]["Fn::GetAtt"][0]
    name = resources[api]["Properties"]["LogGroupName"]
    assert name["Fn::Sub"].startswith("/aws/vendedlogs/${AWS::StackName}/")
    assert all(resources[n]["Properties"]["RetentionInDays"] == "14" for n in groups)
    for name in FUNCTIONS:
        group = resources[name]["Properties"]["LoggingConfig"]["LogGroup"]["Ref"]
        assert group == f"{name}Logs"
    exported = resources["DatabaseInstance"]["Properties"]["EnableCloudwatchLogsExports"]
    names = {str(resources[n]["Properties"].get("LogGroupName")) for n in groups}
    for log in exported:
        assert any(name.endswith(f"/{log}'}}") for name in names)


def test_every_alarm_says_what_to_do_and_tells_someone(resolve: Resolve) -> None:
    alarms = [r for r in resolve().values() if r["Type"] == "AWS::CloudWatch::Alarm"]
    assert alarms
    for alarm in alarms:
        assert len(alarm["Properties"]["AlarmDescription"]) > 60
        assert alarm["Properties"]["AlarmActions"] == [{"Ref": "AlarmTopic"}]
        # Silence is good news, but for what asks whether something runs at all.
        asks_for_life = alarm["Properties"].get("MetricName") == "Invocations"
        expected = "breaching" if asks_for_life else "notBreaching"
        assert alarm["Properties"]["TreatMissingData"] == expected


def test_without_alarms_and_dashboard_nothing_of_them_is_left(resolve: Resolve) -> None:
    resources = resolve(MakeAlarms="false", MakeDashboard="false", AlarmEmail="a@b.example")
    kinds = {
        resource["Type"].partition("::")[2].partition("::")[0] for resource in resources.values()
    }
    assert not kinds & {"CloudWatch", "SNS"}


def alarms_of(resources: Document, metric: str, key: str, logical_id: str) -> list[Document]:
    """The alarms that watch a metric of this resource, alone or in a sum."""
    value = {"Fn::GetAtt": [logical_id, "QueueName"]} if key == "QueueName" else {"Ref": logical_id}
    found = []
    for resource in resources.values():
        if resource["Type"] != "AWS::CloudWatch::Alarm":
            continue
        alarm = resource["Properties"]
        sums = [m["MetricStat"]["Metric"] for m in alarm.get("Metrics", []) if "MetricStat" in m]
        found += [
            alarm
            for one in sums or [alarm]
            if one["MetricName"] == metric and {"Name": key, "Value": value} in one["Dimensions"]
        ]
    return found


def test_each_function_of_the_api_is_watched_against_its_own_timeout_and_reservation(
    resolve: Resolve,
) -> None:
    for proxy in ("false", "true"):
        resources = resolve(UseProxy=proxy)
        for name, function in functions(resources).items():
            if not is_called_by(function, "HttpApi"):
                continue
            [slow] = alarms_of(resources, "Duration", "FunctionName", name)
            assert slow["Threshold"] == 0.8 * 1000 * function["Timeout"]
            [busy] = alarms_of(resources, "ConcurrentExecutions", "FunctionName", name)
            assert busy["Threshold"] == function["ReservedConcurrentExecutions"] * 8 // 10
    unreserved = resolve(ReserveConcurrency="false")
    for name in functions(unreserved):
        assert not alarms_of(unreserved, "ConcurrentExecutions", "FunctionName", name)


def is_called_by(function: Document, kind: str) -> bool:
    return any(event["Type"] == kind for event in function.get("Events", {}).values())


def test_the_failures_of_each_function_are_told_by_an_alarm(resolve: Resolve) -> None:
    resources = resolve()
    for name, function in functions(resources).items():
        called = is_called_by(function, "HttpApi")  # then they are the API's 5xx
        kept = "DeadLetterQueue" in function  # then they are dead letters
        deployed = name == "Migrate"  # then they fail the deployment
        watched = alarms_of(resources, "Errors", "FunctionName", name)
        assert bool(watched) is not (called or kept or deployed), name
        if called or is_called_by(function, "SQS"):
            assert alarms_of(resources, "Throttles", "FunctionName", name), name


def test_each_queue_is_watched_for_its_age_or_its_letters(resolve: Resolve) -> None:
    resources = resolve()
    letters = "ApproximateNumberOfMessagesVisible"
    for name, resource in resources.items():
        if resource["Type"] == "AWS::SQS::Queue":
            redriven = "RedrivePolicy" in resource["Properties"]
            metric = "ApproximateAgeOfOldestMessage" if redriven else letters
            assert alarms_of(resources, metric, "QueueName", name), name


def test_every_function_and_every_queue_is_on_the_dashboard(
    resolve: Resolve, template: Document
) -> None:
    text = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"][0]
    plain = re.sub(r"\$\{MaxConnections\}", "65", text).replace("${Proxy}", "")
    metrics = [m for w in json.loads(plain)["widgets"] for m in w["properties"]["metrics"]]
    resources = resolve()
    for name in functions(resources).keys() - {"Migrate"}:
        assert any(m[1:4] == ["Errors", "FunctionName", f"${{{name}}}"] for m in metrics), name
    for name, resource in resources.items():
        if resource["Type"] == "AWS::SQS::Queue":
            assert any(f"${{{name}.QueueName}}" in m for m in metrics), name


def test_a_new_version_of_the_api_takes_over_at_once_unless_it_is_asked_not_to(
    translate: Translate,
) -> None:
    def shifts(document: Document) -> list[str]:
        return [n for n, r in document["Resources"].items() if "CodeDeploy" in r["Type"]]

    assert not shifts(translate())
    assert shifts(translate(ShiftTraffic="true"))
    resources = translate(ShiftTraffic="true")["Resources"]
    for name, function in functions(read_template()["Resources"]).items():
        if is_called_by(function, "HttpApi"):
            assert "CodeDeployLambdaAliasUpdate" in resources[f"{name}Aliaslive"]["UpdatePolicy"]


def test_every_role_is_within_the_boundary(translate: Translate) -> None:
    roles = [
        r for r in translate(UseProxy="true")["Resources"].values() if r["Type"].endswith("::Role")
    ]
    schedules = len(list(events(read_template()["Resources"], "ScheduleV2")))
    assert len(roles) == len(FUNCTIONS) + schedules + 2  # the proxy's and AWS Backup's
    boundary = {"Ref": "PermissionsBoundary"}
    for role in roles:
        given = role["Properties"]["PermissionsBoundary"]
        assert given == {"Fn::If": ["HasBoundary", boundary, {"Ref": "AWS::NoValue"}]}


def test_a_snapshot_brings_its_schema_and_its_master(resolve: Resolve) -> None:
    plain = resolve()["DatabaseInstance"]["Properties"]
    restored = resolve(SnapshotIdentifier="before-the-accident")["DatabaseInstance"]["Properties"]
    assert plain.keys() - restored.keys() == {"DBName", "MasterUsername"}
    assert restored.keys() - plain.keys() == {"DBSnapshotIdentifier"}
    assert restored["DBInstanceIdentifier"] == plain["DBInstanceIdentifier"]


def test_copies_go_to_a_vault_that_the_stack_does_not_make(resolve: Resolve) -> None:
    """Whoever may delete the stack must not delete its copies with it."""
    assert not [r for r in resolve().values() if r["Type"].startswith("AWS::Backup::")]
    assert not [r for r in resolve(BackupVault="").values() if "backup" in str(r["Properties"])]
    for kind, arn in (("db.t3.micro", ":db:"), ("aurora.serverless", ":cluster:")):
        made = resolve(DatabaseInstanceClass=kind, BackupVault="shop", BackupVaultDays="90")
        kinds = {r["Type"] for r in made.values() if r["Type"].startswith("AWS::Backup::")}
        assert kinds == {"AWS::Backup::BackupPlan", "AWS::Backup::BackupSelection"}
        (rule,) = made["BackupPlan"]["Properties"]["BackupPlan"]["BackupPlanRule"]
        assert rule["TargetBackupVault"] == "shop"
        assert rule["Lifecycle"] == {"DeleteAfterDays": "90"}
        assert "EnableContinuousBackup" not in rule  # would fight for the database's retention
        (copied,) = made["BackupSelection"]["Properties"]["BackupSelection"]["Resources"]
        assert arn in str(copied)
    elsewhere = resolve(DatabaseHost="db.example", BackupVault="shop")
    assert "BackupPlan" not in elsewhere  # not ours to copy
    assert "BackupRole" not in elsewhere


def test_opentelemetry_comes_with_its_layer_its_start_and_its_way_out(
    template: Document, translate: Translate
) -> None:
    layer = "arn:aws:lambda:us-east-1:615299751070:layer:AWSOpenTelemetryDistroPython:1"
    for given, start in (("", None), (layer, "/opt/otel-instrument")):
        values = Values(template, {"OpenTelemetryLayerArn": given}, keep=True)
        every = values.resolve(template["Globals"])["Function"]
        assert every["Layers"][1:] == ([given] if given else [])
        assert every["Environment"]["Variables"].get("AWS_LAMBDA_EXEC_WRAPPER") == start
    (assertion,) = template["Rules"]["OpenTelemetrySendsByXRay"]["Assertions"]
    assert assertion["Assert"] == {"Fn::Equals": [{"Ref": "TraceCalls"}, "Active"]}

    def traced(resources: Document, kind: str) -> list[Document]:
        wanted = [r["Properties"] for r in resources.values() if r["Type"] == kind]
        return [p for p in wanted if "TracingConfig" in p or "Xray" in str(p)]

    for mode, count in (("Disabled", 0), ("Active", len(FUNCTIONS))):
        resources = translate(TraceCalls=mode)["Resources"]
        assert len(traced(resources, "AWS::Lambda::Function")) == count
        assert len(traced(resources, "AWS::IAM::Role")) == count


def test_every_parameter_explains_itself_and_refuses_what_is_wrong(template: Document) -> None:
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in groups["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(template["Parameters"]) == sorted(groups["ParameterLabels"])
    for name, parameter in template["Parameters"].items():
        assert parameter["Description"].endswith("."), name
        assert "ConstraintDescription" in parameter, name
        assert {"AllowedValues", "AllowedPattern", "MinValue"} & parameter.keys(), name


def test_every_output_is_described(template: Document) -> None:
    assert all(output["Description"] for output in template["Outputs"].values())


def test_samconfig_names_only_what_the_template_and_the_repository_have(
    template: Document,
) -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))
    for environment in ("default", "prod"):
        section = config[environment]
        stack = section["global"]["parameters"]["stack_name"]
        assert stack == stack.lower()  # the database takes its name
        deploy = section["deploy"]["parameters"]
        assert deploy["resolve_s3"] is True
        assert deploy["fail_on_empty_changeset"] is False
        # SAM's key is the folder alone, and does not know which Python compiled the layer.
        assert section["build"]["parameters"]["cached"] is False
    # Express mode ends before a database takes connections.
    assert config["default"]["sync"]["parameters"]["express"] is False
    for environment in ("default", "prod"):
        for name, value in read_environment(ROOT, environment).parameters.items():
            parameter = template["Parameters"][name]
            allowed = map(str, parameter.get("AllowedValues", [value]))
            assert value in allowed
    for command in ("local_invoke", "local_start_api", "local_start_lambda"):
        assert config["default"][command]["parameters"]["env_vars"] == "local/env.json"


def test_only_iam_is_acknowledged_because_only_iam_is_needed(translate: Translate) -> None:
    """CAPABILITY_NAMED_IAM would be needed for a role with a name."""
    for resource in translate(UseProxy="true")["Resources"].values():
        if resource["Type"] == "AWS::IAM::Role":
            assert "RoleName" not in resource["Properties"]


@pytest.mark.parametrize("number", ["1 June 2024", "31 July 2029", "0.43 MB"])
def test_dates_and_figures_behind_odd_values_are_in_the_template(number: str) -> None:
    assert number in TEMPLATE.read_text(encoding="utf-8")


def test_the_api_starts_from_a_snapshot_only_if_it_is_asked_to(resolve: Resolve) -> None:
    for wanted, expected in (("false", "None"), ("true", "PublishedVersions")):
        for function, _ in events(resolve(SnapStart=wanted), "HttpApi"):
            assert function["SnapStart"] == {"ApplyOn": expected}
            assert function["AutoPublishAlias"]  # only a published version has a snapshot
