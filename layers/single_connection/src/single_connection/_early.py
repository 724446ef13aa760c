"""What may be said to a server before its greeting has come: what led to verified TLS last time."""

# After so many failures in a row something on the way cannot bear it, for the time being.
FAILURES = 3
# Connections that wait for the greeting then, before it is tried again; twice as many each time.
FIRST_REST = 8
LONGEST_REST = 256


class EarlyRequest:
    """The request for TLS that is sent without waiting: its bytes depend on our settings alone.

    Given once for each connection that led to verified TLS. What goes wrong switches it off for a
    number of connections, not for good: a bad minute of the network must not cost a round trip for
    the life of an environment.
    """

    __slots__ = ("_failures", "_host", "_request", "_rest", "_resting")

    def __init__(self) -> None:
        """Nothing has been said yet."""
        self._host: str | None = None
        self._request = b""
        self._failures = 0
        self._rest = FIRST_REST
        self._resting = 0

    def take(self, host: str) -> bytes:
        """The request, or b"" where the greeting is to be waited for."""
        request, self._request = self._request, b""
        if self._resting:
            self._resting -= 1
            return b""
        return request if host == self._host else b""

    def verified(self, host: str, request: bytes, *, early: bool) -> None:
        """`request` led to verified TLS with `host`; `early` if it was sent before the greeting."""
        self._host, self._request = host, request
        if early:
            self._failures, self._rest = 0, FIRST_REST

    def failed(self) -> None:
        """A connection that spoke early came to nothing."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._resting, self._rest = self._rest, min(2 * self._rest, LONGEST_REST)

    def forget(self) -> None:
        """As new: for a copy of this process."""
        self.__init__()  # type: ignore[misc] # a constructor without arguments
