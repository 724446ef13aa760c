"""The way to Secrets Manager as the environment tells it, or none where boto3 alone knows it.

Left to boto3: credentials from elsewhere than the environment or SnapStart's endpoint for them
(containers, profiles), partitions beside AWS's first (China, GovCloud), dual-stack and FIPS
endpoints, proxies, certificate bundles of one's own.
"""

import os
from collections.abc import Mapping

from ._sigv4 import Keys

# The regions whose endpoints end in amazonaws.com, as botocore's partition `aws` has them; those of
# GovCloud and the isolated ones have a fourth part.
CONTINENTS = ("us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx")
# Each of them changes where or how boto3 asks.
LEFT_TO_BOTO3 = (
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
    *("AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
)
BUNDLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")  # matter where there is TLS


class Container:
    """Where SnapStart gives the keys, which are not in the environment: here, for a ticket."""

    __slots__ = ("host", "path", "port", "ticket")

    def __init__(self, host: str, port: int, path: str, ticket: str) -> None:
        """As AWS_CONTAINER_CREDENTIALS_FULL_URI and …_AUTHORIZATION_TOKEN have it."""
        self.host, self.port, self.path, self.ticket = host, port, path, ticket


class Route:
    """Where and as whom a secret is asked for without boto3."""

    __slots__ = ("authority", "host", "keys", "port", "region", "tls")

    def __init__(
        self, region: str, keys: Keys | Container, host: str, port: int, *, tls: bool
    ) -> None:
        """As an endpoint's URL has it."""
        self.region, self.keys, self.host, self.port, self.tls = region, keys, host, port, tls
        # The Host header: the port where it is not the scheme's own.
        self.authority = host if port == (443 if tls else 80) else f"{host}:{port}"


def route_of(environ: Mapping[str, str]) -> Route | None:
    """The way to Secrets Manager that `environ` tells of, or None where only boto3 knows it."""
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION", "")
    if not _is_known(region) or environ.get("AWS_DEFAULT_REGION", region) != region:
        return None
    keys = _keys(environ)
    url = environ.get("AWS_ENDPOINT_URL_SECRETS_MANAGER") or environ.get("AWS_ENDPOINT_URL")
    found = _endpoint(url or f"https://secretsmanager.{region}.amazonaws.com")
    if keys is None or found is None or _configured(environ):
        return None
    host, port, tls = found
    if tls and any(environ.get(name) for name in BUNDLES):
        return None
    return Route(region, keys, host, port, tls=tls)


def _keys(environ: Mapping[str, str]) -> Keys | Container | None:
    """In the order of boto3: the environment's, then the endpoint's that it names."""
    access_key = environ.get("AWS_ACCESS_KEY_ID")
    secret_key = environ.get("AWS_SECRET_ACCESS_KEY")
    if access_key and secret_key:
        return Keys(access_key, secret_key, environ.get("AWS_SESSION_TOKEN") or None)
    ticket = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    uri = environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
    base, slash, path = uri.removeprefix("http://").partition("/")
    found = _endpoint(f"http://{base}")
    plain = f"{ticket}{path}".isascii() and f"{ticket}{path}".isprintable() and " " not in path
    # Anywhere else than here, whom it may be given to is boto3's to judge.
    if not (found and ticket and slash and plain) or found[0] not in ("127.0.0.1", "localhost"):
        return None
    return Container(found[0], found[1], f"/{path}", ticket)


def _is_known(region: str) -> bool:
    continent, _, rest = region.partition("-")
    place, _, number = rest.partition("-")
    plain = region.isascii() and place.isalpha() and number.isdigit()
    return plain and continent in CONTINENTS


def _endpoint(url: str) -> tuple[str, int, bool] | None:
    """Host, port and whether by TLS; None where there is more in it."""
    scheme, _, rest = url.partition("://")
    host, colon, port = rest.removesuffix("/").partition(":")
    if scheme not in ("http", "https") or not host.isascii():
        return None
    if not host.replace("-", "").replace(".", "").isalnum():
        return None
    if not colon:
        return host, 443 if scheme == "https" else 80, scheme == "https"
    if not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536):
        return None
    return host, int(port), scheme == "https"


def _configured(environ: Mapping[str, str]) -> bool:
    if any(environ.get(name, "").lower() not in ("", "false") for name in LEFT_TO_BOTO3):
        return True
    files = environ.get("AWS_CONFIG_FILE") or os.path.expanduser("~/.aws/config")
    return os.path.isfile(files)
