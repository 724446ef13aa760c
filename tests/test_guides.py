"""What the guides show works, on a real server, and what they list is complete."""

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pymysql
import pytest
from single_connection import errors
from single_connection.testing import LambdaContext, unguarded

from deploy.template import read_template
from local.database import LocalDatabase

GUIDES = Path(__file__).parents[1] / "docs" / "guides"


def block(page: str, language: str = "python") -> str:
    """The page's one block in that language."""
    text = (GUIDES / page).read_text("utf-8")
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(code)


def load(code: str) -> dict[str, Any]:
    module: dict[str, Any] = {}
    exec(compile(code, "guide", "exec"), module)
    return module


@pytest.fixture
def application(shop: LocalDatabase, monkeypatch: pytest.MonkeyPatch) -> LocalDatabase:
    """The shop, and the environment of its functions."""
    for name, value in shop.application_environ().items():
        monkeypatch.setenv(name, value)
    if not shop.execute("SHOW TABLES LIKE 'products'"):
        pytest.skip("the guides speak of the shop's products, and the shop was taken away")
    return shop


def test_the_first_function_answers(application: LocalDatabase) -> None:
    handler = load(block("first-function.md"))["lambda_handler"]
    rows = handler({"below": 90}, LambdaContext())
    assert {"name": "Plate", "stock": 80} in list(rows)
    assert application.sessions() == []


def test_a_handler_that_was_moved_takes_stock(application: LocalDatabase) -> None:
    handler = load(block("moving-a-handler.md"))["lambda_handler"]
    assert handler({"id": 1, "taken": 2}, LambdaContext()) == {"changed": 1}
    assert application.execute("SELECT stock FROM products WHERE id = 1") == [{"stock": 98}]
    assert application.sessions() == []


def test_the_test_of_the_page_is_green() -> None:
    module = load(block("testing.md"))
    (test,) = [value for name, value in module.items() if name.startswith("test_")]
    test()


def test_the_first_migration_and_its_grant_are_what_1142_asks_for(
    application: LocalDatabase,
) -> None:
    grants = tomllib.loads(block("first-migration.md", "toml"))
    application.execute(block("first-migration.md", "sql"))
    environ = application.application_environ()

    def write() -> None:
        with (
            unguarded(),
            pymysql.connect(
                host=environ["DATABASE_HOST"],
                port=int(environ["DATABASE_PORT"]),
                user=environ["DATABASE_USER"],
                password=environ["DATABASE_PASSWORD"],
                database=environ["DATABASE_NAME"],
                ssl_ca=environ["DATABASE_CA_FILE"],
                autocommit=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("INSERT INTO notes (note) VALUES ('first')")
            cursor.execute("UPDATE notes SET note = 'second'")

    with pytest.raises(pymysql.err.OperationalError, match="1142"):
        write()
    for table, privileges in grants.items():
        application.execute(f"GRANT {privileges} ON {table} TO 'application'@'%'")
    write()
    assert application.execute("SELECT note FROM notes") == [{"note": "second"}]


@pytest.mark.filterwarnings("default")  # theirs are none of our business
def test_a_traced_connection_works_inside_of_a_block(application: LocalDatabase) -> None:
    if importlib.util.find_spec("opentelemetry") is None:
        pytest.skip("opentelemetry is not installed: run `make test-pages`")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    assert load(block("tracing.md"))["lambda_handler"]({}, LambdaContext()) == 100
    assert [span.name for span in spans.get_finished_spans()] == ["SELECT"]
    assert application.sessions() == []


def test_every_error_of_the_layer_has_its_line() -> None:
    text = (GUIDES / "errors.md").read_text("utf-8")
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.SingleConnectionError)
    }
    assert len(classes) >= 10
    assert classes == set(re.findall(r"^\| `(\w+Error)`", text, re.MULTILINE))


def test_every_number_that_the_layer_knows_has_its_line() -> None:
    from single_connection import _server_errors

    text = (GUIDES / "errors.md").read_text("utf-8")
    lines = re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)
    explained = {int(number) for line in lines for number in line.split(",")}
    known: set[int] = set()
    for value in vars(_server_errors).values():
        known |= value if isinstance(value, frozenset) else set()
    assert known - explained <= {1129, 1130, 1698}, "internal to admission, and to credentials"


def test_every_alarm_has_its_line() -> None:
    """By its name, or as a function's own by its kind."""
    resources = read_template()["Resources"]
    alarms = {name for name, one in resources.items() if one["Type"] == "AWS::CloudWatch::Alarm"}
    assert len(alarms) > 10
    text = (GUIDES / "alarms.md").read_text("utf-8")
    lines = set(re.findall(r"^\| `(\w+Alarm)`", text, re.MULTILINE))
    kinds = tuple(re.findall(r"`…(\w+Alarm)`", text))
    assert [name for name in alarms - lines if not name.endswith(kinds)] == []


def test_every_guide_is_in_the_index() -> None:
    index = (GUIDES / "README.md").read_text("utf-8")
    assert [
        p.name for p in GUIDES.glob("*.md") if p.name != "README.md" and p.name not in index
    ] == []


def test_each_word_of_ours_is_defined() -> None:
    glossary = (GUIDES / "glossary.md").read_text("utf-8")
    for word in ("Lease", "Admission", "Leak", "Hold", "Block", "Budget", "Census", "Deadline"):
        assert len(re.findall(rf"\*\*{word}\*\*: ", glossary)) == 1, word
