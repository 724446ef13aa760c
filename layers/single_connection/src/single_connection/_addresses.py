"""Addresses that can be compared: the same end of a connection always has the same spelling."""

import functools
import ipaddress
import socket
from typing import Any


@functools.lru_cache(maxsize=64)
def plain(host: str) -> str:
    """An address without its zone, and an IPv4 address without its IPv6 dress.

    Raises:
        ValueError: It is a name.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


def resolve(host: str) -> frozenset[str]:
    """The addresses of `host`; of an address, itself."""
    try:
        return frozenset((plain(host),))
    except ValueError:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return frozenset(plain(str(entry[4][0])) for entry in found)


def end_of(sock: Any) -> str:
    """The local end of a TCP socket, as the server's process list would have it: address:port."""
    host, port = sock.getsockname()[:2]
    return f"{plain(host)}:{port}"
