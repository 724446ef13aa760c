"""A real database for every test that asks for one: MariaDB and MySQL, one after the other."""

from __future__ import annotations

import importlib.util
import itertools
import os
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from single_connection import guard

from local.database import LocalDatabase
from local.servers import FLAVORS, Flavor, Server, ServerMissingError, require_server

ROOT = Path(__file__).resolve().parent.parent
_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=["all", *FLAVORS],
        default="all",
        help="run database tests on this server only",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of one server run together (session scope), so that each is started once."""
    if "server" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--database")
        flavors = FLAVORS if chosen == "all" else (chosen,)
        metafunc.parametrize("server", flavors, indirect=True, scope="session")


def need(flavor: Flavor) -> Server:
    """The server of that flavor; without it the test is skipped, or fails where CI must have it."""
    try:
        return require_server(flavor)
    except ServerMissingError as error:
        # A pipeline that skips what it is for would be green for nothing.
        if os.environ.get("CI") and flavor == "mariadb":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module", autouse=True)
def guards_of_the_module() -> Iterator[None]:
    """Handlers that a module loaded guard their database no longer when it is done."""
    before = list(guard._guards)
    yield
    guard._guards[:] = before


@pytest.fixture(autouse=True)
def guards_of_the_test() -> Iterator[None]:
    """No guard of one test refuses what the next one connects plainly."""
    before = list(guard._guards)
    yield
    guard._guards[:] = before


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalDatabase]:
    """A running database, the same for all tests of the session, in whatever state they left it."""
    with LocalDatabase(need(request.param), tmp_path_factory.mktemp("database")) as database:
        yield database


@pytest.fixture
def database_server(server: LocalDatabase) -> LocalDatabase:
    """A database without sessions, with an empty schema and the master and application users."""
    server.reset()
    return server


@pytest.fixture
def shop(database_server: LocalDatabase, monkeypatch: pytest.MonkeyPatch) -> LocalDatabase:
    """The database as the migrations leave it, made by the function that makes it in AWS."""
    # Its rights come from the migration alone, or a missing GRANT would go unseen.
    database_server.execute("DROP USER 'application'@'%'")
    environ = {
        **database_server.master_environ(),
        "APPLICATION_USER": "application",
        "APPLICATION_PASSWORD": database_server.application_environ()["DATABASE_PASSWORD"],
        "APPLICATION_MAX_USER_CONNECTIONS": str(database_server.max_user_connections),
    }
    with monkeypatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        load_function("migrate").lambda_handler({}, FakeContext())
    return database_server


def load_function(name: str) -> types.ModuleType:
    """A function's module, loaded anew as a cold start does; in Lambda, each is called `app`."""
    path = ROOT / "functions" / name / "app.py"
    spec = importlib.util.spec_from_file_location(f"{name}_app_{next(_numbers)}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeContext:
    """What Lambda passes to a handler, with a minute left."""

    function_name = "test"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:test"
    memory_limit_in_mb = "128"
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    log_group_name = "/aws/lambda/test"
    log_stream_name = "test"
    identity = None
    client_context = None

    def get_remaining_time_in_millis(self) -> int:
        return 60_000
