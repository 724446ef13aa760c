"""Waiting at a full database, in simulated time: what must hold whatever chance does."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from single_connection._admission import (
    BELIEVED_IN,
    FIRST_EXPECTATION,
    FIRST_PAUSE,
    FORGOTTEN,
    LONGEST_PAUSE,
    SLEPT_THROUGH,
    Admission,
    Refused,
)
from single_connection.errors import DatabaseBusyError

from local.simulation import TWO_CORES, Run, arrivals, closed_loop, spread

LIMIT = 65
HELD = spread(0.024)
POSSIBLE = LIMIT / 0.024


class Time:
    """A clock that pauses move on, and that can be set as a stop."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []
        self.stopped_after = 10**9

    def __call__(self) -> float:
        return self.now

    def wait(self, timeout: float) -> bool:
        self.pauses.append(timeout)
        self.now += timeout
        return len(self.pauses) > self.stopped_after


def patience(time: Time, seed: int = 1) -> Admission:
    return Admission(clock=time, uniform=random.Random(seed).uniform)


def expecting(time: Time, seconds: float) -> Admission:
    """Refused just now, expects to wait so long, and is left alone by chance."""
    admission = Admission(clock=time, uniform=lambda _low, _high: 1.0)
    admission.expected = seconds
    admission._full_at = time.now
    return admission


def door(time: Time, *, shut_until: float, takes: float = 0.001, code: int = 1040):
    """Refuses until that moment; each attempt takes its time."""

    def attempt() -> str:
        refused = time.now < shut_until
        time.now += takes
        if refused:
            raise Refused(code)
        return "admitted"

    return attempt


# One environment ------------------------------------------------------------------------------


def test_an_open_door_costs_one_attempt_and_no_pause():
    time = Time()
    assert patience(time).admit(door(time, shut_until=0), until=103, stop=time)[1:] == (1, 0.0)
    assert time.pauses == []


@given(
    seconds=st.floats(0.01, 900),
    seed=st.integers(0, 10**6),
    expected=st.floats(0.001, 100),
    takes=st.floats(0.0001, 0.05),
)
@settings(max_examples=200, deadline=None)
def test_nobody_pauses_beyond_the_deadline_and_work_keeps_half_of_the_time(
    seconds: float, seed: int, expected: float, takes: float
):
    time = Time()
    admission = patience(time, seed)
    admission.expected = expected
    until = time.now + seconds
    with pytest.raises(DatabaseBusyError) as busy:
        admission.admit(door(time, shut_until=1e9, takes=takes), until=until, stop=time)
    assert time.now <= until + takes
    assert max(time.pauses, default=0) <= min(seconds / 2, LONGEST_PAUSE * 1.05)
    assert busy.value.code == 1040
    assert busy.value.attempts >= 1
    assert busy.value.retry_after >= 1
    # A hopeless wait of fifteen minutes is not a denial of service: its knocks get rarer.
    assert busy.value.attempts < 40 + 12 * seconds


@given(expected=st.floats(0.01, 30), younger=st.floats(0, 30), by=st.floats(0.001, 30))
def test_up_to_the_expected_wait_who_has_waited_longer_pauses_shorter(
    expected: float, younger: float, by: float
):
    time = Time()
    admission = expecting(time, expected)
    if younger + by <= expected:
        assert admission.pause(younger + by) <= admission.pause(younger) + 1e-9


@given(expected=st.floats(0.01, 30), age=st.floats(0, 100), seed=st.integers(0, 10**6))
def test_a_knock_comes_when_it_is_due_never_much_later(expected: float, age: float, seed: int):
    """Overdue or not: what chance and growing intervals add stays small against the wait."""
    time = Time()
    admission = patience(time, seed)
    admission.expected = expected
    admission._full_at = time.now
    wait = age + admission.pause(age)
    assert wait <= max(1.05 * expected, age) + 0.15 + 0.35 * max(expected, age)


@given(times=st.floats(2, 100))
def test_a_wait_expected_too_long_is_unlearned(times: float):
    """Each admission at the first knock takes a little off; nothing is kept for ever."""
    time = Time()
    admission = patience(time)
    admission.expected = FIRST_EXPECTATION * times
    before = admission.expected
    for _ in range(30):
        admission.admit(door(time, shut_until=time.now + 0.0005), until=time.now + 99, stop=time)
    assert admission.expected < 0.6 * before


def test_a_wait_expected_too_short_is_learned_in_three_invocations():
    time = Time()
    admission = patience(time)
    for _ in range(3):
        admission.admit(door(time, shut_until=time.now + 1.0), until=time.now + 99, stop=time)
        time.now += 0.02
    assert admission.expected > 0.8


