"""A network with a round-trip time between a client and a server on one machine; it counts turns.

    with DelayProxy("127.0.0.1", server_port, round_trip=0.0005) as proxy:
        connect to 127.0.0.1:proxy.port
    proxy.turns     # how often the client had to wait for the server, over all connections

Every byte takes half a round trip, in either direction, and so does the client's first sign of
life: the server sees a connection half a round trip after the client made it. What cannot be
delayed from here is the TCP handshake itself (SYN, SYN-ACK), which costs every client one more.
"""

import argparse
import contextlib
import heapq
import itertools
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

CHUNK = 65536


class _Connection:
    """One client's way to the server."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.client_waits = True  # it connected, and the server greets first

    def close(self) -> None:
        for sock in (self.client, self.server):
            if sock is not None:
                sock.close()


class DelayProxy:
    """Passes bytes on after half a round trip, from one thread, with microseconds of its own.

    Attributes:
        port: Connect here, at 127.0.0.1.
        turns: Round trips spent waiting, over all connections; seen from the client's side.
    """

    def __init__(self, host: str, port: int, round_trip: float) -> None:
        """Stand before the server at `host`, `port`; `round_trip` in seconds."""
        self._server = (host, port)
        self._half = round_trip / 2
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.turns = 0
        self._due: list[tuple[float, int, _Connection, str, bytes]] = []
        self._sequence = itertools.count()
        self._readers: dict[socket.socket, tuple[_Connection, str]] = {}
        self._open: set[_Connection] = set()
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self) -> Self:
        """Start, in a thread of this process; see `delayed` for a process of its own."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and close everything."""
        self._waker.send(b"x")
        self._thread.join()
        for sock in (self._wake, self._waker):
            sock.close()

    def serve(self) -> None:
        """Pass bytes on until stopped."""
        # A sleep of 50 microseconds more than asked for is Linux's default, and too much here.
        with contextlib.suppress(OSError):
            Path("/proc/self/timerslack_ns").write_text("1")
        try:
            while self._step():
                pass
        finally:
            self._listener.close()
            for connection in self._open:
                connection.close()

    def _step(self) -> bool:
        wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
        ready, _, _ = select.select([self._wake, self._listener, *self._readers], [], [], wait)
        if self._wake in ready:
            return False
        for sock in ready:
            if sock is self._listener:
                self._accept()
            elif sock in self._readers:
                self._read(sock)
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, connection, what, data = heapq.heappop(self._due)
            with contextlib.suppress(OSError):
                self._deliver(connection, what, data)
        return True

    def _later(self, connection: _Connection, what: str, data: bytes = b"") -> None:
        due = time.monotonic() + self._half
        heapq.heappush(self._due, (due, next(self._sequence), connection, what, data))

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(client)
        self._open.add(connection)
        self._readers[client] = (connection, "server")
        self._later(connection, "connect")

    def _read(self, sock: socket.socket) -> None:
        connection, towards = self._readers[sock]
        try:
            data = sock.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            del self._readers[sock]
        if towards == "server":
            connection.client_waits = bool(data)  # one that has closed waits for nothing
        self._later(connection, towards, data)

    def _deliver(self, connection: _Connection, what: str, data: bytes) -> None:
        if what == "connect":
            connection.server = socket.create_connection(self._server)
            connection.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._readers[connection.server] = (connection, "client")
            return
        if what == "client" and connection.client_waits:
            connection.client_waits = False
            self.turns += 1
        receiver = connection.client if what == "client" else connection.server
        if receiver is None:
            return
        if data:
            receiver.sendall(data)
        elif what == "server":
            receiver.shutdown(socket.SHUT_WR)
        else:  # the server's end is the end: what the client still says would reach nobody
            self._readers.pop(connection.client, None)
            self._open.discard(connection)
            connection.close()


@contextlib.contextmanager
def delayed(host: str, port: int, round_trip: float) -> Iterator[int]:
    """A proxy in a process of its own, so that it takes no time from who is measured.

    Yields:
        Its port.
    """
    command = [sys.executable, "-m", "local.delay_proxy", host, str(port), str(round_trip)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout  # noqa: S101 - for the types: it is a pipe
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def main() -> None:
    """Run until terminated; the first line of output is the port."""
    parser = argparse.ArgumentParser(prog="python -m local.delay_proxy", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("round_trip", type=float, help="seconds")
    asked = parser.parse_args()
    proxy = DelayProxy(asked.host, asked.port, asked.round_trip)
    print(proxy.port, flush=True)
    proxy.serve()


if __name__ == "__main__":
    main()
