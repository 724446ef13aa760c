"""What a function must be told to find its database; no server here."""

import copy
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from single_connection import Database, Settings, SettingsError
from single_connection.testing import LambdaContext

COMPLETE = {
    "DATABASE_HOST": "db.example.com",
    "DATABASE_NAME": "shop",
    "DATABASE_USER": "application",
    "DATABASE_PASSWORD": "hidden-word",
    "AWS_REGION": "eu-west-1",
}


def test_the_regions_roots_are_trusted_by_default() -> None:
    settings = Settings.from_environment(COMPLETE)
    assert settings.ca_file is not None
    assert Path(settings.ca_file).name == "eu-west-1.pem"
    assert "BEGIN CERTIFICATE" in Path(settings.ca_file).read_text()
    assert (settings.port, settings.through_proxy) == (3306, False)


def test_through_rds_proxy_the_systems_roots_are_trusted() -> None:
    host = "shop.proxy-abcdefghijkl.eu-west-1.rds.amazonaws.com"
    settings = Settings.from_environment(COMPLETE | {"DATABASE_HOST": host, "AWS_REGION": ""})
    assert settings.through_proxy
    assert settings.ca_file is None


@pytest.mark.parametrize("region", ["", "mars-north-1"])
def test_a_region_without_roots_says_what_to_do(region: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_CA_FILE"):
        Settings.from_environment(COMPLETE | {"AWS_REGION": region})


def test_a_secret_beside_a_password_is_refused() -> None:
    with pytest.raises(SettingsError, match="give one") as caught:
        Settings.from_environment(COMPLETE | {"DATABASE_SECRET_ARN": "arn:of:one"})
    assert "hidden-word" not in str(caught.value)


def test_every_problem_is_named_at_once_and_an_empty_variable_counts_as_missing() -> None:
    environ = COMPLETE | {"DATABASE_HOST": "", "DATABASE_PORT": "x", "DATABASE_USER": ""}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environ)
    for name in ("DATABASE_HOST", "DATABASE_PORT", "DATABASE_USER"):
        assert name in str(caught.value)


def test_settings_are_frozen_and_hide_the_password() -> None:
    settings = Settings.from_environment(COMPLETE)
    with pytest.raises(AttributeError):
        settings.host = "elsewhere"
    assert "hidden-word" not in repr(settings)


NINES = "9" * 5000
WRONG: list[tuple[str, Any]] = [
    *[
        ("DATABASE_PORT", v)
        for v in ("99999", "0", "-1", "abc", "3.5", "1_0", " 1", NINES, "٣", "³")
    ],
    *[
        ("DATABASE_DEADLINE_MARGIN", value)
        for value in ("nan", "inf", "-1", "0", "900", "1_0", "1e400", "abc", "٣", NINES, "0x1")
    ],
    *[
        ("DATABASE_HOST", value)
        for value in (
            *(
                "h" * 300,
                "a" * 64 + ".example.com",
                "a..b",
                ".a",
                "a b",
                "a\n",
                "mysql://db/",
                "db:1",
            ),
            *("user@db", "db/shop", "ü" * 64, "::g", "-db", "a\0b", "\udcff"),
        )
    ],
    ("DATABASE_NAME", "a\0b"),
    ("DATABASE_NAME", "\udcff"),
    ("DATABASE_USER", "\udcff"),
    ("DATABASE_PASSWORD", "hidden-word\udcff"),
    ("DATABASE_PASSWORD", "hidden-word\0"),
    ("DATABASE_PASSWORD", b"hidden-word"),
    ("DATABASE_HOST", b"db"),
    ("DATABASE_PORT", b"3306"),
    ("DATABASE_CA_FILE", "-----BEGIN CERTIFICATE-----\nMIID\n" * 50),
    ("DATABASE_CA_FILE", "x" * 300),
    ("DATABASE_CA_FILE", "a\0b"),
    ("DATABASE_CA_FILE", b"/dev/null"),
    ("DATABASE_CA_FILE", "/"),
    ("DATABASE_TAG_STATEMENTS", "perhaps"),
    ("AWS_REGION", "../../../etc/passwd"),
    ("AWS_REGION", "x" * 300),
    ("AWS_REGION", "eu-west-1\n"),
    ("AWS_REGION", b"eu-west-1"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_whatever_is_wrong_is_a_settings_error_that_names_it_and_hides_the_rest(
    name: str, value: Any
) -> None:
    environ = COMPLETE | {"AWS_SECRET_ACCESS_KEY": "hidden-key", name: value}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environ)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 400
    nothing_hidden(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        *[{"port": port} for port in (0, 65536, 10**50, "3306", True, 1.0, None)],
        *[
            {"deadline_margin": margin}
            for margin in (float("nan"), float("inf"), 0, "1", True, None)
        ],
        *[{"host": host} for host in ("", None, b"db", 7)],
        *[{"user": user} for user in ("", None, b"application")],
        {"tag_statements": "yes"},
        {"ca_file": 7},
        {"secret_arn": "arn:of:one"},
    ],
)
def test_settings_by_hand_are_checked_and_hide_the_password_too(changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {
        "host": "db",
        "name": "shop",
        "user": "application",
        "password": "hidden-word",
    }
    with pytest.raises(SettingsError) as caught:
        Settings(**given | changes)
    nothing_hidden(caught.value)


def test_a_number_that_python_does_not_write_out_is_said_to_be_too_long() -> None:
    with pytest.raises(SettingsError, match="from 1 to 65535, and is too long"):
        Settings(host="db", name="shop", user="application", password="p", port=10**5000)


def nothing_hidden(error: BaseException) -> None:
    """As an error tracker would show it: the frames with their local variables, but for ours."""
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in trace.stack if "/tests/" not in frame.filename]
    assert frames
    assert "hidden" not in f"{error!r}" + "".join(f"{frame.locals}" for frame in frames)


@pytest.mark.parametrize(
    "host", ["db", "db.example.com.", "10.0.0.1", "::1", "fe80::1%eth0", "my_db", "localhost"]
)
def test_a_name_or_an_address_is_a_host(host: str) -> None:
    assert Settings.from_environment(COMPLETE | {"DATABASE_HOST": host}).host == host


def test_settings_are_copied_and_compared_by_value() -> None:
    settings = Settings.from_environment(COMPLETE | {"DATABASE_DEADLINE_MARGIN": ".25"})
    again = pickle.loads(pickle.dumps(settings))
    assert settings == again == copy.deepcopy(settings) == copy.copy(settings)
    assert hash(settings) == hash(again)
    assert settings.deadline_margin == 0.25
    other = settings.__replace__(port=3307)
    assert (other.port, settings.port) == (3307, 3306)
    assert settings not in (other, "settings")
    with pytest.raises(AttributeError):
        del settings.host


@pytest.mark.parametrize("wrong", [{"DATABASE_NAME": ""}, {"DATABASE_CA_FILE": __file__}])
def test_an_invocation_that_ends_in_a_settings_error_shows_nothing_of_the_environment(
    wrong: dict[str, str],
) -> None:
    environ = COMPLETE | {"AWS_SECRET_ACCESS_KEY": "hidden-key"} | wrong
    database = Database.from_environment(environ)
    for _ in range(2):
        with pytest.raises(SettingsError) as caught:
            database.invocation(lambda _e, _c: database.connection())({}, LambdaContext(2.0))
        nothing_hidden(caught.value)
