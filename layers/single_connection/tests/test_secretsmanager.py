"""A secret is read, or it is said in time why not and what to check; no database here."""

import _thread
import contextlib
import gc
import hashlib
import json
import logging
import os
import re
import signal
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from single_connection import CredentialsError, Settings, _credentials, _reading, _secretsmanager
from single_connection._credentials import Credentials
from single_connection._guard import Guard
from single_connection._http import Exchange, UnreachableError, UnreadableError
from single_connection._route import BUNDLES, LEFT_TO_BOTO3, route_of
from single_connection._secretsmanager import ROOTS
from single_connection.testing import unguarded

from layers.single_connection.tests.conftest import untraced
from local.certificates import write_certificates
from local.secrets_manager import ARN, SecretsManager

PAIR = json.dumps({"username": "application", "password": "hidden-password"})
HIDDEN = ("hidden-key", "hidden-token", "hidden-password")
KEYS = {
    "AWS_SECRET_ACCESS_KEY": "hidden-key-of-some-length",
    "AWS_SESSION_TOKEN": "hidden-token-of-it",
}


@pytest.fixture(autouse=True)
def lambdas_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LEFT_TO_BOTO3, *BUNDLES, "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretsManager]:
    with SecretsManager() as server:
        server.secret = PAIR
        for name, value in (server.environ() | KEYS).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def credentials() -> Credentials:
    return Credentials(Settings(host="db", name="shop", secret_arn=ARN))


@pytest.fixture
def no_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)


def endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_REGION": "us-east-1", **KEYS}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def refused(credentials: Credentials, within: float = 2.0) -> str:
    """What the error says; it comes in time, and nothing hidden is anywhere in it."""
    began = time.monotonic()
    with pytest.raises(CredentialsError) as caught:
        credentials.read(within=within)
    assert time.monotonic() - began < within
    nothing_hidden(caught.value)
    return str(caught.value)


def nothing_hidden(error: BaseException | None) -> None:
    """As an error tracker would show it, local variables too."""
    while error is not None:
        trace = traceback.TracebackException.from_exception(error, capture_locals=True)
        frames = [f"{frame.name} {frame.locals}" for frame in trace.stack]
        shown = "".join(frames[1:]) + repr(error) + str(error) + repr(vars(error))
        assert not [word for word in HIDDEN if word in shown]
        error = error.__cause__ or error.__context__


# What is read, and how often


def test_a_secret_is_read_once_and_kept_until_it_is_asked_for_again(
    secrets: SecretsManager, credentials: Credentials, no_boto3: None
) -> None:
    for _ in range(3):
        assert credentials.read() == ("application", "hidden-password")
    assert secrets.reads == 1
    secrets.secret = PAIR.replace("hidden", "new")
    assert credentials.read(again=True) == ("application", "new-password")
    assert credentials.read() == ("application", "new-password")
    assert secrets.reads == 2


def test_a_secret_is_read_again_when_it_is_old(
    secrets: SecretsManager, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_credentials, "SECRET_MAX_AGE", 0.05)
    credentials.read()
    time.sleep(0.06)
    credentials.read()
    assert secrets.reads == 2


def test_the_request_that_arrives_is_signed_as_botocore_signs_it(
    secrets: SecretsManager, credentials: Credentials, no_boto3: None
) -> None:
    credentials.read()
    (asked,) = secrets.requests
    assert json.loads(asked.body) == {"SecretId": ARN}
    assert asked.headers["x-amz-target"] == "secretsmanager.GetSecretValue"
    moment = asked.headers["x-amz-date"]
    then = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - then) < timedelta(seconds=5)
    signed = re.findall("SignedHeaders=([^,]+)", asked.headers["authorization"])[0].split(";")
    sent = {name: asked.headers[name] for name in signed if not name.startswith("x-amz-s")}
    theirs = AWSRequest("POST", f"http://{asked.headers['host']}/", headers=sent, data=asked.body)
    theirs.context["timestamp"] = moment
    keys = botocore.session.get_session().get_credentials()
    assert keys is not None
    signer = SigV4Auth(keys, "secretsmanager", "us-east-1")
    theirs.headers["X-Amz-Security-Token"] = KEYS["AWS_SESSION_TOKEN"]
    said = signer.string_to_sign(theirs, signer.canonical_request(theirs))
    assert asked.headers["authorization"].endswith("=" + signer.signature(said, theirs))


