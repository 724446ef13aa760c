"""The command: a few seconds of it, with its report and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.soak import report
from lab.soak.__main__ import main
from lab.soak.faults import KINDS, schedule
from lab.soak.faults.kinds import Fault
from lab.soak.recovery import recoveries
from lab.soak.stage import Call, Struck
from local.servers import FLAVORS, ServerMissingError, require_server


@pytest.mark.server
@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_few_seconds_of_it_find_nothing_and_say_so(
    flavor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        require_server(flavor)  # type: ignore[arg-type]
    except ServerMissingError as error:
        pytest.skip(str(error))
    code = main(["--server", flavor, "--seconds", "10", "--seed", "5", "--output", str(tmp_path)])
    said = capsys.readouterr().out
    found = json.loads((tmp_path / f"{flavor}.json").read_text())
    assert found["violations"] == [], said
    assert code == 0
    assert "no violation" in said
    assert "--seed 5" in said
    assert found["orders_placed"] > 5
    assert found["deliveries_booked"] > 5
    planned = [(fault.kind, fault.at) for fault in schedule(5, 10)]
    assert sorted((one["kind"], one["planned"]) for one in found["schedule"]) == sorted(planned)
    for picture in (flavor, f"{flavor}-recovery"):
        assert (tmp_path / f"{picture}.svg").stat().st_size > 1000
        assert (tmp_path / f"{picture}.png").stat().st_size > 1000

    page = tmp_path / "faults.md"
    page.write_text(f"before\n{report.BEGIN}\nfigures of last year\n{report.END}\nafter\n")
    report.write_page([found], page)
    text = page.read_text()
    assert "last year" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert all(f"| {kind} |" in text for kind in KINDS)


def test_a_page_without_its_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="must hold"):
        report.write_page([], page)


def test_an_order_for_no_time_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seconds", "0"])
    assert "--seconds" in capsys.readouterr().err


def call(ended: float, client: str, *, good: bool = True) -> Call:
    return Call(ended - 0.1, 0.1, "orders_api", client, "201" if good else "503", good)


def struck(kind: str, began: float, ended: float) -> Struck:
    return Struck(Fault(began, ended - began, kind, 0), began, ended)


def test_recovery_counts_from_a_faults_end_to_the_first_and_to_the_last_served() -> None:
    calls = [call(1, "a"), call(1, "b"), call(3.0, "b", good=False), call(3.5, "a"), call(4.2, "b")]
    [one] = recoveries([struck("server full", 2, 3)], calls)
    assert one.first == pytest.approx(0.5)
    assert one.all == pytest.approx(1.2)
    assert one.told == {"orders_api: 503": 1}


def test_of_faults_that_overlap_nothing_is_said() -> None:
    calls = [call(1, "a"), call(5, "a")]
    for one in recoveries([struck("server full", 2, 3), struck("network slow", 2.5, 4)], calls):
        assert (one.first, one.all) == (None, None)
        assert not one.told
