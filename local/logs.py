"""An invocation's log as CloudWatch would show it, and as a person at a terminal can read it."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from local.environment import Answer
from local.template import Function

# Where a traceback stands in a line of JSON: Powertools' logger, its structured form (dropped: it
# says the same), and Lambda's own runtime client.
_TEXT, _STRUCTURED, _LINES = "exception", "stack_trace", "stackTrace"


def log_lines(answer: Answer, function: Function) -> str:
    """What CloudWatch would show: START, the function's own lines, END and REPORT."""
    request_id = answer.request_id
    milliseconds = answer.duration * 1000
    initialised = (answer.init_duration or 0.0) * 1000
    report = [
        f"REPORT RequestId: {request_id}",
        f"Duration: {milliseconds:.2f} ms",
        # Since August 2025 the init phase is billed, too.
        f"Billed Duration: {math.ceil(milliseconds + initialised)} ms",
        f"Memory Size: {function.memory} MB",
        f"Max Memory Used: {answer.max_memory_mb} MB",
    ]
    if answer.init_duration is not None:
        report.append(f"Init Duration: {initialised:.2f} ms")
    if answer.status not in {"ok", "error"}:
        report.append(f"Status: {'timeout' if answer.status == 'timeout' else 'error'}")
        report.append(f"Error Type: {answer.error_type}")
    lines = [f"START RequestId: {request_id} Version: $LATEST", answer.log.rstrip("\n")]
    if answer.status == "timeout":
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3]
        lines.append(f"{now}Z {request_id} Task timed out after {function.timeout:.2f} seconds")
    lines += [f"END RequestId: {request_id}", "\t".join(report)]
    return "\n".join(line for line in lines if line)


def readable(log: str) -> str:
    """The same log with the tracebacks that are inside lines of JSON written out below them."""
    return "\n".join(part for line in log.split("\n") for part in _parts(line))


def _parts(line: str) -> Iterator[str]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or not entry.keys() & {_TEXT, _LINES}:
        yield line
        return
    traceback = _traceback(entry)
    for key in (_TEXT, _STRUCTURED, _LINES):
        entry.pop(key, None)
    yield json.dumps(entry, ensure_ascii=False)
    yield from (f"    {one}" for one in traceback.rstrip("\n").split("\n"))


def _traceback(entry: dict[str, Any]) -> str:
    if isinstance(lines := entry.get(_LINES), list):
        said = f"{entry.get('errorType')}: {entry.get('errorMessage')}"
        return "".join(["Traceback (most recent call last):\n", *map(str, lines), said])
    return str(entry.get(_TEXT, ""))
