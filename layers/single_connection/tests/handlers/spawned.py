"""What a child started by multiprocessing's `spawn` runs: it imports this, and no guard."""

import socket
import time


def child(host, port, pipe):
    """Connect, say so, and linger."""
    with socket.create_connection((host, port)):
        pipe.send("connected")
        time.sleep(30)
