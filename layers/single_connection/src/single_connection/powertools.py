"""For Powertools' resolvers: what passes by itself is answered 503 with Retry-After, in one line.

    app = APIGatewayHttpResolver()
    answer_unavailable(app)

Then a route lets the layer's errors pass, and its client is told what it can do. What is a mistake
stays one: Lambda counts it as an error, and its alarm rings.
"""

import math
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ._driver import DriverError
from ._server_errors import LOST, OUTCOME_UNKNOWN, REPEATABLE
from ._server_errors import READ_ONLY as READ_ONLY_MODE
from .errors import CommitOutcomeUnknownError, DatabaseBusyError, DeadlineError

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response
    from aws_lambda_powertools.event_handler.api_gateway import ApiGatewayResolver, Router

__all__ = ["answer_unavailable"]

# The server lets go, refuses or gives up, and would not the next time; of the transaction nothing
# is kept. Beside what the rest of the layer knows: offline mode, a statement that an operator
# ended, and a statement's time limit (MySQL's and MariaDB's). From their error references.
PASSING = LOST | READ_ONLY_MODE | REPEATABLE | {3032, 1317, 3024, 1969}
READ_ONLY = 1290  # any option of the server's that forbids a statement: only one of them passes

BUSY = "The service cannot answer just now. Nothing of this request was kept: try again shortly."
UNKNOWN = (
    "It is unknown whether this was done. Send the same request again with the same "
    "Idempotency-Key, if it has one; look first, if not."
)


def _message_alone(message: str) -> dict[str, str]:
    return {"message": message}


def answer_unavailable(
    app: "ApiGatewayResolver | Router", body: Callable[[str], Any] = _message_alone
) -> None:
    """Answer 503 with Retry-After where the database is full, slow, or just going away.

    That is: `DatabaseBusyError`, `DeadlineError`, and the server's own errors that pass by
    themselves and of which nothing is kept. `CommitOutcomeUnknownError` is 503, too, and says that
    it is unknown; so does a connection that was lost in a statement outside `transaction()` that
    changes rows: it is its own transaction. Any other error of the server passes on as it is. With
    SQLAlchemy, import it first: its errors are looked through.

    Args:
        app: A resolver for HTTP (API Gateway, ALB, function URL, VPC Lattice), or a Router of one.
        body: The body of an error, from its sentence, as the API's other errors have it;
            `{"message": …}` by default.
    """

    def unavailable(error: Exception, message: str) -> "Response[Any]":
        from aws_lambda_powertools import Logger  # noqa: PLC0415 - the module needs no Powertools
        from aws_lambda_powertools.event_handler import Response  # noqa: PLC0415 - the same

        seconds = getattr(error, "retry_after", 1)
        Logger().warning("Answered 503: %s", type(error).__name__, exc_info=error)
        return Response(
            status_code=HTTPStatus.SERVICE_UNAVAILABLE,
            content_type="application/json",
            headers={"Retry-After": str(max(1, math.ceil(seconds)))},
            body=body(message),
        )

    def busy(error: DatabaseBusyError | DeadlineError) -> "Response[Any]":
        return unavailable(error, BUSY)

    def unknown(error: CommitOutcomeUnknownError) -> "Response[Any]":
        return unavailable(error, UNKNOWN)

    def perhaps_passing(error: Exception) -> "Response[Any]":
        reason = getattr(error, "orig", error)  # SQLAlchemy's name for what the driver raised
        if not isinstance(reason, DriverError) or not _passes(reason):
            raise error
        return unavailable(error, UNKNOWN if OUTCOME_UNKNOWN in str(reason) else BUSY)

    app.exception_handler([DatabaseBusyError, DeadlineError])(busy)
    app.exception_handler(CommitOutcomeUnknownError)(unknown)
    app.exception_handler(DriverError)(perhaps_passing)
    if "sqlalchemy" in sys.modules:
        from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 - not everybody has it

        app.exception_handler(DBAPIError)(perhaps_passing)


def _passes(error: DriverError) -> bool:
    """Whether the server would not say the same of the same request a moment later."""
    code, text = (*error.args, "", "")[:2]
    return code in PASSING and (code != READ_ONLY or "read-only" in str(text))