# What is refused


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("AccessDeniedException", "secretsmanager:GetSecretValue"),
        ("ResourceNotFoundException", "no secret of that name in this region"),
        ("DecryptionFailure", "kms:Decrypt"),
        ("InvalidRequestException", "marked for deletion"),
        ("UnrecognizedClientException", "DATABASE_SECRET_ARN"),
        ("com.amazonaws.secretsmanager#AccessDeniedException", "secretsmanager:GetSecretValue"),
    ],
)
@pytest.mark.parametrize("boto3", [False, True])
def test_a_refusal_says_whose_it_is_and_what_to_check(
    secrets: SecretsManager,
    credentials: Credentials,
    kind: str,
    check: str,
    boto3: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if boto3:
        monkeypatch.setattr(_reading, "route_of", lambda _environ: None)
    secrets.refusals = [(400, {"__type": kind, "Message": "User x is not authorized."})]
    said = refused(credentials, 5.0)
    assert kind.rpartition("#")[2] in said
    assert "User x is not authorized" in said
    assert ARN in said
    assert check in said
    assert secrets.reads == 1


def test_a_service_that_quotes_the_request_is_not_quoted(
    secrets: SecretsManager, credentials: Credentials, no_boto3: None
) -> None:
    quoted = "The Canonical String should have been x-amz-security-token:hidden-token-of-it"
    secrets.refusals = [
        (403, {"__type": "InvalidSignatureException", "message": quoted}),
        (400, {"__type": "AccessDeniedException", "message": quoted}),
    ]
    assert "InvalidSignatureException" in refused(credentials)
    assert "Canonical" not in refused(credentials)


@pytest.mark.parametrize(
    "secret",
    [
        "hidden-word",
        '{"user": "hidden-word"}',
        '{"username": "", "password": "hidden-word"}',
        '{"username": "hidden-word", "password": "\\ud800"}',
        "[" * 100_000,
    ],
)
def test_a_secret_that_is_no_pair_says_so_and_not_what_it_is(
    secrets: SecretsManager, credentials: Credentials, secret: str
) -> None:
    secrets.secret = secret
    said = refused(credentials)
    assert "'username' and 'password'" in said
    assert "hidden-word" not in said


# What may pass


@pytest.mark.parametrize(
    "refusal",
    [
        (400, {"__type": "ThrottlingException", "Message": "Rate exceeded"}),
        (500, {"__type": "InternalServiceError"}),
        (503, {}),
    ],
)
def test_throttled_or_broken_is_asked_again_within_the_time(
    secrets: SecretsManager, credentials: Credentials, no_boto3: None, refusal: Any
) -> None:
    secrets.refusals = [refusal] * 3
    assert credentials.read()[0] == "application"
    assert secrets.reads == 4


def test_throttled_for_ever_is_an_error_in_time(
    secrets: SecretsManager, credentials: Credentials, no_boto3: None
) -> None:
    secrets.refusals = [(400, {"__type": "ThrottlingException", "Message": "Rate exceeded"})] * 99
    assert "ThrottlingException, Rate exceeded" in refused(credentials, 1.0)
    assert 3 < secrets.reads < 9


def said(status: int, content: bytes) -> Callable[[socket.socket], None]:
    """Each request is answered so, by whatever it is."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(
            b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n" % (status, len(content)) + content
        )

    return answer


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (400, b"<html>Bad Request</html>"),
        (403, b'{"message": "Forbidden"}'),
        (404, b"[]"),
        (200, b"<html>Welcome</html>"),
        (200, b"[]"),
    ],
)
def test_what_gives_no_reason_as_aws_does_is_left_to_boto3(
    monkeypatch: pytest.MonkeyPatch, status: int, content: bytes
) -> None:
    with serving(said(status, content)) as port:
        endpoint(monkeypatch, f"http://127.0.0.1:{port}")
        route = route_of(os.environ)
        assert route is not None
        with pytest.raises(UnreadableError, match=f"status {status}"):
            _secretsmanager.ask(route, ARN, Exchange(time.monotonic() + 2))


def test_a_gateways_page_of_a_broken_service_is_asked_again(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch, no_boto3: None
) -> None:
    pages = [said(502, b"<html>Bad Gateway</html>")] * 2
    good = json.dumps({"SecretString": PAIR}).encode()

    def answer(connection: socket.socket) -> None:
        (pages.pop() if pages else said(200, good))(connection)

    with serving(answer) as port:
        endpoint(monkeypatch, f"http://127.0.0.1:{port}")
        assert credentials.read() == ("application", "hidden-password")
    assert not pages


# No way there


def serving(script: Callable[[socket.socket], None]) -> Any:
    """A server that does to each connection what `script` does."""

    @contextlib.contextmanager
    def server() -> Iterator[int]:
        listening = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    script(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            thread.join()

    return server()


def trickle(connection: socket.socket) -> None:
    connection.recv(65536)
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Filler: y\r\n" * 100:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def silence(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


@pytest.mark.parametrize("script", [trickle, silence])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_silence_and_trickling_end_before_the_time_does(
    credentials: Credentials,
    monkeypatch: pytest.MonkeyPatch,
    script: Callable[[socket.socket], None],
    scheme: str,
    no_boto3: None,
) -> None:
    with serving(script) as port:
        endpoint(monkeypatch, f"{scheme}://127.0.0.1:{port}")
        said = refused(credentials, 0.8)
    assert "VPC's endpoint" in said or scheme == "https"  # TLS may take a trickle for nonsense


def test_dropped_packets_end_before_the_time_does(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as dropping, contextlib.ExitStack() as stack:
        dropping.bind(("127.0.0.1", 0))
        dropping.listen(0)
        for _ in range(4):  # a full backlog drops what else comes
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(dropping.getsockname())
        port = dropping.getsockname()[1]
        endpoint(monkeypatch, f"http://127.0.0.1:{port}")
        said = refused(credentials, 0.8)
    assert f"no connection to 127.0.0.1:{port}: " in said
    assert "security group lets the function's in on port 443" in said


def test_no_name_and_no_listener_are_said_soon(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint(monkeypatch, "http://127.0.0.1:1")
    began = time.monotonic()
    assert "no connection to 127.0.0.1:1" in refused(credentials, 6.0)
    assert time.monotonic() - began < 2.0

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    endpoint(monkeypatch, "http://secretsmanager.example.com")
    said = refused(credentials, 6.0)
    assert "the name secretsmanager.example.com could not be looked up" in said
    assert "private DNS" in said


def hangs_up(connection: socket.socket) -> None:
    connection.recv(65536)


@pytest.mark.parametrize("way", ["nobody listens", "it hangs up", "it is silent"])
def test_boto3s_way_that_leads_nowhere_is_the_networks_fault_too(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with serving(silence if way == "it is silent" else hangs_up) as port:
        endpoint(monkeypatch, f"http://127.0.0.1:{1 if way == 'nobody listens' else port}")
        monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "false")
        monkeypatch.setattr(_reading, "route_of", lambda _environ: None)
        said = refused(credentials, 1.0 if way == "it is silent" else 15.0)
    assert "security group lets the function's in on port 443" in said


def test_a_secret_for_which_there_is_no_time_is_not_asked_for(
    secrets: SecretsManager, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    for route in (route_of, lambda _environ: None):
        monkeypatch.setattr(_reading, "route_of", route)
        with pytest.raises(CredentialsError, match=r"no answer in time|the time is over"):
            credentials.read(within=0.0)
        gone()
    assert secrets.reads == 0


def test_who_is_abandoned_in_the_middle_of_an_answer_wakes_at_once() -> None:
    ended: list[Exception] = []
    asked = threading.Event()

    def hear_and_say_nothing(connection: socket.socket) -> None:
        connection.recv(65536)
        asked.set()
        silence(connection)

    with serving(hear_and_say_nothing) as port:
        exchange = Exchange(time.monotonic() + 30)

        def ask() -> None:
            try:
                exchange.send("POST /", "127.0.0.1", port, head={})
            except UnreachableError as error:
                ended.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(5)
        began = time.monotonic()
        exchange.abandon()
        thread.join()
        assert time.monotonic() - began < 1.0
    assert "no answer from 127.0.0.1" in str(ended[0])
    exchange.abandon()  # harmless when repeated


def test_what_is_over_before_it_begins_reaches_nobody() -> None:
    reached: list[socket.socket] = []
    with serving(reached.append) as port, pytest.raises(UnreachableError, match="time is over"):
        Exchange(time.monotonic() - 1).send("POST /", "127.0.0.1", port, head={})
    assert not reached


def test_an_endpoint_that_is_the_database_itself_is_refused_and_no_socket_is_left(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no OSError closes the socket too: warnings are errors here."""
    reached: list[socket.socket] = []

    class Here:
        def address(self) -> tuple[str, int]:
            return "127.0.0.1", port

    with unguarded(), serving(reached.append) as port:
        Guard(Here())
        endpoint(monkeypatch, f"http://127.0.0.1:{port}")
        assert "(OutsideInvocationError)" in refused(credentials)
        gc.collect()
    assert not reached


def test_a_name_server_that_is_silent_does_not_stretch_it(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hanging.wait(5) and [])
    endpoint(monkeypatch, "http://secretsmanager.example.com")
    said = refused(credentials, 0.5)
    assert "no answer in time" in said
    assert "private DNS" in said
    hanging.set()
    gone()


def test_an_alarm_while_it_is_read_comes_through_and_leaves_nothing(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alarm(*_: Any) -> None:
        raise TimeoutError("the user's own alarm")

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        with serving(silence) as port, untraced():
            endpoint(monkeypatch, f"http://127.0.0.1:{port}")
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            began = time.monotonic()
            with pytest.raises(TimeoutError, match="the user's own") as caught:
                credentials.read(within=5.0)
            assert time.monotonic() - began < 1.0
            nothing_hidden(caught.value)
            gone()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_without_a_thread_to_spare_it_is_said(
    secrets: SecretsManager, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", none_left)
    assert "can't start new thread" in refused(credentials)


def reads(frame: FrameType | None) -> bool:
    """Whether a thread is on its way through a reading."""
    while frame is not None:
        if frame.f_code.co_filename == _reading.__file__ and frame.f_code.co_name == "_run":
            return True
        frame = frame.f_back
    return False


def gone() -> None:
    """No reading goes on."""
    until = time.monotonic() + 1.0
    while any(map(reads, sys._current_frames().values())):
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize(
    "said",
    [
        b"220 smtp.example.com ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 4000,
        b"\r\n\r\n",
    ],
)
def test_what_no_aws_endpoint_says_is_not_read(said: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)

    with serving(answer) as port, pytest.raises(UnreadableError):
        Exchange(time.monotonic() + 2).send("POST /", "127.0.0.1", port, head={})


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"HTTP"])
def test_an_answer_that_breaks_off_is_none(said: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)

    with serving(answer) as port, pytest.raises(UnreachableError, match="closed before"):
        Exchange(time.monotonic() + 2).send("POST /", "127.0.0.1", port, head={})


# TLS


def test_tls_is_verified_and_by_amazons_roots_alone(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificates = write_certificates(tmp_path)
    with SecretsManager(certificates) as secrets:
        secrets.secret = PAIR
        for name, value in (secrets.environ() | KEYS).items():
            monkeypatch.setenv(name, value)
        said = refused(credentials, 5.0)
        assert "SSLError" in said, "boto3 was asked, and does not know the authority either"
        assert secrets.reads == 0
        with monkeypatch.context() as patch:
            patch.setenv("AWS_CA_BUNDLE", str(certificates.ca_file))
            assert credentials.read()[0] == "application", "boto3 takes a bundle of one's own"
        monkeypatch.setattr(_secretsmanager, "ROOTS", str(certificates.ca_file))
        monkeypatch.setitem(sys.modules, "boto3", None)
        assert credentials.read(again=True)[0] == "application"


def test_a_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    certificates = write_certificates(tmp_path, ("elsewhere.example.com",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.ca_file)
    with SecretsManager(certificates) as secrets, pytest.raises(UnreadableError, match="mismatch"):
        Exchange(time.monotonic() + 2).send(
            "POST /", "127.0.0.1", secrets.server_port, head={}, tls=context
        )


def test_the_roots_are_amazons() -> None:
    # By OpenSSL, as they are used: cryptography dislikes the oldest one's serial number, zero.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ROOTS)
    certificates = context.get_ca_certs(binary_form=True)
    fingerprints = {hashlib.sha256(one).hexdigest() for one in certificates}
    # https://www.amazontrust.com/repository/
    assert fingerprints == {
        "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
        "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
        "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
        "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
        "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
    }
    for one in context.get_ca_certs():
        ends = ssl.cert_time_to_seconds(str(one["notAfter"]))
        assert ends > time.time() + 5 * 365 * 86400


# Where it is asked

ENVIRON = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_CONFIG_FILE": "/dev/null"}
SESSION = botocore.session.get_session()


@pytest.mark.parametrize("partition", SESSION.get_available_partitions())
def test_an_endpoint_is_botocores_or_left_to_it(partition: str) -> None:
    regions = SESSION.get_available_regions("secretsmanager", partition)
    assert regions or partition != "aws"
    for region in [one for one in regions if "fips" not in one]:
        route = route_of(ENVIRON | {"AWS_REGION": region})
        if partition == "aws":
            assert route is not None
            client = SESSION.create_client(
                "secretsmanager", region, aws_access_key_id="a", aws_secret_access_key="b"
            )
            assert client.meta.endpoint_url == f"https://{route.authority}"
            assert (route.port, route.tls) == (443, True)
        else:
            assert route is None


@pytest.mark.parametrize(
    ("changes", "host"),
    [
        ({"AWS_ENDPOINT_URL_SECRETS_MANAGER": "https://vpce-1.example.com"}, "vpce-1.example.com"),
        ({"AWS_ENDPOINT_URL": "https://vpce-2.example.com/"}, "vpce-2.example.com"),
        ({"AWS_ENDPOINT_URL": "http://localhost:4566"}, "localhost:4566"),
        ({"AWS_ENDPOINT_URL": "http://localhost:4566/below"}, None),
        ({"AWS_ENDPOINT_URL": "http://user@localhost"}, None),
        ({"AWS_ENDPOINT_URL": "http://localhost:99999"}, None),
        ({"AWS_ENDPOINT_URL": "ftp://localhost"}, None),
        ({"AWS_ENDPOINT_URL": "http://löcalhost"}, None),
        ({"AWS_DEFAULT_REGION": "us-west-2"}, None),
        (
            {"AWS_REGION": "", "AWS_DEFAULT_REGION": "us-west-2"},
            "secretsmanager.us-west-2.amazonaws.com",
        ),
        ({"AWS_REGION": "eu-west-1.evil.com"}, None),
        ({"AWS_REGION": ""}, None),
        ({"AWS_ACCESS_KEY_ID": ""}, None),
        ({"AWS_SECRET_ACCESS_KEY": ""}, None),
        ({"AWS_CONFIG_FILE": __file__}, None),
        ({"AWS_CA_BUNDLE": "/some/file"}, None),
        ({"AWS_USE_FIPS_ENDPOINT": "false"}, "secretsmanager.eu-west-1.amazonaws.com"),
        *[({name: "true"}, None) for name in LEFT_TO_BOTO3],
    ],
)
def test_what_only_boto3_knows_is_left_to_boto3(changes: dict[str, str], host: str | None) -> None:
    route = route_of(ENVIRON | {"AWS_REGION": "eu-west-1"} | changes)
    assert (route.authority if route else None) == host


@contextlib.contextmanager
def snapstart(monkeypatch: pytest.MonkeyPatch, said: bytes | None = None) -> Iterator[list[bytes]]:
    """As in a SnapStart function: no keys in the environment, an endpoint in it gives them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    ends = datetime.now(UTC) + timedelta(hours=6)
    given = {
        "AccessKeyId": "AKIDSNAP",
        "SecretAccessKey": "hidden-key",
        "Token": "hidden-token",
        "Expiration": ends.isoformat(),
    }
    content = json.dumps(given).encode() if said is None else said
    asked = []

    def answer(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + content)

    with serving(answer) as port:
        uri = f"http://127.0.0.1:{port}/2021-01-01/credentials"
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hidden-ticket")
        yield asked


@pytest.mark.parametrize("boto3", [False, True])
def test_snapstarts_keys_are_fetched_as_boto3_fetches_them(
    secrets: SecretsManager,
    credentials: Credentials,
    monkeypatch: pytest.MonkeyPatch,
    boto3: bool,
) -> None:
    if boto3:
        monkeypatch.setattr(_reading, "route_of", lambda _environ: None)
    else:
        monkeypatch.setitem(sys.modules, "boto3", None)
    with snapstart(monkeypatch) as asked:
        assert credentials.read() == ("application", "hidden-password")
    assert asked[0].startswith(b"GET /2021-01-01/credentials HTTP/1.1\r\n")
    assert b"authorization: hidden-ticket\r\n" in asked[0].lower().replace(b"A", b"a")
    assert "Credential=AKIDSNAP/" in secrets.requests[0].headers["authorization"]
    assert secrets.requests[0].headers["x-amz-security-token"] == "hidden-token"


def test_keys_that_need_no_token_send_none(
    secrets: SecretsManager,
    credentials: Credentials,
    monkeypatch: pytest.MonkeyPatch,
    no_boto3: None,
) -> None:
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    credentials.read()
    assert "x-amz-security-token" not in secrets.requests[0].headers


@pytest.mark.parametrize("said", [b"", b"[]", b"{}", b'{"AccessKeyId": "a"}'])
def test_keys_that_are_none_are_an_error(
    secrets: SecretsManager,
    credentials: Credentials,
    monkeypatch: pytest.MonkeyPatch,
    said: bytes,
) -> None:
    with snapstart(monkeypatch, said):
        refused(credentials, 8.0)
    assert secrets.reads == 0


@pytest.mark.parametrize(
    ("uri", "ticket"),
    [
        ("http://169.254.170.2/v2/credentials", "ticket"),
        ("https://127.0.0.1/v2/credentials", "ticket"),
        ("http://127.0.0.1:80", "ticket"),
        ("http://127.0.0.1/a b", "ticket"),
        ("http://127.0.0.1/a", ""),
        ("http://127.0.0.1/a", "a\r\nb"),
        ("", "ticket"),
    ],
)
def test_who_else_gets_the_ticket_is_boto3s_to_judge(uri: str, ticket: str) -> None:
    environ = {
        "AWS_REGION": "eu-west-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": uri,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": ticket,
    }
    assert route_of(environ) is None


def test_boto3_says_nothing_hidden_however_talkative(
    secrets: SecretsManager,
    credentials: Credentials,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_reading, "route_of", lambda _environ: None)
    with caplog.at_level(logging.DEBUG):
        credentials.read()
    assert not [word for word in HIDDEN if word in caplog.text]
