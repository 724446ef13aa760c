"""What an invocation's connection cost, in one EMF line, and a log line for anything unusual.

Through Powertools. Its Metrics are imported as the function starts, when Lambda lends it a whole
processor, and only where there is a namespace to send to; its Logger, when there is first something
to say.
"""

import os
import time
from collections.abc import Mapping
from typing import Any


class Measurements:
    """One invocation's figures; zero where nothing happened.

    Attributes:
        connect_seconds: From the last attempt's start until the connection was ready.
        attempts: How often the database was asked for a connection.
        waited_seconds: Spent waiting for admission.
        destroyed: Connections of our own that were ended.
        leaks: Connections found that were not our own.
        deadline_cuts: Connections taken away because the time was over.
        transaction_retries: Transactions run again after a deadlock or a lock-wait timeout.
        unconfirmed: Connections of which the server did not confirm that it let go.
    """

    __slots__ = (
        *("connect_seconds", "attempts", "waited_seconds", "destroyed", "leaks"),
        *("deadline_cuts", "transaction_retries", "unconfirmed"),
    )

    def __init__(self) -> None:
        """Nothing happened."""
        self.connect_seconds = 0.0
        self.attempts = 0
        self.waited_seconds = 0.0
        self.destroyed = 0
        self.leaks = 0
        self.deadline_cuts = 0
        self.transaction_retries = 0
        self.unconfirmed = 0


# Figures that go out whenever a connection was asked for; the others only when not zero, because
# CloudWatch bills a metric for each hour in which it is sent.
_ALWAYS = ("connect_seconds", "attempts")
_METRICS = {
    "connect_seconds": ("ConnectTime", "Milliseconds", 1000),
    "attempts": ("ConnectAttempts", "Count", 1),
    "waited_seconds": ("AdmissionWait", "Milliseconds", 1000),
    "destroyed": ("ConnectionsDestroyed", "Count", 1),
    "leaks": ("ConnectionLeaks", "Count", 1),
    "deadline_cuts": ("DeadlineCuts", "Count", 1),
    "transaction_retries": ("TransactionRetries", "Count", 1),
    "unconfirmed": ("ConnectionsUnconfirmed", "Count", 1),
}


class Telemetry:
    """Speaks for one function; sends no metrics without POWERTOOLS_METRICS_NAMESPACE."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Import Powertools' Metrics if there is a namespace."""
        self._environ = environ
        self._logger: Any = None
        self._metrics: Any = None
        self._lines: dict[tuple[str, ...], str] = {}
        if namespace := environ.get("POWERTOOLS_METRICS_NAMESPACE"):
            from aws_lambda_powertools.metrics import EphemeralMetrics  # noqa: PLC0415 - see above
            from aws_lambda_powertools.metrics.functions import (  # noqa: PLC0415
                is_metrics_disabled,
            )

            if is_metrics_disabled():
                return
            # Ephemeral: apart from the handler's own Metrics, which may be half-way.
            service = environ.get("POWERTOOLS_SERVICE_NAME", "service_undefined")
            self._metrics = EphemeralMetrics(namespace=namespace, service=service)

    def emit(self, measured: Measurements) -> None:
        """Print at most one EMF line: none where the invocation never asked for a connection."""
        if self._metrics is None or not (measured.attempts or measured.leaks):
            return
        figures = {
            name: value * factor
            for field, (name, _, factor) in _METRICS.items()
            if (value := getattr(measured, field)) or (field in _ALWAYS and measured.attempts)
        }
        line = self._line(tuple(figures)) % {"Timestamp": int(time.time() * 1000), **figures}
        print(line)  # noqa: T201 - as Powertools does; CloudWatch reads it there

    def _line(self, names: tuple[str, ...]) -> str:
        """The line with these metrics, as Powertools writes it, but for its figures.

        Put together once: each invocation's takes three times as long as filling in the figures.
        """
        if names not in self._lines:
            import json  # noqa: PLC0415 - Powertools has it where there is a namespace

            for name, unit, _ in _METRICS.values():
                if name in names:
                    self._metrics.add_metric(name=name, unit=unit, value=0)
            line = self._metrics.serialize_metric_set()
            self._metrics.clear_metrics()
            line["_aws"]["Timestamp"] = "<Timestamp>"
            line |= {name: [f"<{name}>"] for name in names}
            text = json.dumps(line, separators=(",", ":")).replace("%", "%%")
            for name in ("Timestamp", *names):
                text = text.replace(f'"<{name}>"', f"%({name})s")
            self._lines[names] = text
        return self._lines[names]

    def warn(self, message: str, context: Any, **details: Any) -> None:
        """Log something unusual, with the function's name and the request's id."""
        if self._logger is None:
            from aws_lambda_powertools import Logger  # noqa: PLC0415 - see above

            self._logger = Logger(service=self._environ.get("POWERTOOLS_SERVICE_NAME"))
        self._logger.warning(
            message,
            extra={
                "function_name": getattr(context, "function_name", None),
                "function_request_id": getattr(context, "aws_request_id", None),
                **details,
            },
        )
