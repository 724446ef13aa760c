"""GetSecretValue: by one signed request where the environment is Lambda's own, else by boto3.

boto3 costs four fifths of a cold start that reads a secret: its import, a client made from JSON,
the certificates of 150 authorities. What it knows and this does not is left to it: credentials from
elsewhere than the environment (containers, SnapStart, profiles), partitions beside AWS's first,
dual-stack and FIPS endpoints, proxies, certificate bundles of one's own.
"""

import contextlib
import json
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ._http import Exchange, UnreachableError, UnreadableError
from ._sigv4 import Keys, authorization

ROOTS = os.path.join(os.path.dirname(__file__), "amazon_roots", "roots.pem")
# The regions whose endpoints end in amazonaws.com, as botocore's partition `aws` has them.
REGIONS = re.compile(r"(us|eu|ap|sa|ca|me|af|il|mx)-\w+-\d+", re.ASCII)
ENDPOINT = re.compile(r"(https?)://([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?/?")
# Each of them changes where or how boto3 asks.
LEFT_TO_BOTO3 = (
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
    *("AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
)
BUNDLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")  # matter where there is TLS
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


class Route:
    """Where and as whom a secret is asked for without boto3."""

    __slots__ = ("host", "keys", "port", "region", "tls")

    def __init__(self, region: str, scheme: str, host: str, port: str | None, keys: Keys) -> None:
        """As an endpoint's URL has it."""
        self.region, self.host, self.keys = region, host, keys
        self.tls = scheme == "https"
        self.port = int(port or (443 if self.tls else 80))

    @property
    def authority(self) -> str:
        """The Host header: the port where it is not the scheme's own."""
        usual = self.port == (443 if self.tls else 80)
        return self.host if usual else f"{self.host}:{self.port}"


def route_of(environ: Mapping[str, str]) -> Route | None:
    """The way to Secrets Manager that `environ` tells of, or None where only boto3 knows it."""
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION", "")
    access_key = environ.get("AWS_ACCESS_KEY_ID")
    secret_key = environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key or not REGIONS.fullmatch(region):
        return None
    if environ.get("AWS_DEFAULT_REGION", region) != region or _configured(environ):
        return None
    url = environ.get("AWS_ENDPOINT_URL_SECRETS_MANAGER") or environ.get("AWS_ENDPOINT_URL")
    found = ENDPOINT.fullmatch(url or f"https://secretsmanager.{region}.amazonaws.com")
    if found is None or int(found[3] or 443) > 65535:
        return None
    if found[1] == "https" and any(environ.get(name) for name in BUNDLES):
        return None
    keys = Keys(access_key, secret_key, environ.get("AWS_SESSION_TOKEN") or None)
    return Route(region, found[1], found[2], found[3], keys)


def _configured(environ: Mapping[str, str]) -> bool:
    if any(environ.get(name, "").lower() not in ("", "false") for name in LEFT_TO_BOTO3):
        return True
    files = environ.get("AWS_CONFIG_FILE") or os.path.expanduser("~/.aws/config")
    return os.path.isfile(files)


def ask(route: Route, secret_id: str, until: float, exchange: Exchange) -> str | None:
    """The secret's text, asked for until it is given, or it is plain that it will not be.

    Raises:
        SecretError: It is not given; says why, and what to check.
        UnreadableError: Something else than an AWS endpoint answers.
    """
    tls = None
    if route.tls:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(ROOTS)
    pause = FIRST_PAUSE
    tries = 0
    while True:
        tries += 1
        try:
            return _once(route, secret_id, tls, exchange)
        except SecretError as failure:
            over = failure.network and tries >= NETWORK_TRIES
            if not failure.passing or over or time.monotonic() + 2 * pause >= until:
                raise
        # Not from `random`, whose state copies of a snapshot share.
        time.sleep(pause * (0.5 + os.urandom(1)[0] / 512))
        pause *= 2


def _once(
    route: Route, secret_id: str, tls: ssl.SSLContext | None, exchange: Exchange
) -> str | None:
    body = json.dumps({"SecretId": secret_id}).encode()
    head = {
        "content-type": "application/x-amz-json-1.1",
        "host": route.authority,
        "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "x-amz-target": "secretsmanager.GetSecretValue",
    }
    if route.keys.token:
        head["x-amz-security-token"] = route.keys.token
    head["authorization"] = authorization(
        route.keys, head, body, region=route.region, service="secretsmanager"
    )
    try:
        status, content = exchange.post(route.host, route.port, tls, head, body)
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
    raise _refusal(said, route.keys)


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
        from botocore.exceptions import ClientError, HTTPClientError  # noqa: PLC0415

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
        except HTTPClientError as error:
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
