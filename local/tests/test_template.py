"""What is read of a SAM template, and what is left to the deployed stack."""

from pathlib import Path

import pytest

from local.template import TemplateError, find_function, read_functions

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Size: {Type: String, Default: small}
  Reserve: {Type: String, Default: "true"}
Mappings:
  Sizes:
    small: {Orders: 30}
    large: {Orders: 180}
Conditions:
  Reserves: !Equals [!Ref Reserve, "true"]
  ReservesALot: !And [!Condition Reserves, !Not [!Equals [!Ref Size, small]]]
Globals:
  Function:
    Handler: app.lambda_handler
    Runtime: python3.13
    MemorySize: 512
    LoggingConfig: {LogFormat: JSON}
    Environment:
      Variables:
        DATABASE_HOST: !GetAtt Database.Endpoint.Address
        DATABASE_PORT: "3306"
        DATABASE_USER: ""
        KIND: !If [ReservesALot, many, few]
        NAMED: !Sub "${AWS::StackName}-${Size}"
        UNKNOWN: !Sub "${Database}-x"
Resources:
  Database: {Type: AWS::RDS::DBInstance}
  OrdersApi:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/orders_api/
      Timeout: 10
      LoggingConfig: {LogGroup: !Ref Logs}
      ReservedConcurrentExecutions:
        !If [Reserves, !FindInMap [Sizes, !Ref Size, Orders], !Ref AWS::NoValue]
      Environment:
        Variables:
          DATABASE_PORT: "3307"
          OWN: 1
  Other:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/other/
      MemorySize: 256
      Handler: main.handle
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    file = tmp_path / "template.yaml"
    file.write_text(TEMPLATE)
    return file


def test_a_functions_own_properties_win_over_the_globals_key_by_key(template: Path) -> None:
    orders, other = read_functions(template).values()
    assert (orders.name, orders.logical_id) == ("orders_api", "OrdersApi")
    assert orders.directory == template.parent / "functions" / "orders_api"
    assert (orders.timeout, orders.memory, orders.handler) == (10, 512, "app.lambda_handler")
    assert (other.timeout, other.memory, other.handler) == (3, 256, "main.handle")
    assert orders.environ["DATABASE_PORT"] == "3307"
    assert orders.environ["OWN"] == "1"
    assert orders.environ["DATABASE_USER"] == ""
    assert orders.environ["AWS_LAMBDA_LOG_FORMAT"] == "JSON"
    assert "OWN" not in other.environ


def test_parameters_mappings_and_conditions_are_followed(template: Path) -> None:
    orders = read_functions(template)["orders_api"]
    assert orders.reserved_concurrency == 30
    assert (orders.environ["KIND"], orders.environ["NAMED"]) == ("few", "local-small")
    large = read_functions(template, {"Size": "large"})["orders_api"]
    assert large.reserved_concurrency == 180
    assert large.environ["KIND"] == "many"
    assert read_functions(template, {"Reserve": "no"})["orders_api"].reserved_concurrency is None


def test_what_only_a_deployed_stack_knows_is_left_out(template: Path) -> None:
    environ = read_functions(template)["orders_api"].environ
    assert "DATABASE_HOST" not in environ
    assert "UNKNOWN" not in environ


def test_a_function_is_found_by_folder_or_logical_id(template: Path) -> None:
    assert find_function("OrdersApi", template) == find_function("orders_api", template)


def test_an_unknown_function_is_refused_with_the_known_ones(template: Path) -> None:
    with pytest.raises(TemplateError, match=r"'order_api'.*has: orders_api, other"):
        find_function("order_api", template)


def test_what_is_no_template_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="does not exist"):
        read_functions(tmp_path / "template.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(TemplateError, match="is no YAML"):
        read_functions(broken)
    broken.write_text("- a list")
    with pytest.raises(TemplateError, match="has no Resources"):
        read_functions(broken)


def test_a_function_that_is_not_asked_for_is_not_there() -> None:
    assert "rotate_secret" not in read_functions()
    assert "rotate_secret" in read_functions(parameters={"PasswordRotationInDays": "30"})


def test_the_projects_own_template_has_its_functions() -> None:
    functions = read_functions()
    assert set(functions) >= {"orders_api", "stock_worker", "sales_report", "migrate"}
    for function in functions.values():
        assert (function.directory / "app.py").is_file()
        assert function.reserved_concurrency
