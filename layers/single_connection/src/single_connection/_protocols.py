"""What an invocation asks of its connection, and of the way to it; the fake ones do it, too."""

from typing import Any, Protocol

from ._leaks import Leak
from ._opening import Opening
from ._settings import Settings
from ._telemetry import Measurements
from ._turns import Hold, Turns


class Session(Protocol):
    """What an invocation does with its connection; PyMySQL's and the fake one both do it."""

    turns: Turns

    @property
    def open(self) -> bool:
        """Whether it can be used."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    @property
    def unfinished(self) -> Hold | None:
        """The transaction that is open and has changed rows."""

    @property
    def forgotten(self) -> Exception | None:
        """What was lost with it, and nobody has been told yet."""

    @property
    def inode(self) -> int:
        """The number of its socket."""

    def refusal(self) -> Exception:
        """Why it cannot be used any more."""

    def cursor(self, cursor: Any = None) -> Any:
        """A cursor of that class."""

    def enter_block(self, place: str) -> Hold:
        """Begin a transaction, or a savepoint in it."""

    def leave_block(self, hold: Hold, *, commit: bool) -> None:
        """End it."""

    def revoke(self, error: type[Exception], message: str) -> None:
        """Make every further use raise `error(message)`."""

    def say_goodbye(self, until: float) -> bool:
        """Roll back and take leave; whether that could be said."""

    def is_gone(self, until: float) -> bool:
        """After goodbye: whether the server has let go, by then."""

    def hang_up(self, until: float) -> None:
        """Close our side."""

    def abandon(self) -> None:
        """In a forked child: drop it without a word."""


class Connector(Protocol):
    """What an invocation asks of the way to its database."""

    @property
    def settings(self) -> Settings:
        """Where the database is, and who asks."""

    @property
    def margin(self) -> float:
        """Seconds before Lambda's deadline at which the connection is cut."""

    def enter(self) -> None:
        """An invocation begins."""

    def open(self, opening: Opening, context: Any, measured: Measurements) -> Any:
        """Its connection, opened after waiting at a full database."""

    def opened(self, place: str, session: Any) -> None:
        """It is the invocation's from now on."""

    def closed(self) -> None:
        """It is no more."""

    def end(self, session: Any, until: float) -> bool:
        """End a session that does not listen; whether the server is known to have let go."""

    def find_leaks(self) -> list[Leak]:
        """Connections to the database that were not permitted and exist all the same."""

    def end_leaks(self, ends: frozenset[str], until: float) -> bool:
        """End the sessions that come from there; whether they are gone."""

    def leave(self) -> None:
        """The invocation is over."""
