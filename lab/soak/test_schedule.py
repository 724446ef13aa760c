"""The schedule is a pure function of its seed, and deals every kind in turn."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lab.soak.faults import KINDS, schedule

ROOT = Path(__file__).resolve().parents[2]


@given(seed=st.integers(0, 2**32), seconds=st.floats(0, 2000))
def test_the_same_seed_gives_the_same_faults(seed: int, seconds: float) -> None:
    assert schedule(seed, seconds) == schedule(seed, seconds)


@given(seed=st.integers(0, 2**32), seconds=st.floats(0, 2000))
def test_every_fault_is_over_when_the_time_is(seed: int, seconds: float) -> None:
    for fault in schedule(seed, seconds):
        shortest, longest = KINDS[fault.kind].lasts
        assert fault.at >= 0
        assert fault.at + fault.lasts <= seconds + 0.02  # written down to hundredths
        assert shortest - 0.01 <= fault.lasts <= longest + 0.01


def test_another_process_draws_the_same_schedule() -> None:
    code = "from lab.soak.faults import schedule; print(schedule(7, 300))"
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "1"},
    )  # fmt: skip
    assert other.stdout.strip() == str(schedule(7, 300))


def test_another_seed_gives_other_faults() -> None:
    assert schedule(1, 300) != schedule(2, 300)


@given(seed=st.integers(0, 2**32))
def test_each_kind_strikes_before_any_strikes_again(seed: int) -> None:
    count = Counter(fault.kind for fault in schedule(seed, 600))
    assert set(count) == set(KINDS)
    assert max(count.values()) - min(count.values()) <= 1


def test_a_longer_soak_begins_like_a_shorter_one() -> None:
    shorter, longer = schedule(3, 100), schedule(3, 600)
    assert longer[: len(shorter)] == shorter


def test_every_kind_says_what_it_is_and_the_tests_it_names_exist() -> None:
    tests = "".join(
        file.read_text()
        for folder in ("layers", "tests", "lab")
        for file in (ROOT / folder).rglob("test_*.py")
    )
    for kind in KINDS.values():
        assert kind.says.endswith("."), kind.name
        assert not kind.shown_by or f"def {kind.shown_by}(" in tests, kind.name
