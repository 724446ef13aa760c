"""GetSecretValue: by one signed request where the environment is Lambda's own, else by boto3.

boto3 costs four fifths of a cold start that reads a secret: its import, a client made from JSON,
the certificates of 118 authorities. What it alone knows is left to it (see `_route`).
"""

import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from typing import Any

from ._clock import clock
from ._http import Exchange, UnreachableError, UnreadableError
from ._route import Container, Route
from ._sigv4 import Keys, authorization

ROOTS = os.path.join(os.path.dirname(__file__), "amazon_roots", "roots.pem")
# Seconds before the second try, doubled for each one after, and never beyond the time there is.
FIRST_PAUSE = 0.05
NETWORK_TRIES = 4
# What asking again may mend (Secrets Manager API Reference, "Common Errors"), beside any 5xx.
PASSING = ("ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded")
CHECK = (
    "check DATABASE_SECRET_ARN, the function's permission secretsmanager:GetSecretValue, and the "
    "VPC's endpoint for Secrets Manager"
)
CHECKS = {
    "AccessDeniedException": "check that the function's role may secretsmanager:GetSecretValue on "
    "it (and kms:Decrypt with its key), and what the endpoint's and the secret's own policies say",
    "ResourceNotFoundException": "check DATABASE_SECRET_ARN: no secret of that name in this region "
    "and account has a current version",
    "DecryptionFailure": "check that the KMS key it is encrypted with is enabled, and that the "
    "function's role may kms:Decrypt with it",
    "InvalidRequestException": "check whether it is marked for deletion",
    "network": "check the VPC's endpoint for Secrets Manager: that it is there, with private DNS, "
    "and that its security group lets the function's in on port 443",
}


class SecretError(Exception):
    """Why a secret was not given, and what to check; `passing` where asking again may help."""

    def __init__(self, why: str, kind: str = "", *, passing: bool = False) -> None:
        """`kind` is a key of CHECKS."""
        super().__init__(f"({why}): {CHECKS.get(kind, CHECK)}")
        self.passing = passing
        self.network = kind == "network"


def ask(route: Route, secret_id: str, exchange: Exchange) -> str | None:
    """The secret's text, asked for until it is given, or it is plain that it will not be.

    Raises:
        SecretError: It is not given; says why, and what to check.
        UnreadableError: Something else than an AWS endpoint answers.
    """
    tls = None
    if route.tls:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(ROOTS)
    keys = route.keys if isinstance(route.keys, Keys) else _fetched(route.keys, exchange)
    pause = FIRST_PAUSE
    tries = 0
    while True:
        tries += 1
        try:
            return _once(route, keys, secret_id, tls, exchange)
        except SecretError as failure:
            over = failure.network and tries >= NETWORK_TRIES
            if not failure.passing or over or clock.now() + 2 * pause >= exchange.until:
                raise
        # Not from `random`, whose state copies of a snapshot share.
        time.sleep(pause * (0.5 + os.urandom(1)[0] / 512))
        pause *= 2


def _fetched(container: Container, exchange: Exchange) -> Keys:
    """SnapStart's keys, fetched anew each time: they are never in a snapshot.

    Raises:
        UnreadableError: Something else is there.
    """
    import json  # noqa: PLC0415 - as below

    host, port = container.host, container.port
    head = {"host": f"{host}:{port}", "authorization": container.ticket}
    try:
        status, content = exchange.send(f"GET {container.path}", host, port, head=head)
        given = json.loads(content) if status == 200 else {}
        return Keys(given["AccessKeyId"], given["SecretAccessKey"], given["Token"])
    except (UnreachableError, ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"keys: {type(error).__name__}") from None


def _once(
    route: Route, keys: Keys, secret_id: str, tls: ssl.SSLContext | None, exchange: Exchange
) -> str | None:
    import json  # noqa: PLC0415 - Lambda's runtime has it; where no secret is read nobody needs it

    body = json.dumps({"SecretId": secret_id}).encode()
    head = {
        "content-type": "application/x-amz-json-1.1",
        "host": route.authority,
        "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "x-amz-target": "secretsmanager.GetSecretValue",
    }
    if keys.token:
        head["x-amz-security-token"] = keys.token
    head["authorization"] = authorization(
        keys, head, body, region=route.region, service="secretsmanager"
    )
    try:
        status, content = exchange.send(
            "POST /", route.host, route.port, head=head, body=body, tls=tls
        )
    except UnreachableError as error:
        raise SecretError(str(error), "network", passing=True) from None
    try:
        said = json.loads(content)
    except ValueError:
        said = None
    if status == 200 and isinstance(said, dict):
        text = said.get("SecretString")
        return text if isinstance(text, str) else None
    if status >= 500:
        raise SecretError(f"status {status}", passing=True)
    if not isinstance(said, dict) or "__type" not in said:
        raise UnreadableError(f"status {status}, and no reason that an AWS service would give")
    raise _refusal(said, keys)


def _refusal(said: dict[str, Any], keys: Keys | None) -> SecretError:
    """What the service answers instead: its name for it, and its words where they hide nothing.

    It quotes the request, token and all, where it takes a signature for wrong.
    """
    kind = str(said["__type"]).rpartition("#")[2][:80]
    words = str(said.get("message") or said.get("Message") or "")[:300]
    if keys is not None and any(
        secret and secret[:16] in words for secret in (keys.secret_key, keys.token)
    ):
        words = ""
    why = f"{kind}, {words.rstrip('.')}" if words and "Signature" not in kind else kind
    return SecretError(why, kind, passing=kind in PASSING)


def ask_by_boto3(secret_id: str, within: float) -> str | None:
    """The secret's text by boto3, with a client that is not kept.

    Raises:
        SecretError: It is not given; says why, and what to check.
    """
    with _unlogged():
        import boto3  # noqa: PLC0415 - most of a cold start, and needed for this alone
        from botocore.client import Config  # noqa: PLC0415
        from botocore.exceptions import (  # noqa: PLC0415
            ClientError,
            ConnectTimeoutError,
            EndpointConnectionError,
            HTTPClientError,
        )

        wait = max(0.5, within / 2)
        config = Config(
            connect_timeout=wait, read_timeout=wait, retries={"mode": "standard", "max_attempts": 2}
        )
        try:
            # Not boto3's own session, which would keep credentials, in a snapshot too.
            client = boto3.session.Session().client("secretsmanager", config=config)
            with contextlib.closing(client):
                text = client.get_secret_value(SecretId=secret_id).get("SecretString")
        except ClientError as error:
            told = error.response["Error"]
            raise _refusal({"__type": told["Code"], "message": told["Message"]}, None) from None
        except (EndpointConnectionError, ConnectTimeoutError, HTTPClientError) as error:
            raise SecretError(type(error).__name__, "network") from None
        except Exception as error:  # noqa: BLE001 - no credentials, no region, a wrong profile…
            raise SecretError(type(error).__name__) from None
    return text if isinstance(text, str) else None


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """At DEBUG, which is a setting of the function away, botocore logs secrets and tokens."""
    import logging  # noqa: PLC0415 - with boto3 alone, and 3 ms at each cold start

    logger = logging.getLogger("botocore")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
