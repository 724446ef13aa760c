"""For unit tests of handlers, without a server: the law holds, the answers are yours.

    with fake(app.database) as server:
        server.answer("SELECT name, stock FROM products", rows=[{"name": "Mug", "stock": 3}])
        assert app.lambda_handler({"id": 7}, LambdaContext()) == {"name": "Mug", "stock": 3}
    assert server.executed == [("SELECT name, stock FROM products WHERE id = %s", (7,))]
    assert server.outcomes == ["committed"]

What a handler does outside an invocation fails as it would in Lambda. What SQL means is not judged
here: test that against a real server.
"""

import contextlib
from collections.abc import Iterator
from uuid import uuid4

from . import _guard
from ._clock import clock
from ._database import Database
from ._fake import FakeConnector, FakeServer

__all__ = ["FakeServer", "LambdaContext", "fake", "unguarded"]


class LambdaContext:
    """What Lambda passes as the second argument, with time that runs out.

    Args:
        seconds: The invocation's timeout.
        function_name: As logs and metrics name it.
    """

    def __init__(self, seconds: float = 3.0, function_name: str = "function") -> None:
        """Start the clock."""
        self.function_name = function_name
        self.function_version = "$LATEST"
        self.memory_limit_in_mb = 128
        self.invoked_function_arn = (
            f"arn:aws:lambda:us-east-1:123456789012:function:{function_name}"
        )
        self.aws_request_id = str(uuid4())
        self._until = clock.now() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds left."""
        return max(0, int((self._until - clock.now()) * 1000))


@contextlib.contextmanager
def unguarded() -> Iterator[None]:
    """For integration tests: inside the block plain connections to the database are let through.

    Prepare tables in it, and look at what a handler did; invoke the handler outside of it, or what
    is open plainly would be found and ended with the invocation. A `Database` that was made before
    the block guards nothing until its end, one that is made inside guards only until then.
    """
    kept = list(_guard._guards)
    _guard._guards.clear()
    try:
        yield
    finally:
        _guard._guards[:] = kept


@contextlib.contextmanager
def fake(database: Database) -> Iterator[FakeServer]:
    """Put a fake server behind `database` for the length of the block.

    Args:
        database: The handler module's own; it needs no settings meanwhile.

    Yields:
        The server, to be told its answers and asked what it saw.

    Raises:
        AssertionError: At the end, if a connection is still open.
    """
    server = FakeServer()
    kept, database._connector = database._connector, FakeConnector(server)
    try:
        yield server
    finally:
        database._connector = kept
    assert server.connections_open == 0, "a connection outlived its invocation"  # noqa: S101
