"""The way to Secrets Manager as the environment tells it, or none where boto3 alone knows it.

Left to boto3: credentials from elsewhere than the environment (containers, SnapStart, profiles),
partitions beside AWS's first (China, GovCloud), dual-stack and FIPS endpoints, proxies, certificate
bundles of one's own.
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


class Route:
    """Where and as whom a secret is asked for without boto3."""

    __slots__ = ("authority", "host", "keys", "port", "region", "tls")

    def __init__(self, region: str, keys: Keys, host: str, port: int, *, tls: bool) -> None:
        """As an endpoint's URL has it."""
        self.region, self.keys, self.host, self.port, self.tls = region, keys, host, port, tls
        # The Host header: the port where it is not the scheme's own.
        self.authority = host if port == (443 if tls else 80) else f"{host}:{port}"


def route_of(environ: Mapping[str, str]) -> Route | None:
    """The way to Secrets Manager that `environ` tells of, or None where only boto3 knows it."""
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION", "")
    access_key = environ.get("AWS_ACCESS_KEY_ID")
    secret_key = environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key or not _is_known(region):
        return None
    if environ.get("AWS_DEFAULT_REGION", region) != region or _configured(environ):
        return None
    url = environ.get("AWS_ENDPOINT_URL_SECRETS_MANAGER") or environ.get("AWS_ENDPOINT_URL")
    found = _endpoint(url or f"https://secretsmanager.{region}.amazonaws.com")
    if found is None:
        return None
    host, port, tls = found
    if tls and any(environ.get(name) for name in BUNDLES):
        return None
    keys = Keys(access_key, secret_key, environ.get("AWS_SESSION_TOKEN") or None)
    return Route(region, keys, host, port, tls=tls)


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
