"""A real database for every test that asks for one: MariaDB and MySQL, one after the other."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator, Mapping

import pytest
from single_connection.testing import unguarded

from local.database import LocalDatabase
from local.servers import FLAVORS, Flavor, Server, ServerMissingError, find_servers, require_server


def unmeasured(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process whose coverage is not worth its time."""
    return {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}


def pytest_configure() -> None:
    """What runs on this machine is not asked for through a proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before `-m` chooses: who asks for a server is marked by that."""
    for item in items:
        if {"server", "either_server"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test may be a coroutine, as the emulator's callers are; that needs no plugin."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


def need(flavor: Flavor) -> Server:
    """The server of that flavor; without it the test is skipped, or fails where CI must have it."""
    try:
        return require_server(flavor)
    except ServerMissingError as error:
        # A pipeline that skips what it is for would be green for nothing.
        if os.environ.get("CI") and flavor == "mariadb":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _guards_of_its_own() -> Iterator[None]:
    """No guard of one test, or of a module, refuses what another test connects plainly."""
    with unguarded():
        yield


@pytest.fixture(scope="session")
def either_server(pytestconfig: pytest.Config) -> Server:
    """A program to start, for what is the same on both servers: the first that is here."""
    chosen = pytestconfig.getoption("--database")
    for found in find_servers():
        if chosen in {"all", found.flavor}:
            return found
    return need("mariadb" if chosen == "all" else chosen)


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
