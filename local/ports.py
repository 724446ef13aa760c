"""Ports to listen on."""

import random
import socket


def free_port(address: str) -> int:
    """A port that is free now, below those the kernel gives to clients.

    One of the kernel's choosing could be taken by any client while the server is down, or connect
    to itself on loopback.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        if is_free(address, port):
            return port


def is_free(address: str, port: int) -> bool:
    """Whether nobody listens there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
