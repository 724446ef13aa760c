"""The check that every test of the layer ends with can fail."""

import _thread
import threading
from collections.abc import Callable

import pytest

from layers.single_connection.tests.conftest import no_thread_left


@pytest.mark.parametrize(
    "start",
    [
        lambda run: threading.Thread(target=run).start(),
        # Unknown to `threading`, as the thread that watches the deadline may be.
        lambda run: _thread.start_new_thread(run, ()),
    ],
    ids=["threading", "_thread"],
)
def test_a_thread_that_is_left_fails_the_test_that_left_it(
    start: Callable[[Callable[[], object]], object],
) -> None:
    running, done = threading.Event(), threading.Event()
    with pytest.raises(AssertionError, match="1 threads are left"), no_thread_left(0.05):
        start(lambda: [step() for step in (running.set, done.wait)])
        running.wait()
    done.set()


def test_one_that_ends_soon_is_none_that_is_left() -> None:
    with no_thread_left(2):
        threading.Timer(0.05, lambda: None).start()