def test_what_was_met_long_ago_says_nothing():
    time = Time()
    admission = patience(time)
    admission.expected = 60.0
    time.now += FORGOTTEN + 1
    admission.admit(door(time, shut_until=time.now + 0.001), until=time.now + 99, stop=time)
    assert sum(time.pauses) < 2 * FIRST_EXPECTATION


def test_who_was_refused_just_now_goes_to_the_end_of_the_queue_and_later_does_not():
    time = Time()
    admission = patience(time)
    admission.admit(door(time, shut_until=time.now + 0.3), until=time.now + 9, stop=time)
    assert admission.first_pause() >= 0.9 * SLEPT_THROUGH * admission.expected
    time.now += 4 * admission.expected
    assert admission.first_pause() == 0.0


def crowded_server(time: Time, *, a_second: float) -> Callable[[Any], int]:
    """Numbers its connections, that many in a second."""
    began = time.now
    return lambda _: 1 + int((time.now - began) * a_second)


def unnumbered(_admitted: Any) -> None:
    """Of a server that tells no number."""


def met(
    time: Time,
    admission: Admission,
    number: Callable[[Any], int | None] = unnumbered,
    *,
    shut: float = 0.0,
    code: int = 1040,
    within: float = 9.0,
) -> None:
    """One invocation, at a door that is shut for so many seconds."""
    attempt = door(time, shut_until=time.now + shut, code=code)
    admission.admit(attempt, until=time.now + within, stop=time, number=number)


def met_a_crowd(time: Time, number: Callable[[Any], int]) -> Admission:
    """An environment that was refused in two invocations in a row, for half a second each."""
    admission = patience(time)
    for shut in (0.0, 0.5, 0.5):
        met(time, admission, number, shut=shut)
    time.pauses.clear()
    return admission


def slept(time: Time, admission: Admission, number: Callable[[Any], int | None]) -> float:
    """Seconds that forty invocations slept, one after the other, at a door that is open to them."""
    before = sum(time.pauses)
    for _ in range(40):
        met(time, admission, number)
    return sum(time.pauses) - before


def test_while_the_server_is_as_busy_as_when_it_was_full_the_crowd_is_believed_in():
    """Let in at the first knock after a sleep: so are most in a crowd that sleeps."""
    time = Time()
    number = crowded_server(time, a_second=900)
    admission = met_a_crowd(time, number)
    assert 0.8 * BELIEVED_IN < slept(time, admission, number) < BELIEVED_IN + 1


def test_when_the_server_numbers_few_connections_the_crowd_has_gone():
    time = Time()
    admission = met_a_crowd(time, crowded_server(time, a_second=900))
    quiet = 10**6
    assert slept(time, admission, lambda _: int(quiet + time.now)) < 2


@pytest.mark.parametrize("number", [None, 5])
def test_a_server_that_tells_no_number_or_began_anew_is_not_believed_full(number: int | None):
    """Nor is a failover's other server."""
    time = Time()
    admission = met_a_crowd(time, crowded_server(time, a_second=900))
    assert slept(time, admission, lambda _: number) < 2


@pytest.mark.parametrize("code", [1040, 2003])
def test_an_outage_in_which_invocations_gave_up_is_no_crowd(code: int):
    """Before it ended, nobody was there to number anything."""
    time = Time()
    admission = patience(time)
    number = crowded_server(time, a_second=20)
    over = time.now + 6.4
    for _ in range(2):
        with pytest.raises(DatabaseBusyError):
            met(time, admission, number, shut=over - time.now, code=code, within=2.5)
    for _ in range(2):
        met(time, admission, number, shut=over - time.now, code=code, within=2.5)
    assert slept(time, admission, number) < 4


def test_a_server_that_flaps_is_no_crowd():
    """Down for five seconds, up for a moment: what it numbers in between is little."""
    time = Time()
    admission = patience(time)
    number = crowded_server(time, a_second=200)
    met(time, admission, number)
    for _ in range(2):
        met(time, admission, number, shut=5.0, code=2003, within=20.0)
        time.now += 0.3
    assert slept(time, admission, number) < 4


def test_numbers_of_several_servers_take_away_no_experience():
    """An endpoint with two behind it, whose numbers are millions apart."""
    time = Time()
    admission = met_a_crowd(time, crowded_server(time, a_second=900))
    expected = admission.expected
    for turn in range(8):
        number = crowded_server(time, a_second=900)
        apart = 5_000_000 * (turn % 2)
        met(time, admission, lambda _, n=number, apart=apart: n(_) + apart, shut=0.5)
    assert admission.expected > 0.7 * expected


