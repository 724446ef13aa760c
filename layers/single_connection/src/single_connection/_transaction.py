"""All or nothing: a block that commits or rolls back as a whole, and is run again as a whole."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from ._deadline import Deadline
from ._driver import Connection, DictCursor, DriverError, OperationalError
from .errors import CommitOutcomeUnknownError, DeadlineError

R = TypeVar("R")

# Lock wait timeout, deadlock: the server's own advice is to run the transaction again.
# MySQL server error reference, ER_LOCK_WAIT_TIMEOUT and ER_LOCK_DEADLOCK.
REPEATABLE = (1205, 1213)
# Gone away, lost, and PyMySQL's own "the socket is closed".
LOST = (0, 2006, 2013)
LONGEST_PAUSE = 0.5


@contextlib.contextmanager
def transaction(connection: Connection) -> Iterator[DictCursor]:
    """A block of statements that are committed together, or not at all.

    Yields:
        A cursor whose rows are dictionaries. Inside another block it works under a savepoint.

    Raises:
        CommitOutcomeUnknownError: The connection was lost while COMMIT was on its way.
    """
    depth = connection.transaction_depth
    # START TRANSACTION would commit what was begun by hand: there, too, the block is a savepoint.
    level = depth or int(connection.in_transaction)
    begin, undo = _words(level)
    cursor = connection.cursor(DictCursor)
    cursor.execute(begin)
    connection.transaction_depth = level + 1
    try:
        yield cursor
        if level == 0:
            _commit(connection)
        else:
            connection.raise_if_ended()
            cursor.execute(f"RELEASE SAVEPOINT level_{level}")
    except BaseException:
        if connection.lost_transaction is None and connection.open:
            with contextlib.suppress(Exception):  # the error on its way out says more
                connection.cursor().execute(undo)
        raise
    finally:
        connection.transaction_depth = depth
        if depth == 0:
            connection.lost_transaction = None
        with contextlib.suppress(DriverError, DeadlineError):
            cursor.close()


def _words(level: int) -> tuple[str, str]:
    if level == 0:
        return "START TRANSACTION", "ROLLBACK"
    return f"SAVEPOINT level_{level}", f"ROLLBACK TO SAVEPOINT level_{level}"


def _commit(connection: Connection) -> None:
    connection.raise_if_ended()
    try:
        connection.commit()
    except (DriverError, DeadlineError) as error:
        if isinstance(error, DeadlineError) or (error.args and error.args[0] in LOST):
            raise CommitOutcomeUnknownError(
                "the connection was lost during COMMIT: look whether the work is there before you "
                "repeat it, or keep an idempotency key in the same transaction"
            ) from error
        raise


def run_again(attempt: Callable[[], R], deadline: Deadline, count: Callable[[], None]) -> R:
    """Call `attempt`, a whole transaction, again after each deadlock or lock-wait timeout.

    Args:
        attempt: Begins and ends the transaction.
        deadline: No further attempt is begun when less time is left than the pause before it.
        count: Told of each repetition.

    Raises:
        pymysql.err.OperationalError: 1205 or 1213, when the time is over; else what `attempt` does.
    """
    limit = 0.02
    while True:
        try:
            return attempt()
        except OperationalError as error:
            pause = random.uniform(0, limit)
            if error.args[0] not in REPEATABLE or deadline.left() <= pause:
                raise
        count()
        time.sleep(pause)
        limit = min(2 * limit, LONGEST_PAUSE)
