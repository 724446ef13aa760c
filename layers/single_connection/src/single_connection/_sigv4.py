"""AWS Signature Version 4, as far as a request to `/` without a query needs it.

Forty lines instead of botocore, whose import alone is most of a cold start. Held against botocore's
own signer and against the vectors that AWS publishes (tests/test_sigv4.py).
"""

import hashlib
import hmac
from collections.abc import Mapping

ALGORITHM = "AWS4-HMAC-SHA256"


class Keys:
    """Whose signature it is; shows nothing of itself in a log, a traceback or a debugger."""

    __slots__ = ("access_key", "secret_key", "token")

    def __init__(self, access_key: str, secret_key: str, token: str | None) -> None:
        """`token` is None for keys that last."""
        self.access_key = access_key
        self.secret_key = secret_key
        self.token = token


def authorization(
    keys: Keys,
    headers: Mapping[str, str],
    body: bytes,
    *,
    region: str,
    service: str,
    method: str = "POST",
) -> str:
    """The value of the Authorization header for a request to `/`.

    Args:
        keys: Whose signature it is.
        headers: All that are sent, and signed, with small names; `host` and `x-amz-date` (basic
            ISO 8601, UTC) among them, and `x-amz-security-token` where the keys have one.
        body: As it is sent.
        region: As in the endpoint's name, `eu-west-1`.
        service: As in the endpoint's name, `secretsmanager`.
        method: HTTP's.
    """
    moment = headers["x-amz-date"]
    names = sorted(headers)
    lines = [f"{name}:{' '.join(headers[name].split())}\n" for name in names]
    signed = ";".join(names)
    request = "\n".join([method, "/", "", "".join(lines), signed, hashlib.sha256(body).hexdigest()])
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    said = "\n".join([ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = b"AWS4" + keys.secret_key.encode()
    for part in (*scope.split("/"), said):
        key = hmac.digest(key, part.encode(), "sha256")
    return (
        f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={signed}, "
        f"Signature={key.hex()}"
    )
