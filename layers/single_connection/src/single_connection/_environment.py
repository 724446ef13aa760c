"""What the environment says of a database, and what is wrong with it; raises nothing."""

import os
import socket
from collections.abc import Mapping
from typing import Any

from ._deadline import LONGEST_INVOCATION

DEFAULT_PORT = 3306
# Time for one KILL over a new connection, and for the handler's answer: a connect takes some 1.4 ms
# of CPU (lab/connect/README.md), so some 20 ms with 128 MB of memory, which is about 1/14 of a
# core; the rest is for the answer, and for a network that is not at its best.
DEFAULT_DEADLINE_MARGIN = 0.5
RDS_ROOTS = os.path.join(os.path.dirname(__file__), "rds_roots")

_SWITCH = {"1": True, "true": True, "0": False, "false": False}
_TEXTS = {
    "host": "DATABASE_HOST",
    "name": "DATABASE_NAME",
    "secret_arn": "DATABASE_SECRET_ARN",
    "user": "DATABASE_USER",
    "password": "DATABASE_PASSWORD",
    "ca_file": "DATABASE_CA_FILE",
}


def values_of(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """What `environ` gives, numbers as numbers where they are some, and what is wrong beyond it."""
    problems: list[str] = []
    given = {name: value for name, value in environ.items() if value}
    values: dict[str, Any] = {field: given.get(name) for field, name in _TEXTS.items()}
    values["host"], values["name"] = values["host"] or "", values["name"] or ""
    port: Any = given.get("DATABASE_PORT", DEFAULT_PORT)
    values["port"] = int(port) if _is_digits(port) and len(port) < 6 else port
    margin: Any = given.get("DATABASE_DEADLINE_MARGIN", DEFAULT_DEADLINE_MARGIN)
    if isinstance(margin, str) and len(margin) < 20 and _is_digits(margin.replace(".", "", 1)):
        margin = float(margin)
    values["deadline_margin"] = margin
    switch = given.get("DATABASE_TAG_STATEMENTS", "0")
    values["tag_statements"] = _SWITCH.get(str(switch).lower(), switch)
    if values["ca_file"] is None and not is_proxy(values["host"]):
        values["ca_file"] = _regional_roots(given.get("AWS_REGION"), problems)
    return values, problems


def problems_of(values: Mapping[str, Any]) -> list[str]:
    """All that is wrong with the values of settings; no value of a secret is in it."""
    problems = [f"{_TEXTS[field]} is missing" for field in ("host", "name") if not values[field]]
    for field, name in _TEXTS.items():
        if (value := values[field]) and not _is_text(value):
            problems.append(f"{name} must be text in UTF-8 without a NUL")
    host, user, password = values["host"], values["user"], values["password"]
    if host and _is_text(host) and not _is_host(host):
        problems.append(
            "DATABASE_HOST must be a name or an address alone, without scheme, port or path, and "
            f"is {_shown(host)}"
        )
    if values["secret_arn"] and (user or password):
        problems.append(
            "DATABASE_SECRET_ARN stands beside DATABASE_USER or DATABASE_PASSWORD: give one"
        )
    elif not values["secret_arn"] and not (user and password):
        problems.append("DATABASE_SECRET_ARN, or DATABASE_USER and DATABASE_PASSWORD, missing")
    port, margin, switch = values["port"], values["deadline_margin"], values["tag_statements"]
    if type(port) is not int or not 0 < port < 65536:
        problems.append(f"DATABASE_PORT must be a number from 1 to 65535, and is {_shown(port)}")
    if type(margin) not in (int, float) or not 0 < margin < LONGEST_INVOCATION:
        problems.append(
            f"DATABASE_DEADLINE_MARGIN must be a number of seconds above 0 and below "
            f"{LONGEST_INVOCATION}, and is {_shown(margin)}"
        )
    if type(switch) is not bool:
        problems.append(f"DATABASE_TAG_STATEMENTS must be 1 or 0, and is {_shown(switch)}")
    ca_file = values["ca_file"]
    if ca_file and _is_text(ca_file) and not os.path.isfile(ca_file):
        problems.append(f"DATABASE_CA_FILE names {_shown(ca_file)}, which is not a file")
    return problems


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()  # os.environ shows a byte that is not UTF-8 as half of a surrogate pair
    except UnicodeEncodeError:
        return False
    return True


def _is_host(host: str) -> bool:
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return False
    if ":" not in host:  # labels of 63, 253 in all (RFC 1035); underscores as in compose files
        labels = host.removesuffix(".").split(".")
        return len(host) < 254 and all(len(one) < 64 and _is_label(one) for one in labels)
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return False
    return True


def _is_label(text: str) -> bool:
    letters = text.replace("-", "").replace("_", "")
    return letters.isalnum() and letters.isascii() and not text.startswith("-")


def _is_digits(text: object) -> bool:
    """ASCII's own: `int` takes underscores, spaces and the digits of every script."""
    return isinstance(text, str) and text.isascii() and text.isdigit()


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except ValueError:  # a number of more than 4,300 digits
        return "too long"
    return shown if len(shown) <= 100 else f"{shown[:97]}…"


def _regional_roots(region: object, problems: list[str]) -> str | None:
    """The RDS roots of `region` that are shipped with the layer (see rds_roots/README.md)."""
    if region is None:
        problems.append("DATABASE_CA_FILE is missing, and AWS_REGION too, which would stand in")
        return None
    if not isinstance(region, str) or len(region) > 40 or not _is_label(region):
        problems.append(f"AWS_REGION must be the name of a region, and is {_shown(region)}")
        return None
    roots = os.path.join(RDS_ROOTS, f"{region}.pem")
    if not os.path.isfile(roots):
        problems.append(
            f"no RDS roots of region {region!r} are shipped: put https://truststore.pki.rds."
            f"amazonaws.com/{region}/{region}-bundle.pem beside your code and name it in "
            "DATABASE_CA_FILE"
        )
        return None
    return roots


def is_proxy(host: object) -> bool:
    """Whether it is an RDS Proxy endpoint, told by its name."""
    return isinstance(host, str) and ".proxy-" in host
