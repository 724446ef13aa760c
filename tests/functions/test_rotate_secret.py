"""The application's user gets a new password, and no call fails meanwhile."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from local.database import LocalDatabase
from local.environment import Answer, Environment
from local.fleet import Fleet, closed_loop
from local.secrets_manager import ARN, Request, SecretsManager
from tests.functions.conftest import ROOT, request


class Store(SecretsManager):
    """Refuses to be written as often as it is told, before it is or after."""

    def __init__(self, database: LocalDatabase) -> None:
        super().__init__()
        given = database.application_environ()
        self.names = {"username": "application", "password": given["DATABASE_PASSWORD"]}
        self.secret = json.dumps({**self.names, "note": "kept"})
        self.passwords = [self.names["password"]]
        self.refused = 0
        self.lost = 0

    def answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        writes = request.headers.get("x-amz-target") == "secretsmanager.PutSecretValue"
        if writes and self.refused:
            self.refused -= 1
            return 400, {"__type": "AccessDeniedException", "Message": "not authorized"}
        answer = super().answer(request)
        if writes:
            self.passwords.append(json.loads(str(self.secret))["password"])
            if self.lost:
                self.lost -= 1
                return 400, {"__type": "LimitExceededException", "Message": "written all the same"}
        return answer


@pytest.fixture
def store(shop: LocalDatabase) -> Iterator[Store]:
    with Store(shop) as store:
        yield store


def rotation(shop: LocalDatabase, store: Store) -> Environment:
    master = shop.master_environ()
    environ = {**store.environ(), **master, "APPLICATION_SECRET_ARN": ARN}
    environ["DATABASE_SECRET_ARN"] = ""
    return Environment(ROOT / "functions/rotate_secret", environ=environ, timeout=20)


def rotate(shop: LocalDatabase, store: Store) -> Answer:
    async def run() -> Answer:
        async with rotation(shop, store) as environment:
            return await environment.invoke({})

    return asyncio.run(run())


LOG_IN = """
import os, pymysql
try:
    pymysql.connect(
        host=os.environ["DATABASE_HOST"], port=int(os.environ["DATABASE_PORT"]),
        user="application", password=os.environ["PASSWORD"],
        ssl_ca=os.environ["DATABASE_CA_FILE"],
    ).close()
except pymysql.OperationalError as error:
    print(error.args[0])
"""


def may_log_in(shop: LocalDatabase, password: str) -> bool:
    """Asked by a process of its own, which no guard is about."""
    environ = shop.application_environ() | {"PASSWORD": password}
    done = subprocess.run(
        [sys.executable, "-c", LOG_IN], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in ("", "1045")
    return not done.stdout.strip()


def test_no_call_fails_while_the_password_is_changed_again_and_again(
    shop: LocalDatabase, store: Store
) -> None:
    """Warm environments, at work all the while; one of the changes fails half-way, one is lost."""
    given = shop.application_environ() | {"DATABASE_USER": "", "DATABASE_PASSWORD": ""}
    environ = given | store.environ()

    def make() -> Environment:
        return Environment(ROOT / "functions/orders_api", environ=environ, timeout=10)

    async def run() -> tuple[list[Answer], list[Any]]:
        event = request("GET", "/products")
        rotated = []
        async with (
            Fleet(make, reserved_concurrency=4) as fleet,
            rotation(shop, store) as environment,
        ):
            await fleet.warm(4, event)
            load = asyncio.create_task(closed_loop(fleet, event, clients=4, seconds=9))
            for step in range(6):
                store.refused, store.lost = int(step == 1), int(step == 3)
                rotated.append(await environment.invoke({}))
                await asyncio.sleep(0.7)
            return rotated, await load

    rotated, calls = asyncio.run(run())
    assert [answer.status for answer in rotated] == ["ok", "error", "ok", "error", "ok", "ok"]
    failed = [call for call in calls if not call.ok or call.answer.json()["statusCode"] != 200]
    assert not failed
    assert len(calls) > 40
    assert len(set(store.passwords)) == 6, "one of six was refused before it was written"
    assert may_log_in(shop, store.passwords[-1])
    assert not any(may_log_in(shop, old) for old in store.passwords[:-1])
    assert [one for one in shop.sessions() if one.user == "application"] == []


def test_the_secret_keeps_what_else_it_says(shop: LocalDatabase, store: Store) -> None:
    assert rotate(shop, store).json() == {"rotated": "application"}
    secret = json.loads(str(store.secret))
    assert secret == {**store.names, "note": "kept", "password": store.passwords[-1]}
    assert len(secret["password"]) == 40


def test_a_password_that_never_reached_the_secret_locks_nobody_out(
    shop: LocalDatabase, store: Store
) -> None:
    """Twice in a row: the second try must not make the lost password the one that is kept."""
    store.refused = 2
    for _ in range(2):
        answer = rotate(shop, store)
        assert answer.error_type == "RotationError"
        assert may_log_in(shop, store.names["password"])
    assert rotate(shop, store).status == "ok"
    assert not may_log_in(shop, store.names["password"])


def test_no_password_is_in_the_log_or_in_an_answer(shop: LocalDatabase, store: Store) -> None:
    store.refused = 1
    answers = [rotate(shop, store) for _ in range(2)]
    shop.execute("DROP USER 'application'@'%'")
    answers.append(rotate(shop, store))
    assert [answer.status for answer in answers] == ["error", "ok", "error"]
    for answer in answers:
        shown = answer.log + answer.payload.decode()
        assert shown
        assert not any(password in shown for password in store.passwords)


def test_a_migration_that_runs_is_waited_for_and_then_left_alone(
    shop: LocalDatabase, store: Store, outsider: Any
) -> None:
    """Else it would set the password that it had read before."""
    with outsider.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(CONCAT(DATABASE(), '.migrate'), 0)")
    answer = rotate(shop, store)
    assert answer.error_type == "RotationError"
    assert "a migration is running" in answer.json()["errorMessage"]
    assert store.passwords == [store.names["password"]]


@pytest.mark.parametrize("secret", ["hidden-word", '{"user": "hidden-word"}', '["hidden-word"]'])
def test_a_secret_that_is_no_pair_changes_nothing_and_is_not_shown(
    shop: LocalDatabase, store: Store, secret: str
) -> None:
    store.secret = secret
    answer = rotate(shop, store)
    assert answer.error_type == "RotationError"
    assert "hidden-word" not in answer.log + answer.payload.decode()
    assert store.secret == secret
    assert may_log_in(shop, store.names["password"])
