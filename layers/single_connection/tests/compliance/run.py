"""SQLAlchemy's own dialect compliance suite, on an engine of the layer or on a plain one.

    python run.py plain|one|each DRIVERNAME OUTCOMES.json [more of pytest's arguments]

`plain` is SQLAlchemy's own engine without a pool, `one` the layer's with the whole suite in one
invocation, `each` the layer's with an invocation for each test. The database is taken from
DATABASE_*; what became of each test is written to OUTCOMES.json. The suite's plugin wants a pytest
session of its own: hence a process of its own.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import sqlalchemy
from _pytest.runner import runtestprotocol
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.pool import NullPool

HERE = Path(__file__).parent
SECONDS = 840.0  # what an invocation can have
Run = Callable[[Callable[[], Any]], Any]

plain_create_engine = sqlalchemy.create_engine


class Outcomes:
    """What became of each test, and an invocation around each if `each` is given."""

    def __init__(self, each: Run | None) -> None:
        self.of: dict[str, list[str]] = {}
        self._each = each

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """One test in one invocation."""
        if self._each is None:
            return None
        self._each(lambda: runtestprotocol(item, nextitem=nextitem))
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The first of set-up, call and tear-down that did not pass is what counts."""
        name = report.nodeid.partition("::")[2]
        if self.of.get(name, ["passed"])[0] == "passed":
            crash = getattr(report.longrepr, "reprcrash", None)
            self.of[name] = [report.outcome, crash.message if crash else ""]


def in_invocations(plugin: Any, invoke: Run) -> None:
    """What the suite's plugin does around the tests asks the server, too."""
    start, modify, finish = (
        plugin.pytest_sessionstart,
        plugin.pytest_collection_modifyitems,
        plugin.pytest_sessionfinish,
    )
    plugin.pytest_sessionstart = lambda session: invoke(lambda: start(session))
    plugin.pytest_collection_modifyitems = lambda session, config, items: invoke(
        lambda: modify(session, config, items)
    )
    plugin.pytest_sessionfinish = lambda session: invoke(lambda: finish(session))


def plain(url: Any, **options: Any) -> sqlalchemy.Engine:
    """SQLAlchemy's own: no pool, as is advised for Lambda."""
    return plain_create_engine(url, **{"poolclass": NullPool, **options})


class Layers:
    """The layer's engines, of one database."""

    def __init__(self, drivername: str) -> None:
        from single_connection import Database

        self._database = Database.from_environment()
        self._drivername = drivername

    def create_engine(self, _url: Any, **options: Any) -> sqlalchemy.Engine:
        """As the suite wants one."""
        from single_connection.sqlalchemy import create_engine

        options.pop("poolclass", None)  # the suite's StaticPool: to keep its temporary tables
        with mock.patch.object(sqlalchemy, "create_engine", plain_create_engine):
            return create_engine(self._database, drivername=self._drivername, **options)

    def invoke(self, work: Callable[[], Any]) -> Any:
        """Do the work in an invocation."""
        from single_connection.testing import LambdaContext

        handler = self._database.invocation(lambda _event, _context: work())
        return handler({}, LambdaContext(SECONDS))


def address(drivername: str) -> str:
    """The database as a URL."""
    url = sqlalchemy.URL.create(
        drivername,
        username=os.environ["DATABASE_USER"],
        password=os.environ["DATABASE_PASSWORD"],
        host=os.environ["DATABASE_HOST"],
        port=int(os.environ["DATABASE_PORT"]),
        database=os.environ["DATABASE_NAME"],
        query={"ssl_ca": os.environ["DATABASE_CA_FILE"], "charset": "utf8mb4"},
    )
    return url.render_as_string(hide_password=False)


def main(mode: str, drivername: str, outcomes: str, *more: str) -> int:
    """Run the suite, and write what became of it."""
    ours = Layers(drivername) if mode != "plain" else None
    seen = Outcomes(ours.invoke if ours and mode == "each" else None)
    arguments = [str(HERE / "suite.py"), "-c", str(HERE / "suite.ini"), "--rootdir", str(HERE)]
    arguments += ["-p", "no:cacheprovider", "-q", "--tb=short"]
    arguments += ["--dburi", address(drivername), *more]
    # The suite would open a connection of its own to see whether "mysql" is MariaDB.
    known = mock.patch.object(MySQLDialect, "_is_mariadb_from_url", return_value=False)
    engines = mock.patch.object(sqlalchemy, "create_engine", ours.create_engine if ours else plain)
    with known, engines:
        from sqlalchemy.testing.plugin import pytestplugin

        def run() -> int:
            return int(pytest.main(arguments, plugins=[pytestplugin, seen]))

        if ours and mode == "each":
            in_invocations(pytestplugin, ours.invoke)
        code = int(ours.invoke(run)) if ours and mode == "one" else run()
    Path(outcomes).write_text(json.dumps(seen.of, indent=1, sort_keys=True))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
