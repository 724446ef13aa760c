"""SnapStart: copies of one process share nothing that is secret; a fork stands for the snapshot."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import snapshot_restore_py
from awslambdaric.lambda_runtime_hooks_runner import run_after_restore, run_before_snapshot
from single_connection import Database, Settings, _connector, _snapshot
from single_connection._credentials import Credentials
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import World, body, function, invoke
from local.secrets_manager import ARN, SecretsManager

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
SNAP_START = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
PAIR = json.dumps({"username": "application", "password": "hidden"})


@pytest.fixture(autouse=True)
def no_hooks() -> Iterator[None]:
    yield
    snapshot_restore_py.get_before_snapshot().clear()
    snapshot_restore_py.get_after_restore().clear()


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretsManager]:
    with SecretsManager() as server:
        server.secret = PAIR
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
        yield server


def in_a_copy(work: Callable[[], str]) -> str:
    """What `work` gives in a copy of this process."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, work().encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        answer = said.read()
    os.waitpid(child, 0)
    return answer


def registered(prepare: Callable[[], Any] | None = None) -> Credentials:
    credentials = Credentials(Settings(host="db", name="shop", secret_arn=ARN))
    prepare = prepare or credentials.read
    _snapshot.register(SNAP_START, forget=credentials.forget, prepare=prepare)
    return credentials


def test_a_snapshot_holds_no_secret_and_each_copy_reads_it_as_it_is_restored(
    secrets: SecretsManager,
) -> None:
    credentials = registered()
    credentials.read()  # as a function that warms itself up before the snapshot does
    assert secrets.reads == 1
    run_before_snapshot()
    assert "hidden" not in repr([getattr(credentials, name) for name in vars(credentials)])

    def restored() -> str:
        run_after_restore()
        return " ".join(credentials.read())

    assert [in_a_copy(restored) for _ in range(2)] == ["application hidden"] * 2
    assert secrets.reads == 3, "each copy once, and before its first invocation"
    secrets.secret = PAIR.replace("hidden", "rotated")
    assert in_a_copy(restored) == "application rotated"


def test_what_fails_as_a_copy_is_restored_is_left_to_the_first_invocation() -> None:
    def broken() -> None:
        raise RuntimeError("no network yet")

    registered(broken)
    run_before_snapshot()
    run_after_restore()


@pytest.mark.parametrize("kind", ["on-demand", "provisioned-concurrency", None])
def test_without_a_snapshot_nothing_is_registered(kind: str | None) -> None:
    environ = {"AWS_LAMBDA_INITIALIZATION_TYPE": kind} if kind else {}
    _snapshot.register(environ, forget=print, prepare=print)
    assert not snapshot_restore_py.get_before_snapshot()
    assert not snapshot_restore_py.get_after_restore()


def test_another_runtime_without_hooks_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", None)
    _snapshot.register(SNAP_START, forget=print, prepare=print)


def snap_started(world: World, secrets: SecretsManager) -> dict[str, str]:
    """The variables of a function that reads its secret and of which a snapshot is taken."""
    given = world.environ()
    pair = {"username": given["DATABASE_USER"], "password": given["DATABASE_PASSWORD"]}
    secrets.secret = json.dumps(pair)
    return world.environ(user="", password="") | secrets.environ() | SNAP_START


def test_a_snapstart_function_has_its_secret_before_its_first_invocation(
    world: World, secrets: SecretsManager
) -> None:
    """In Lambda's own runtime client, which calls the hooks."""
    with function("rotation", snap_started(world, secrets), timeout=10.0) as restored:
        restored._runner.run(restored._environment.start())
        assert secrets.reads == 1
        assert body(restored.invoke()) == {"boto_at_import": False, "boto": False}
        assert secrets.reads == 1


def test_copies_of_a_database_connect_with_a_secret_and_chance_of_their_own(
    world: World, secrets: SecretsManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.from_environment(snap_started(world, secrets))
    chance = "SELECT CONNECTION_ID() AS id"

    def ask() -> str:
        def work(_event: Any, _context: Any) -> str:
            with database.transaction() as cursor:
                cursor.execute(chance)
                [row] = cursor.fetchall()
                return f"{row['id']} {database.connection().mark}"

        return database.invocation(work)({}, LambdaContext())

    ask()  # warms itself up before the snapshot
    before = secrets.reads
    run_before_snapshot()

    def restored() -> str:
        run_after_restore()
        return ask()

    answers = {in_a_copy(restored) for _ in range(3)}
    assert len({answer.split()[0] for answer in answers}) == 3, answers
    assert len({answer.split()[1] for answer in answers}) == 3, answers
    assert secrets.reads == before + 3
    assert world.sessions() == []


@pytest.mark.parametrize("used", [False, True])
def test_what_copies_may_not_share_is_forgotten_before_and_read_again_after_a_snapshot(
    world: World, secrets: SecretsManager, used: bool
) -> None:
    """In this process, as it goes on after its own snapshot."""
    given = world.environ()
    database = Database.from_environment(snap_started(world, secrets))

    def ask() -> int:
        return invoke(database, lambda: database.connection().query("SELECT 1"))

    if used:
        assert ask() == 1
    before = secrets.reads
    run_before_snapshot()
    connector: Any = database._connector
    kept = [connector._who and vars(connector._who), connector._context and connector._tls.ticket]
    assert given["DATABASE_PASSWORD"] not in repr(kept)
    assert not used or connector._tls.ticket(given["DATABASE_HOST"]) is None
    run_after_restore()
    assert secrets.reads == before + 1, "before its first invocation"
    assert ask() == 1
    assert secrets.reads == before + 1


def test_after_a_fork_a_ticket_is_kept_by_the_parent_alone(world: World) -> None:
    database = world.database()
    for _ in range(2):
        invoke(database, lambda: database.connection().query("SELECT 1"))
    connector: Any = database._connector
    host = world.server.host
    has = f"{connector._tls.ticket(host) is not None} {bool(connector._early._request)}"
    assert has == "True True"

    def kept() -> str:
        return f"{connector._tls.ticket(host) is not None} {bool(connector._early._request)}"

    assert in_a_copy(kept) == "False False"
    assert kept() == "True True"
    _connector._after_fork()  # the same, in this process
    assert kept() == "False False"
    invoke(database, lambda: database.connection().query("SELECT 1"))


def test_settings_are_the_same_in_every_copy() -> None:
    settings = Settings(host="db", name="shop", secret_arn=ARN)
    assert in_a_copy(lambda: repr(settings)) == repr(settings)
