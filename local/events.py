"""The events in `events/`, found by a short name: `<function>.<name>.json`."""

import json
import sys
from pathlib import Path
from typing import Any

from local.environment import ROOT

EVENTS = ROOT / "events"


class InputError(ValueError):
    """What was asked for cannot be done; the sentence says what was expected."""


def event_names(function: str, events: Path = EVENTS) -> list[str]:
    """The short names of a function's events, in the order of expected.json."""
    names = {
        file.name.removeprefix(f"{function}.").removesuffix(".json")
        for file in events.glob(f"{function}.*.json")
    }
    expected = events / "expected.json"
    order = list(json.loads(expected.read_text())) if expected.exists() else []
    places = {name.removeprefix(f"{function}."): place for place, name in enumerate(order)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def read_event(given: str, function: str = "", events: Path = EVENTS) -> Any:
    """The event that was asked for.

    Args:
        given: a short name, a path, JSON itself, or "-" for standard input.
        function: whose event it is, for a short name.
        events: the folder of the short names.

    Raises:
        InputError: there is no such event, or it is no JSON.
    """
    source = given
    try:
        if given == "-":
            source, text = "standard input", sys.stdin.read()
        elif given.lstrip().startswith(("{", "[")):
            source, text = "the event", given
        else:
            file = _find(given, function, events)
            source, text = str(file), file.read_text(encoding="utf-8")
        return json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the event file {source} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{source} is no JSON: {error}") from error


def _find(given: str, function: str, events: Path) -> Path:
    short = given.removesuffix(".json")
    for file in (Path(given), events / f"{function}.{short}.json", events / f"{short}.json"):
        if file.exists():
            return file
    known = ", ".join(event_names(function, events))
    has = f"{function} has: {known}" if known else "expected a file, a name of events/, or JSON"
    raise InputError(f"there is no event {given}; {has}")
