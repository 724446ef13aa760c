"""Each name of the project lives in one place; where a second must repeat it, the two agree."""

import inspect
import json
import tomllib

import yaml

from deploy.template import ROOT
from local.database import LocalDatabase
from tests.template.conftest import Document, Resolve, functions

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SAM = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))
LEAKS = "ConnectionLeaks"


def test_every_schema_is_the_templates(template: Document) -> None:
    schema = template["Parameters"]["DatabaseName"]["Default"]
    assert COMPOSE["services"]["database"]["environment"]["MYSQL_DATABASE"] == schema
    assert inspect.signature(LocalDatabase).parameters["name"].default == schema
    overrides = json.loads((ROOT / "local" / "env.json").read_text(encoding="utf-8"))
    assert all("DATABASE_NAME" not in of for of in overrides.values())


def test_the_schema_that_is_made_is_the_one_that_functions_use(
    template: Document, resolve: Resolve
) -> None:
    variables = template["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["DATABASE_NAME"] == {"Ref": "DatabaseName"}
    made = {
        resource["Properties"][key]
        for shape in ("db.t3.micro", "aurora.serverless")
        for resource in resolve(DatabaseInstanceClass=shape, DatabaseName="other").values()
        for key in ("DBName", "DatabaseName")
        if resource["Type"].startswith("AWS::RDS::") and key in resource["Properties"]
    }
    assert made == {"other"}


def test_the_leak_alarm_watches_what_every_function_sends(
    template: Document, resolve: Resolve
) -> None:
    resources = resolve(ServiceName="other")
    shared = template["Globals"]["Function"]["Environment"]["Variables"]
    assert shared["POWERTOOLS_SERVICE_NAME"] == {"Ref": "ServiceName"}
    for name, function in functions(resources).items():
        own = function.get("Environment", {}).get("Variables", {})
        assert "POWERTOOLS_SERVICE_NAME" not in own, name
    [alarm] = [
        resource["Properties"]
        for resource in resources.values()
        if resource.get("Properties", {}).get("MetricName") == LEAKS
    ]
    assert alarm["Dimensions"] == [{"Name": "service", "Value": "other"}]


def test_the_dashboard_names_no_service_but_the_parameters(template: Document) -> None:
    dashboards = [r for r in template["Resources"].values() if r["Type"].endswith("::Dashboard")]
    assert dashboards
    for dashboard in dashboards:
        text = json.dumps(dashboard["Properties"]["DashboardBody"])
        assert text.count(r"\"service\", \"") == text.count(r"\"service\", \"${ServiceName}\"") > 0


def test_sam_local_joins_the_network_that_compose_makes() -> None:
    network = COMPOSE["networks"]["functions"]["name"]
    joined = {
        settings["parameters"]["docker_network"]
        for section in SAM.values()
        if isinstance(section, dict)
        for settings in section.values()
        if "docker_network" in settings["parameters"]
    }
    assert joined == {network} == {COMPOSE["name"]}


def test_the_stacks_begin_with_what_the_deployment_role_may_deploy() -> None:
    role = (ROOT / "deploy" / "role.yaml").read_text(encoding="utf-8")
    prefix = role.split("StackPrefix:")[1].split("Default: ")[1].split()[0]
    for name, section in SAM.items():
        if not isinstance(section, dict) or "global" not in section:
            continue
        stack = section["global"]["parameters"]["stack_name"]
        assert stack.startswith(f"{prefix}-"), name
        assert section["deploy"]["parameters"]["s3_prefix"] == stack
        assert f"project={prefix} " in section["deploy"]["parameters"]["tags"]
