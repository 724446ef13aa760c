"""The experiment in small: the same three handlers, the same claims, ten connections."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lab.experiment.chart import draw
from lab.experiment.measure import claims, main, perform
from lab.experiment.outcome import TITLES, Outcome, Plan
from local.fleet import Sample
from local.servers import Server

PLAN = Plan(environments=13, at_work=2, limit=10, work_seconds=0.6, idle_seconds=0.3)


def outcome(handler: str, *, idle: int, failures: dict[str, int], over: int = 0) -> Outcome:
    samples = [Sample(n / 10, min(n, 10), 2, min(14, n)) for n in range(30)]
    return Outcome(
        handler=handler,
        title=TITLES[handler],
        warm_up_seconds=1.5,
        warm_up_failures={},
        init_median_ms=100.0,
        calls=100,
        ok=100 - sum(failures.values()),
        failures=failures,
        p50_ms=20.0,
        p99_ms=30.0,
        peak_sessions=10,
        sessions_when_idle=idle,
        most_in_flight=2,
        samples_over_in_flight=over,
        work_began=1.5,
        work_ended=2.3,
        samples=samples,
    )


KEPT = outcome("kept", idle=10, failures={"1040": 30})
OURS = outcome("ours", idle=0, failures={})


async def test_the_first_two_fill_the_server_and_fail_and_ours_never_holds_more_than_it_uses(
    either_server: Server, tmp_path: Path
) -> None:
    text = io.StringIO()
    report = await perform(either_server, PLAN, Console(file=text, width=100), tmp_path)
    assert report["right"], report["claims"]
    assert len(report["claims"]) == 7
    kept, pooled, ours = report["outcomes"]
    assert kept["peak_sessions"] == pooled["peak_sessions"] == PLAN.limit
    assert kept["failures"].keys() == pooled["failures"].keys() == {"1040"}
    assert ours["peak_sessions"] <= PLAN.at_work
    assert ours["calls"] == ours["ok"] > 0
    written = json.loads((tmp_path / "experiment.json").read_text())
    assert written == report
    assert written["facts"]["server"] == str(either_server)
    left = {path.name for path in tmp_path.iterdir()}
    pictures = {"connections.svg", "connections-dark.svg", "connections.png"}
    assert left == {"experiment.json", *pictures}
    assert "ours: no error" in text.getvalue()


def test_an_outcome_that_is_not_as_claimed_is_told() -> None:
    assert all(claims([KEPT, OURS], PLAN).values())
    assert not all(claims([replace(KEPT, sessions_when_idle=9)], PLAN).values())
    assert not all(claims([replace(KEPT, failures={})], PLAN).values())
    assert not all(claims([replace(OURS, sessions_when_idle=1)], PLAN).values())
    assert not all(claims([replace(OURS, failures={"1040": 1})], PLAN).values())
    assert not all(claims([replace(OURS, warm_up_failures={"1040": 1})], PLAN).values())
    assert not all(claims([replace(OURS, samples_over_in_flight=1)], PLAN).values())


def test_the_chart_is_the_same_for_the_same_samples_and_its_text_is_text(tmp_path: Path) -> None:
    first, second = (draw([KEPT, OURS], PLAN, tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    drawn = first[0].read_text()
    titles = (KEPT.title, OURS.title)
    for said in ("limit: 10", "30% of calls fail (1040)", "no call failed", *titles):
        assert said in drawn


@pytest.mark.parametrize(
    "arguments", [["--at-work", "0"], ["--environments", "5", "--at-work", "6"], ["--seconds", "0"]]
)
def test_an_impossible_plan_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "expected 0 < at work ≤ environments" in capsys.readouterr().err
