"""Whether an answer is one a caller was promised: a result, or a documented error in a sentence."""

import json
import re
from collections.abc import Collection, Iterable
from typing import Any

from local.environment import Answer

# Of the layer's own errors, those that a bad hour may bring: see single_connection.errors.
PASSING = {"DatabaseBusyError", "DeadlineError", "CommitOutcomeUnknownError", "CredentialsError"}
# Functions behind HTTP, and what their clients are answered 500 for, as somebody has to look.
APIS = {"orders_api"}
FOR_ALARMS = {"CredentialsError"}
# Of the driver's, which pass through: with numbers of MySQL's and MariaDB's error references.
DRIVERS = {"OperationalError", "InternalError", "DatabaseError", "InterfaceError"}
NUMBERS = {
    1020,  # MariaDB: a row has changed since it was read
    1053,  # the server is shutting down
    1205,  # a lock was waited for too long
    1213,  # deadlock
    1290,  # the server is read-only
    1317,  # the statement was killed
    1836,  # read-only, as in a failover
    1927,  # MariaDB: the connection was killed
    1969,  # MariaDB: max_statement_time
    2006,  # the server has gone away
    2013,  # lost during a query
    2055,  # lost, with the system's reason
    3024,  # max_execution_time
    3032,  # the server is shutting down or going offline
    3169,  # killed
    4031,  # the session was idle for longer than its lease
}
# What may end an invocation without a word of the function's.
KILLED = {"environment killed", "secret store silent", "secret store refusing"}
ENDS = {
    "exit": KILLED,
    "init_error": KILLED,
    "timeout": {"environment frozen"},
}
STATUSES = {200, 201, 404, 409, 422, 503}
BAD_IN_LOGS = re.compile(r"\(0, ''\)|Refused: \d+|exception ignored in", re.IGNORECASE)
BAD_WORDS = re.compile(r"Traceback|\(0, ''\)|Refused: \d+|\bNone\b|<class |object at 0x")


def outcome_of(answer: Answer | None) -> tuple[str, bool]:
    """What a client calls it, and whether it decides: a refusal for a reason does, too."""
    if answer is None:
        return "throttled", False
    if answer.status != "ok":
        return answer.error_type or answer.status, False
    status = _status(answer)
    if status is None:
        return "ok", True
    return str(status), status < 500


def what_is_wrong(
    function: str, answer: Answer, kinds: Collection[str], secrets: Iterable[str]
) -> list[str]:
    """Everything about the answer that was not promised, a sentence each.

    Args:
        function: whose answer; an API's client is told of passing troubles by 503 alone.
        answer: with its log.
        kinds: the kinds of faults that were at work around it.
        secrets: what no log and no answer may hold.
    """
    wrong = []
    text = answer.payload.decode(errors="replace")
    if any(secret in answer.log or secret in text for secret in secrets):
        wrong.append("a secret is in its log or its answer")
    if found := BAD_IN_LOGS.search(answer.log):
        around = answer.log[max(0, found.start() - 150) : found.end() + 150]
        wrong.append(f"words in its log that do not help: {_short(around)}")
    if answer.status in ENDS:
        if ENDS[answer.status].isdisjoint(kinds):
            during = ", ".join(sorted(kinds)) or "no fault"
            wrong.append(f"ended by {answer.status} during {during}: {_short(text)}")
    elif answer.status == "error":
        wrong += _about_error(function, text)
    elif (status := _status(answer)) is not None:
        wrong += _about_response(status, answer.json().get("body") or "")
    return wrong


def _about_error(function: str, text: str) -> list[str]:
    error = json.loads(text)
    kind, message = str(error.get("errorType", "")), str(error.get("errorMessage", ""))
    name = kind.rpartition(".")[2]
    if function in APIS and name not in FOR_ALARMS:
        return [f"a passing trouble that should be 503: {kind}: {_short(message)}"]
    if name in DRIVERS:
        number = re.search(r"\((\d{4}),", message)  # also where SQLAlchemy put its own before
        if not number or int(number[1]) not in NUMBERS:
            return [f"an error that is not documented: {kind}: {_short(message)}"]
    elif name not in PASSING:
        return [f"an error that is not documented: {kind}: {_short(message)}"]
    return [] if is_sentence(message) else [f"words that do not help: {kind}: {_short(message)}"]


def _about_response(status: int, body: str) -> list[str]:
    if status not in STATUSES:
        return [f"an answer that is not documented: {status} {_short(body)}"]
    if status < 400:
        return []
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return [f"no message in {status} {_short(body)}"]
    return [] if is_sentence(message) else [f"words that do not help: {status} {_short(message)}"]


def is_sentence(message: str) -> bool:
    """Whether somebody woken at two in the morning could read it: words, and no debris."""
    return len(message.split()) >= 4 and not BAD_WORDS.search(message)


def _status(answer: Answer) -> int | None:
    value: Any = answer.json()
    return value.get("statusCode") if isinstance(value, dict) else None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:299]}…"
