"""What a function must be told to find its database; no server here."""

from pathlib import Path

import pytest
from single_connection import Settings, SettingsError

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
        settings.host = "elsewhere"  # type: ignore[misc]
    assert "hidden-word" not in repr(settings)
