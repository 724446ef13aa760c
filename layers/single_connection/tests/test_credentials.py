"""A rotation causes no failed invocation, and the password shows nowhere."""

import copy
import json
import logging
import pickle
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from single_connection import CredentialsError, Database, Settings
from single_connection import _driver as driver
from single_connection._tls import ResumingContext
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import World, body, function
from local.secrets_manager import SecretsManager


@pytest.fixture
def secrets() -> Iterator[SecretsManager]:
    with SecretsManager() as server:
        yield server


def environ(world: World, secrets: SecretsManager) -> dict[str, str]:
    return world.environ(user="", password="") | secrets.environ()


def pair(password: str) -> str:
    return json.dumps({"username": "application", "password": password})


def password(world: World) -> str:
    return world.environ()["DATABASE_PASSWORD"]


def change(world: World, new: str, how: str = "") -> None:
    # Two per cent signs, because there are arguments.
    world.server.execute(f"ALTER USER 'application'@'%%' IDENTIFIED BY %s{how}", new)


@pytest.fixture
def in_process(world: World, secrets: SecretsManager, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database whose secret is read in this process."""
    for name, value in environ(world, secrets).items():
        monkeypatch.setenv(name, value)
    secrets.secret = pair(password(world))
    return Database.from_environment()


def ping(database: Database, seconds: float = 6.0) -> None:
    database.invocation(lambda _e, _c: database.connection().ping())({}, LambdaContext(seconds))


def test_a_rotation_causes_no_failed_invocation(world: World, secrets: SecretsManager) -> None:
    """The server takes the new password first; the secret says so a moment later, as in AWS."""
    secrets.secret = pair(password(world))
    with function("rotation", environ(world, secrets), timeout=10.0) as rotated:
        body(rotated.invoke())
        for turn in range(3):
            new = f"rotated-{turn}"
            change(world, new)
            publish = threading.Timer(0.3, setattr, (secrets, "secret", pair(new)))
            publish.start()
            for _ in range(4):
                body(rotated.invoke())
            publish.join()
        assert world.sessions() == []
        before = secrets.reads
        body(rotated.invoke())
        assert secrets.reads == before, "what was read stays warm"


def test_dual_passwords_close_the_window_altogether(world: World, secrets: SecretsManager) -> None:
    if world.flavor != "mysql":
        pytest.skip("MariaDB has no dual passwords: this is MySQL's")
    secrets.secret = pair(password(world))
    with function("rotation", environ(world, secrets), timeout=10.0) as rotated:
        body(rotated.invoke())
        reads = secrets.reads
        change(world, "the-next", " RETAIN CURRENT PASSWORD")
        body(rotated.invoke())
        assert secrets.reads == reads, "the old one is still good"
        secrets.secret = pair("the-next")
        world.server.execute("ALTER USER 'application'@'%' DISCARD OLD PASSWORD")
        body(rotated.invoke())
        assert secrets.reads == reads + 1


def test_a_secret_is_read_without_boto3_where_the_environment_is_lambdas_own(
    world: World, secrets: SecretsManager
) -> None:
    secrets.secret = pair(password(world))
    with function("rotation", environ(world, secrets), timeout=10.0) as secret:
        assert body(secret.invoke()) == {"boto_at_import": False, "boto": False}


def test_boto3_is_imported_where_it_alone_knows_the_credentials(
    world: World, secrets: SecretsManager, tmp_path: Path
) -> None:
    """A profile stands for all of them: a container's, SnapStart's, an assumed role's."""
    secrets.secret = pair(password(world))
    profile = tmp_path / "credentials"
    profile.write_text("[shop]\naws_access_key_id = a\naws_secret_access_key = b\n")
    told = environ(world, secrets) | {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_PROFILE": "shop",
        "AWS_SHARED_CREDENTIALS_FILE": str(profile),
    }
    with function("rotation", told, timeout=10.0) as secret:
        assert body(secret.invoke()) == {"boto_at_import": False, "boto": True}


def test_a_secret_that_stays_wrong_is_a_clear_error_within_the_time(
    in_process: Database, secrets: SecretsManager
) -> None:
    secrets.secret = pair("not-the-password")
    began = time.monotonic()
    with pytest.raises(CredentialsError, match="1045"):
        ping(in_process, 3.0)
    assert time.monotonic() - began < 3.0
    assert 2 < secrets.reads < 20


def test_a_right_that_is_missing_is_not_a_rotation(
    world: World, in_process: Database, secrets: SecretsManager
) -> None:
    world.server.execute("REVOKE ALL ON shop.* FROM 'application'@'%'")
    with pytest.raises(CredentialsError, match="1044"):
        ping(in_process)
    assert secrets.reads == 1


def test_a_secret_that_cannot_be_read_says_what_to_check(
    in_process: Database, secrets: SecretsManager
) -> None:
    secrets.secret = None
    with pytest.raises(CredentialsError, match="secretsmanager:GetSecretValue"):
        ping(in_process)
    assert secrets.reads == 1


def test_a_store_that_is_silent_is_said_in_time_to_answer(
    in_process: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
        began = time.monotonic()
        with pytest.raises(CredentialsError, match="VPC's endpoint for Secrets Manager") as caught:
            ping(in_process, 2.5)
        assert time.monotonic() - began < 2.0, "the margin is the handler's, to answer in"
        assert "throw-away" not in everything(caught.value)


@pytest.mark.parametrize("secret", ["hidden-word", '{"user": "hidden-word"}', '["hidden-word"]'])
def test_a_secret_that_is_not_a_pair_says_so_and_not_what_it_is(
    in_process: Database, secrets: SecretsManager, secret: str
) -> None:
    secrets.secret = secret
    with pytest.raises(CredentialsError, match="'username' and 'password'") as caught:
        ping(in_process)
    assert "hidden-word" not in everything(caught.value)


def test_a_password_of_any_characters_is_good(world: World) -> None:
    change(world, "pässwörd € ' \\ 密码")
    ping(world.database(password="pässwörd € ' \\ 密码"))


def everything(error: BaseException | None) -> str:
    """All that a log, a debugger or an error tracker could show of it, local variables too."""
    shown = ""
    while error is not None:
        trace = traceback.TracebackException.from_exception(error, capture_locals=True)
        frames = [frame for frame in trace.stack if "/tests/" not in frame.filename]
        shown += "".join(f"{frame.filename} {frame.name} {frame.locals}\n" for frame in frames)
        shown += repr(error) + str(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return shown


def _no_thread(*_: Any) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("wrong", ["password", "database", "server", "time", "no thread"])
def test_the_password_shows_in_no_error_and_none_of_its_frames(
    world: World, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = password(world)
    if wrong == "password":
        secret = "hidden-word"
        database = world.database(password=secret)
    elif wrong == "database":
        database = world.database(name="no_such")
    elif wrong == "server":
        database = world.database(port=1)
    else:
        database = world.database()
    if wrong == "no thread":  # what fails while the driver authenticates has its frames
        monkeypatch.setattr("_thread.start_new_thread", _no_thread)
    # As while the server's cache of caching_sha2_password is cold: the password goes over TLS.
    world.server.execute("FLUSH PRIVILEGES")
    with pytest.raises(Exception) as caught:  # noqa: PT011
        if wrong == "time":
            database.invocation(lambda _e, _c: database.connection().query("SELECT SLEEP(9)"))(
                {}, LambdaContext(1.2)
            )
        else:
            ping(database, 2.0)
    shown = everything(caught.value)
    assert "database.py" in shown, "else nothing is proven"
    assert secret not in shown


def test_the_password_shows_in_no_repr_and_no_message(world: World) -> None:
    database = world.database()
    secret = password(world)
    shown = [repr(database), repr(database.settings), repr(vars(database)), str(database.settings)]
    tls = ResumingContext(str(world.server.ca_file))
    where: dict[str, Any] = {"host": "127.0.0.1", "port": 3306, "addresses": ("127.0.0.1",)}
    target = driver.Target(**where, name="shop", user="application", password=secret, tls=tls)
    shown.append(repr(target))
    assert "'application' at 127.0.0.1:3306" in shown[-1]

    def work() -> None:
        connection = database.connection()
        shown.append(repr(connection) + repr(vars(connection)))
        shown.append(repr(database._connector) + repr(vars(database._connector)))

    database.invocation(lambda _e, _c: work())({}, LambdaContext())
    assert secret not in "".join(shown)


def test_settings_can_be_copied_and_pickled_and_compared(world: World) -> None:
    settings = world.database().settings
    assert copy.copy(settings) == pickle.loads(pickle.dumps(settings)) == settings
    assert isinstance(settings, Settings)


def test_the_password_shows_in_no_log_however_talkative(
    world: World, secrets: SecretsManager, in_process: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """AWS_LAMBDA_LOG_LEVEL=DEBUG makes botocore log what it reads, secrets and all."""
    from aws_lambda_powertools import Logger

    logger = Logger(level="DEBUG", service="talkative")
    with caplog.at_level(logging.DEBUG):
        ping(in_process)
        change(world, "after-the-rotation")
        secrets.secret = pair("after-the-rotation")
        ping(in_process)
    logger.debug("done")
    assert password(world) not in caplog.text
    assert "after-the-rotation" not in caplog.text
