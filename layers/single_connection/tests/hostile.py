"""A server that says what a test tells it to, through TLS and before it."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from local.certificates import NAMES, write_certificates


def packet(payload: bytes, number: int) -> bytes:
    """A packet of MySQL's protocol."""
    return struct.pack("<I", len(payload) | number << 24) + payload


def error(code: int, text: bytes = b"no", number: int = 0) -> bytes:
    """An error's packet."""
    return packet(b"\xff" + struct.pack("<H", code) + b"#HY000" + text, number)


def ok(number: int = 1, *, status: int = 2) -> bytes:
    """OK; `status` 2 is autocommit, 3 is a transaction that is open."""
    return packet(struct.pack("<xBBHH", 0, 0, status, 0), number)


def row(value: bytes, *, status: int = 2) -> bytes:
    """The answer to a SELECT: one row of one column."""
    column = b"\3def\0\0\0\1n\0\x0c" + struct.pack("<HIBHB", 45, 80, 253, 0, 0) + b"\0\0"
    end = b"\xfe" + struct.pack("<HH", 0, status)
    payloads = [b"\1", column, end, bytes([len(value)]) + value, end]
    return b"".join(packet(payload, number) for number, payload in enumerate(payloads, 1))


def greeting(
    version: bytes = b"8.4.0", plugin: bytes = b"mysql_native_password", low: int = 0xFFFF
) -> bytes:
    """A server's greeting; `low` are the lower capabilities, TLS among them."""
    words = struct.pack("<HBHHB", low, 255, 2, 0xDFFF, 21)
    payload = b"\x0a" + version + b"\0" + struct.pack("<I", 7) + b"12345678\0" + words
    return packet(payload + bytes(10) + b"123456789012\0" + plugin + b"\0", 0)


OK = b"\0\0\0\2\0\0\0"


class Client:
    """One client's connection, as its server sees it.

    Attributes:
        set_up: The statement that set its session up.
    """

    set_up = b""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, stop: threading.Event) -> None:
        self.sock, self._context, self._stop = sock, context, stop

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self) -> tuple[int, bytes]:
        """The number and the payload of the next packet."""
        header = self._exactly(4)
        return header[3], self._exactly(int.from_bytes(header[:3], "little"))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def log_in(self, greet: bytes) -> int:
        """Greet, and make TLS; gives the number for the answer to the password."""
        self.send(greet)
        self.read()
        self.sock = self._context.wrap_socket(self.sock, server_side=True)
        return self.read()[0] + 1

    def serve(self) -> None:
        """Greet, take whatever password, and say OK to the session's set-up."""
        self.send(packet(OK, self.log_in(greeting())))
        self.set_up = self.read()[1]
        self.send(packet(OK, 1))

    def trickle(self, data: bytes) -> None:
        """A byte at a time, for as long as anybody listens."""
        for one in data:
            if self._stop.wait(0.2):
                return
            self.sock.sendall(bytes([one]))

    def wait(self) -> None:
        """Say nothing more."""
        self._stop.wait(30)

    def reset(self) -> None:
        """Go without a goodbye."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Hostile:
    """Every connection runs `script`; `count` says how many there were."""

    def __init__(
        self, directory: Path, script: Callable[[Client], Any], names: tuple[str, ...] = NAMES
    ) -> None:
        certificates = write_certificates(directory, names)
        self.ca_file = certificates.ca_file
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.certificate_file, certificates.key_file)
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port: int = self._listener.getsockname()[1]
        self.count = 0
        self._stop = threading.Event()
        self._clients: list[Client] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.count += 1
                client = Client(sock, self._context, self._stop)
                self._clients.append(client)
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: Client) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._script(client)
        with contextlib.suppress(OSError):
            client.sock.close()
