"""Addresses that can be compared, and names that are looked up within a time."""

import _thread
import functools
import socket
from typing import Any

from ._clock import clock
from ._latch import Latch

# A name is looked up again after this many seconds: a failover gives the same name a new address.
# The time to live of an RDS name.
FRESH_SECONDS = 5.0
# What was found last is taken for as long where the name server is silent.
STALE_SECONDS = 60.0
_MAPPED = bytes(10) + b"\xff\xff"


@functools.lru_cache(maxsize=64)
def plain(host: str) -> str:
    """An address without its zone, and an IPv4 address without its IPv6 dress.

    Raises:
        ValueError: It is a name.
    """
    try:
        return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host))
    except (OSError, UnicodeError):
        pass
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{host!r} is not an address") from error
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def end_of(sock: Any) -> str:
    """Our side of a TCP connection, as the server's process list would have it: address:port."""
    host, port = sock.getsockname()[:2]
    return f"{plain(host)}:{port}"


class Resolver:
    """The addresses of one host, kept for some seconds, and never waited for longer than told."""

    __slots__ = ("_found", "_found_at", "_host")

    def __init__(self, host: str) -> None:
        """Nothing is looked up yet."""
        self._host = host
        self._found: tuple[str, ...] = ()
        self._found_at = float("-inf")

    def addresses(self, within: float) -> tuple[str, ...]:
        """The addresses in the order in which they should be tried.

        Args:
            within: Seconds to wait for a name server.

        Raises:
            socket.gaierror: The name server says that there is no such name, or cannot say.
            TimeoutError: It says nothing.
        """
        try:
            return (plain(self._host),)
        except ValueError:
            pass
        age = clock.now() - self._found_at
        if age > FRESH_SECONDS:
            try:
                self._found, self._found_at = _look_up(self._host, within), clock.now()
            except TimeoutError:
                if age > STALE_SECONDS:
                    raise
        return self._found


def _look_up(host: str, within: float) -> tuple[str, ...]:
    """`socket.getaddrinfo`, which knows no timeout: in a thread that is left alone if it hangs."""
    answer: list[tuple[str, ...] | Exception] = []
    done = Latch()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answer.append(tuple(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            answer.append(error)
        done.set()

    _thread.start_new_thread(ask, ())
    if not done.wait(within):
        raise TimeoutError(f"no name server answered for {host!r} within {within:.1f} s")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]
