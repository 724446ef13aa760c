"""The shop's functions and its schema, for the tests of both."""

from __future__ import annotations

import importlib.util
import itertools
import types
from pathlib import Path

import pytest

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
