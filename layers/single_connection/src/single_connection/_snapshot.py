"""SnapStart: nothing secret in a snapshot, and the first invocation prepared as it is restored."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any


def is_taken(environ: Mapping[str, str]) -> bool:
    """Whether Lambda takes a snapshot of this environment once it is initialised."""
    return environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"


def register(
    environ: Mapping[str, str], *, forget: Callable[[], Any], prepare: Callable[[], Any]
) -> None:
    """Call `forget` before a snapshot is taken, and `prepare` in each copy as it is restored.

    Only where a snapshot is taken: elsewhere nothing happens, and importing a handler needs
    neither network nor AWS. What fails in `prepare` is left to the first invocation, which says it
    with the time it has; in the hook it would take the environment down (Lambda gives all of them
    ten seconds).
    """
    if not is_taken(environ):
        return
    try:
        from snapshot_restore_py import (  # noqa: PLC0415 - Lambda's runtime brings it
            register_after_restore,
            register_before_snapshot,
        )
    except ImportError:
        return  # another runtime: then the first invocation does it

    def restored() -> None:
        with contextlib.suppress(Exception):
            prepare()

    register_before_snapshot(forget)
    register_after_restore(restored)
