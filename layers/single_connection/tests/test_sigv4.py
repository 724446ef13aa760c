"""A request is signed as AWS publishes it, and as botocore does."""

from datetime import UTC, datetime
from unittest import mock

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from single_connection._sigv4 import Keys, authorization

# From AWS's Signature Version 4 test suite: those to `/` without a query.
SUITE = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)
START = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfI"
    "eoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0"
    "wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypN"
    "C9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
PUBLISHED = {
    "get-vanilla": (
        "GET",
        {},
        b"",
        "host;x-amz-date",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    "get-header-value-trim": (
        "GET",
        {"my-header1": " value1", "my-header2": ' "a   b   c"'},
        b"",
        "host;my-header1;my-header2;x-amz-date",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    "post-vanilla": (
        "POST",
        {},
        b"",
        "host;x-amz-date",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    "post-x-www-form-urlencoded": (
        "POST",
        {"content-type": "application/x-www-form-urlencoded"},
        b"Param1=value1",
        "content-type;host;x-amz-date",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
    "post-sts-header-before": (
        "POST",
        {"x-amz-security-token": TOKEN},
        b"",
        "host;x-amz-date;x-amz-security-token",
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_signature_is_the_published_one(name: str) -> None:
    method, headers, body, signed, signature = PUBLISHED[name]
    given = START | headers
    assert authorization(
        SUITE, given, body, region="us-east-1", service="service", method=method
    ) == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={signed}, Signature={signature}"
    )


printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80)


@given(
    access_key=printable,
    secret_key=printable,
    token=st.none() | printable,
    region=st.sampled_from(["eu-west-1", "us-east-1", "ap-southeast-4"]),
    port=st.none() | st.integers(1024, 65535),
    secret_id=st.text(max_size=100),
    moment=st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1)),  # noqa: DTZ001
)
def test_a_signature_is_botocores(
    access_key: str,
    secret_key: str,
    token: str | None,
    region: str,
    port: int | None,
    secret_id: str,
    moment: datetime,
) -> None:
    host = f"secretsmanager.{region}.amazonaws.com" + (f":{port}" if port else "")
    body = repr({"SecretId": secret_id}).encode()
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": "secretsmanager.GetSecretValue",
    }
    theirs = AWSRequest("POST", f"https://{host}/", headers=dict(headers), data=body)
    now = moment.replace(tzinfo=UTC)
    with mock.patch("botocore.auth.get_current_datetime", return_value=now):
        signer = botocore.auth.SigV4Auth(
            Credentials(access_key, secret_key, token), "secretsmanager", region
        )
        signer.add_auth(theirs)
    ours = headers | {"host": host, "x-amz-date": moment.strftime("%Y%m%dT%H%M%SZ")}
    if token:
        ours["x-amz-security-token"] = token
    keys = Keys(access_key, secret_key, token)
    assert theirs.headers["X-Amz-Date"] == ours["x-amz-date"]
    assert theirs.headers["Authorization"] == authorization(
        keys, ours, body, region=region, service="secretsmanager"
    )


def test_keys_show_in_no_repr() -> None:
    keys = Keys("AKIDEXAMPLE", "hidden-word", "hidden-token")
    assert "hidden" not in f"{keys!r} {keys}"
