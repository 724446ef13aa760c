"""A stand-in for AWS Secrets Manager: one secret, read and written, over HTTP or TLS.

with SecretsManager() as secrets:
    secrets.secret = '{"username": "application", "password": "…"}'
    secrets.environ()    # what a function needs in its environment to ask here

What it gets it keeps, so that a signature can be checked; what it says can be replaced.
"""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from local.certificates import Certificates

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:application-AbCdEf"


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class SecretsManager(http.server.ThreadingHTTPServer):
    """Says `secret`, or the refusals that are in `refusals` first; None is AccessDenied."""

    daemon_threads = True

    def __init__(self, certificates: Certificates | None = None) -> None:
        """Listen on a free port of 127.0.0.1, with TLS where there are certificates for it."""
        super().__init__(("127.0.0.1", 0), _Answer)
        self.secret: str | None = None
        self.refusals: list[tuple[int, dict[str, Any]]] = []
        self.requests: list[Request] = []
        self._tls = certificates is not None
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.certificate_file, certificates.key_file)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def reads(self) -> int:
        """How often it was asked."""
        return len(self.requests)

    def environ(self) -> dict[str, str]:
        """Where it is, and keys it takes."""
        scheme = "https" if self._tls else "http"
        return {
            "DATABASE_SECRET_ARN": ARN,
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"{scheme}://127.0.0.1:{self.server_address[1]}",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "throw-away",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Status and content of the answer to `request`."""
        self.requests.append(request)
        if self.refusals:
            return self.refusals.pop(0)
        if self.secret is None:
            return 400, {"__type": "AccessDeniedException", "Message": "not authorized"}
        if request.headers.get("x-amz-target") == "secretsmanager.PutSecretValue":
            self.secret = str(json.loads(request.body)["SecretString"])
            return 200, {"ARN": ARN, "Name": "application", "VersionStages": ["AWSCURRENT"]}
        return 200, {"ARN": ARN, "Name": "application", "SecretString": self.secret}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up (a killed environment) is none of ours."""

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SecretsManager

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, said = self.server.answer(Request("POST", self.path, headers, body))
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""
