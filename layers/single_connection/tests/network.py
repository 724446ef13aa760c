"""A network that misbehaves on command: between the layer and a real server, or in its place."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Self


class Proxy:
    """Passes bytes between clients and a server, until told to do something worse.

    Attributes:
        port: Connect here instead of to the server.
    """

    def __init__(self, host: str, port: int, *, bind: str = "127.0.0.1") -> None:
        self._server = (host, port)
        self._listener = socket.create_server((bind, 0))
        self.port: int = self._listener.getsockname()[1]
        self.pause = 0.0
        self._swallowing = threading.Event()
        self._on_client: Callable[[], bool] | None = None
        self._on_server: Callable[[], bool] | None = None
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in [self._listener, *self._sockets]:
            sock.close()

    def swallow(self) -> None:
        """From now on nothing passes, in either direction, not even the end of a connection."""
        self._swallowing.set()

    def cut_before_forwarding(self) -> None:
        """The next thing a client says does not reach the server, and both lose the connection."""
        self._on_client = lambda: False

    def cut_before_answering(self) -> None:
        """The next thing a server says does not reach its client, and both lose the connection."""
        self._on_server = lambda: False

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            if self._swallowing.is_set():
                continue  # accepted by the kernel of a host that says no more
            try:
                server = socket.create_connection(self._server)
            except Exception:  # a guard of this process may refuse it, too
                client.close()
                continue
            self._sockets.append(server)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._pass, client, server)

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        ends = {client: server, server: client}
        while not self._closed.is_set() and ends:
            ready, _, _ = select.select(list(ends), [], [], 0.05)
            for source in ready:
                try:
                    data = source.recv(1 << 16)
                except OSError:
                    data = b""
                if self._swallowing.is_set():
                    return  # both ends stay open, and nobody reads them
                told = self._on_client if source is client else self._on_server
                if data and told is not None and not told():
                    self._on_client = self._on_server = None
                    for end in (client, server):
                        with contextlib.suppress(OSError):
                            end.shutdown(socket.SHUT_RDWR)
                    return
                if self.pause:
                    self._closed.wait(self.pause)
                    if self._swallowing.is_set():
                        return
                try:
                    if data:
                        ends[source].sendall(data)
                    else:
                        ends.pop(source)
                        (server if source is client else client).shutdown(socket.SHUT_WR)
                except OSError:
                    return


@contextlib.contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[bytes]]]:
    """A server of one's own: calls `answer` for each client, keeps it open, notes what it said.

    Yields:
        The port, and what the clients sent after `answer` returned.
    """
    heard: list[bytes] = []
    clients: list[socket.socket] = []
    threads: list[threading.Thread] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            answer(client)
            while data := client.recv(4096):
                heard.append(data)

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            clients.append(client)
            threads.append(threading.Thread(target=serve, args=(client,), daemon=True))
            threads[-1].start()

    threads.append(threading.Thread(target=accept, daemon=True))
    threads[0].start()
    try:
        yield server.getsockname()[1], heard
    finally:
        for sock in (server, *clients):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for sock in (server, *clients):
            sock.close()


def greeting(*, tls: bool) -> bytes:
    """What a MySQL server says first; without the capability bit 0x0800 it offers no TLS."""
    low = 0xFFFF if tls else 0xFFFF & ~0x0800
    payload = (
        b"\x0a8.4.0\0"
        + (7).to_bytes(4, "little")  # connection id
        + b"12345678\0"
        + low.to_bytes(2, "little")
        + b"\xff"  # utf8mb4
        + (2).to_bytes(2, "little")
        + (0xDFFF).to_bytes(2, "little")
        + b"\x15"
        + bytes(10)
        + b"123456789012\0"
        + b"mysql_native_password\0"
    )
    return len(payload).to_bytes(3, "little") + b"\0" + payload


def free_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
