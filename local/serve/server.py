"""Listens on this machine alone, and serves until it is told to end."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from local.serve.actions import Actions
from local.serve.application import Application
from local.serve.journal import Journal


class PortTakenError(OSError):
    """Somebody listens there already."""


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1; 0 takes any port.

    Raises:
        PortTakenError: the port is taken, or may not be had; says what to do.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise PortTakenError(
            f"port {port} cannot be had ({getattr(error, 'strerror', None) or error}): "
            "stop what listens there, or choose another with PORT=…"
        ) from error
    return listener


async def serve(listener: socket.socket, actions: Actions, ready: Callable[[], object]) -> None:
    """Serve until SIGINT or SIGTERM, or until cancelled; then every environment is ended.

    Raises:
        TemplateError: the template cannot be read.
        MigrationError: the migrations do not succeed.
    """
    config = uvicorn.Config(
        Application(actions),
        log_level="warning",
        lifespan="off",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config, actions.journal)
    try:
        await actions.stack.open()
        watch = asyncio.create_task(actions.watch())
        # A watch that fails must not go unseen.
        watch.add_done_callback(lambda _: setattr(server, "should_exit", True))
        try:
            ready()
            await server.serve(sockets=[listener])
        finally:
            watch.cancel()
            outcomes = await asyncio.gather(watch, return_exceptions=True)
    finally:
        await actions.stack.close()
    if isinstance(outcomes[0], Exception):
        raise outcomes[0]


class _Server(uvicorn.Server):
    """Takes its signals from the loop, and lets pages that watch go when it ends."""

    def __init__(self, config: uvicorn.Config, journal: Journal) -> None:
        super().__init__(config)
        self._journal = journal

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._journal.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
