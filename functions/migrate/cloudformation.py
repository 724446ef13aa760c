"""Answers CloudFormation, which waits an hour for an answer that is lost."""

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import urllib3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

SECONDS_FOR_ANSWER = 10  # kept from the work
ANSWER_BYTES = 4096  # CloudFormation takes no more

logger = Logger()
# At DEBUG urllib3 logs each address, and whoever has this one may answer in our place.
logging.getLogger("urllib3").setLevel(logging.INFO)
Work = Callable[[dict[str, Any], Any], dict[str, Any]]


class InvalidEventError(ValueError):
    """The event asks for something this function does not know."""


class UnansweredError(Exception):
    """CloudFormation did not take the answer and goes on waiting."""


def answer(event: dict[str, Any], context: LambdaContext, migrate: Work) -> dict[str, Any]:
    """Do what RequestType asks, and PUT the outcome to ResponseURL before the time is over.

    A failure is answered and not raised: Lambda would run the event twice again. An answer that
    does not get through is raised: then those two runs are two more chances for it.
    """
    answer = Answer(event)
    # A connection is cut in time by itself; this is for anything else that hangs.
    left = context.get_remaining_time_in_millis() / 1000
    too_late = ("FAILED", f"Not done within this function's timeout, {left:.0f} seconds.")
    watchdog = threading.Timer(
        max(left - 0.7 * SECONDS_FOR_ANSWER, left / 2), answer.give, too_late
    )
    watchdog.daemon = True
    watchdog.start()
    try:
        return answer.give(*outcome_of(event, context, migrate))
    finally:
        watchdog.cancel()


def outcome_of(event: dict[str, Any], context: LambdaContext, migrate: Work) -> tuple[str, str]:
    """Status and reason for CloudFormation; never an exception."""
    request = event["RequestType"]
    if request == "Delete":
        return "SUCCESS", "The schema and its data stay as they are."
    if request not in ("Create", "Update"):
        return "FAILED", f"RequestType must be Create, Update or Delete, and is {request!r}."
    try:
        done = migrate(event, ShorterContext(context))
    except BaseException as error:  # SystemExit too: whatever it was, CloudFormation is told
        logger.exception("Answered FAILED")
        return "FAILED", f"{type(error).__name__}: {error}"
    return "SUCCESS", f"Applied: {', '.join(done['applied']) or 'nothing new'}."


class ShorterContext:
    """The invocation's context with less time left, so that a deadline can still be answered."""

    def __init__(self, context: LambdaContext) -> None:
        self._context = context

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds for the work: all but the answer's, or half where that is more."""
        left = self._context.get_remaining_time_in_millis()
        return max(left - SECONDS_FOR_ANSWER * 1000, left // 2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class Answer:
    """What CloudFormation waits for: given once, by whoever comes first."""

    def __init__(self, event: dict[str, Any]) -> None:
        names = ("ResponseURL", "StackId", "RequestId", "LogicalResourceId")
        if missing := [name for name in names if not event.get(name)]:
            raise InvalidEventError(f"no event of CloudFormation's: {', '.join(missing)} missing")
        if odd := [name for name in names if not isinstance(event[name], str)]:
            raise InvalidEventError(f"no event of CloudFormation's: {', '.join(odd)} is not text")
        self._url = event["ResponseURL"]
        self._ids = {
            # Always the same: a new one would make CloudFormation delete this resource.
            "PhysicalResourceId": event.get("PhysicalResourceId", "database-migration"),
            **{name: event[name] for name in names[1:]},
        }
        if len(json.dumps(self._ids).encode()) > ANSWER_BYTES // 2:
            raise InvalidEventError("no event of CloudFormation's: its ids fill the whole answer")
        self._given: dict[str, Any] | None = None
        self._giving = threading.Lock()

    def give(self, status: str, reason: str) -> dict[str, Any]:
        """The answer that was given, this one or an earlier; raises if it is not delivered."""
        with self._giving:
            if self._given is None:
                self._given = self._put(status, reason)
            return self._given

    def _put(self, status: str, reason: str) -> dict[str, Any]:
        answer = {"Status": status, "Reason": reason, **self._ids}
        while len(body := json.dumps(answer).encode()) > ANSWER_BYTES:
            answer["Reason"] = answer["Reason"][: len(answer["Reason"]) * 3 // 4]
        try:
            response = urllib3.PoolManager().request(
                "PUT",
                self._url,
                body=body,
                headers={"Content-Type": ""},  # the URL is signed without one
                timeout=urllib3.Timeout(connect=1, read=1.5),
                retries=urllib3.Retry(2, backoff_factor=0.1, status_forcelist=[500, 502, 503, 504]),
            )
        except urllib3.exceptions.HTTPError as error:
            raise UnansweredError("CloudFormation's answer could not be delivered") from error
        if response.status >= 400:
            raise UnansweredError(f"CloudFormation's answer was refused: HTTP {response.status}")
        logger.info("Answered CloudFormation", extra={"answer": answer})
        return answer