@given(age=st.floats(1, 800), seed=st.integers(0, 10**6))
def test_the_intervals_of_who_has_waited_long_grow_with_the_root_of_the_wait_alone(
    age: float, seed: int
):
    """Newcomers knock every few milliseconds: the oldest must not become the rarest."""
    time = Time()
    admission = patience(time, seed)
    admission._refusals = 20
    admission._full_at = time.now
    assert admission.pause(age) < max(1.0, 0.15 * age**0.5 * 1.5)


def test_each_refusal_more_is_answered_by_a_longer_sleep():
    """The first is short: what was met last may have been an outage; one more says it was not."""
    time = Time()
    with pytest.raises(DatabaseBusyError):
        met(time, expecting(time, 60.0), shut=1e9, within=60.0)
    assert time.pauses[:4] == [FIRST_PAUSE, FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert max(time.pauses) == LONGEST_PAUSE


def test_a_server_that_does_not_answer_is_asked_again_after_short_sleeps_however_long_it_takes():
    """It may be there again at any time, and then it is for all at once."""
    time = Time()
    with pytest.raises(DatabaseBusyError):
        met(time, expecting(time, 60.0), shut=1e9, code=2003, within=60.0)
    assert max(time.pauses) == FIRST_PAUSE


def test_an_invocation_that_is_over_stops_waiting_at_once():
    time = Time()
    time.stopped_after = 1
    with pytest.raises(DatabaseBusyError) as busy:
        patience(time).admit(door(time, shut_until=1e9, code=1203), until=1e9, stop=time)
    assert (busy.value.code, busy.value.attempts) == (1203, 2)


def test_other_errors_are_not_waited_for():
    time = Time()

    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        patience(time).admit(broken, until=1e9, stop=time)
    assert time.pauses == []


# Many environments ----------------------------------------------------------------------------


def test_at_the_limit_nobody_is_refused():
    run = closed_loop(LIMIT, LIMIT, HELD, seconds=2)
    assert run.busy == 0
    assert run.attempts_each < 1.05


def test_at_twice_the_limit_all_succeed_quickly_with_the_same_policy():
    run = closed_loop(2 * LIMIT, LIMIT, HELD, seconds=3, warm_up=2)
    assert run.success == 1.0
    assert run.percentile(0.99) < 0.3
    assert run.occupied > 0.9


@pytest.mark.parametrize("seed", [1, 2])
def test_at_ten_times_the_limit_all_succeed_and_nobody_starves(seed: int):
    callers = 10 * LIMIT
    run = closed_loop(callers, LIMIT, HELD, seconds=4, warm_up=10, seed=seed)
    queue = callers / run.throughput  # what first come, first served would give everyone
    assert run.success == 1.0
    assert run.occupied > 0.95
    assert run.attempts_each < 2.5
    assert run.percentile(0.99) < 2.5 * queue
    assert run.percentile(1.0) < 8 * queue


def test_many_that_come_at_once_without_experience_are_all_served():
    callers = 10 * LIMIT
    run = closed_loop([(0.0, 0.001)] * callers, LIMIT, HELD, seconds=3, warm_up=0)
    assert len(run.latencies) == callers
    assert run.attempts_each < 10
    assert run.percentile(1.0) < 4 * callers / POSSIBLE


def test_when_the_crowd_has_gone_nobody_sleeps_long():
    """618 of 650 stop at once: the connections are free, and the waits of before don't stay."""
    spans = [(0.0, 99.0)] * (LIMIT // 2) + [(0.0, 6.0)] * (10 * LIMIT - LIMIT // 2)
    after = closed_loop(spans, LIMIT, HELD, seconds=1, warm_up=7.5)
    assert after.percentile(0.99) < 0.1
    assert after.attempts_each < 1.05


def test_the_memory_of_a_jam_does_not_keep_connections_idle():
    """All expect five seconds, as after an outage; the queue is one second long."""

    def after_a_jam(clock: Callable[[], float], chance: random.Random) -> Admission:
        admission = Admission(clock=clock, uniform=chance.uniform)
        admission.expected = 5.0
        admission._full_at = 0.0
        return admission

    run = closed_loop(10 * LIMIT, LIMIT, spread(0.1), seconds=3, warm_up=5, policy=after_a_jam)
    assert run.occupied > 0.75
    assert run.success == 1.0


def test_after_an_outage_nobody_sleeps_long_at_an_open_door():
    """Somebody else had all connections for four seconds: that was no queue."""
    spans = [(0.0, 0.0)] * LIMIT + [(0.01, 99.0)] * 20
    held = [spread(4.0, 0.0)] * LIMIT + [spread(0.02)] * 20
    run = closed_loop(spans, LIMIT, held, seconds=3, warm_up=4, between=0.05)
    waited_for_the_end = [seconds - 4.0 for seconds in run.latencies if seconds > 3.5]
    afterwards = [seconds for seconds in run.latencies if seconds <= 3.5]
    assert max(waited_for_the_end) < 0.7
    assert max(afterwards) < 0.7


class Eager:
    """Knocks twenty times a second, whatever it meets: what a loop with a pause in it does."""

    def __init__(self, _clock: Callable[[], float], chance: random.Random) -> None:
        self.chance = chance

    def first_pause(self) -> float:
        return 0.0

    def pause(self, age: float) -> float:
        return 0.05 * self.chance.uniform(0.5, 1.5)

    def learn(self, waited: float, shut: float, number: int | None) -> None:
        pass


def crowded(
    held: float, *, times: int = 10, seconds: float = 6.0, warm_up: float = 15.0, **more: Any
) -> Run:
    """So many times the limit, on cores that knocks are paid from."""
    return closed_loop(
        times * LIMIT,
        LIMIT,
        spread(held),
        seconds=seconds,
        warm_up=warm_up,
        cpu=TWO_CORES,
        **more,
    )


@pytest.mark.parametrize("held", [0.02, 0.2])
def test_knocks_that_take_the_processors_are_a_collapse_in_the_simulation_too(held: float):
    eager, queue = crowded(held, policy=Eager), crowded(held, queue=True)
    assert eager.throughput < 0.5 * queue.throughput


@pytest.mark.parametrize("held", [0.02, 0.2])
def test_few_knocks_leave_the_processors_to_those_who_are_in(held: float):
    ours, queue = crowded(held), crowded(held, queue=True)
    assert ours.success == 1.0
    assert ours.throughput > (0.8 if held < 0.1 else 0.95) * queue.throughput
    assert ours.attempts_each < 2.0


@pytest.mark.parametrize("held", [0.02, 0.2])
def test_a_crowd_without_experience_gets_out_of_the_collapse_by_itself(held: float):
    """All 650 at once, and each knows nothing: as measured, most of the processors go to knocks."""
    ours, queue = (crowded(held, seconds=8, warm_up=12, queue=queue) for queue in (False, True))
    assert ours.success > 0.999
    assert ours.throughput > 0.85 * queue.throughput


def test_twenty_times_the_limit_is_no_collapse_either():
    ours, queue = (
        crowded(0.2, times=20, seconds=10, warm_up=30, queue=queue) for queue in (False, True)
    )
    assert ours.success > 0.99
    assert ours.throughput > 0.8 * queue.throughput


def test_functions_that_hold_long_and_short_share_the_connections():
    run = closed_loop(6 * LIMIT, LIMIT, [spread(0.02), spread(0.2)], seconds=5, warm_up=8)
    assert run.success == 1.0
    assert run.occupied > 0.95
    assert run.attempts_each < 4


def test_short_of_the_limit_in_open_traffic_waiting_is_rare_and_short():
    run = arrivals(0.9 * POSSIBLE, LIMIT, HELD, seconds=3, warm_up=2)
    assert run.success == 1.0
    assert run.attempts_each < 1.2
    assert run.percentile(0.99) < 0.1


def test_the_simulation_does_to_an_environment_what_admit_does():
    """The same chance, the same door: the same attempts at the same moments."""
    seconds_shut = 0.4
    time = Time()
    knocks: list[float] = []

    def attempt() -> None:
        knocks.append(time.now - 100.0)
        if time.now < 100.0 + seconds_shut:
            time.now += 0.001
            raise Refused(1040)

    patience(time, seed=7).admit(attempt, until=114.5, stop=time)

    class Door:
        """Held by another until then; the simulation's one connection."""

        def __call__(self, chance: random.Random) -> float:
            return seconds_shut

    seen: list[float] = []

    class Listening(Admission):
        __slots__ = ()

        def pause(self, age: float, *, full: bool = True) -> float:
            seen.append(age - 0.001)
            return super().pause(age, full=full)

    made: list[Admission] = []

    def policy(clock, _chance: random.Random) -> Admission:
        kind = Listening if made else Admission
        made.append(kind(clock=clock, uniform=random.Random(7).uniform))
        return made[-1]

    # The first caller takes the connection, the second meets the shut door.
    closed_loop(
        [(0.0, 0.0), (0.002, 0.002)], 1, Door(), seconds=1, warm_up=0, policy=policy, seed=3
    )
    assert len(seen) + 1 == len(knocks)
    for one, other in zip(seen, knocks, strict=False):
        assert one == pytest.approx(other, abs=0.002)
