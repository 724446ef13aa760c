"""The shop's functions and its schema, for the tests of both."""

from __future__ import annotations

import builtins
import importlib.util
import itertools
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from single_connection.testing import LambdaContext

from local.database import LocalDatabase

ROOT = Path(__file__).resolve().parent.parent
_numbers = itertools.count()


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
        load_function("migrate").lambda_handler({}, LambdaContext(60))
    return database_server


def load_function(name: str) -> types.ModuleType:
    """A function's `app`, loaded anew as a cold start does.

    The folder's modules import each other by their plain names, as in /var/task, and each load has
    its own: it sees nothing of another load, or of another function's module of the same name.
    """
    folder = ROOT / "functions" / name
    number = next(_numbers)
    loaded: dict[str, types.ModuleType] = {}

    def load(stem: str) -> types.ModuleType:
        if stem not in loaded:
            spec = importlib.util.spec_from_file_location(
                f"{name}_{stem}_{number}", folder / f"{stem}.py"
            )
            assert spec is not None
            assert spec.loader is not None
            loaded[stem] = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
            # What an `import` statement of this module calls.
            vars(loaded[stem])["__builtins__"] = {**vars(builtins), "__import__": import_}
            spec.loader.exec_module(loaded[stem])
        return loaded[stem]

    def import_(wanted: str, *rest: Any) -> types.ModuleType:
        own = (folder / f"{wanted}.py").is_file()
        return load(wanted) if own else builtins.__import__(wanted, *rest)

    return load("app")
