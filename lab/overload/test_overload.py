"""The overload benchmark runs, leaves nothing behind, and agrees with the simulation."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.overload import node, scale, scenes

ROOT = Path(__file__).resolve().parent.parent.parent


def started(report: Path) -> subprocess.Popen[str]:
    """In a process of its own: it forks, and a `Database` in it would guard this one too."""
    return subprocess.Popen(
        [sys.executable, "-m", "lab.overload", "--quick", "--report", str(report)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def descendants(process: int) -> set[int]:
    found: set[int] = set()
    waiting = [process]
    while waiting:
        children = Path(f"/proc/{waiting.pop()}")
        for file in children.glob("task/*/children"):
            new = {int(pid) for pid in file.read_text().split()}
            found |= new
            waiting += new
    return found


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.usefixtures("either_server")
def test_a_quick_run_measures_every_side_and_ours_never_fails(tmp_path: Path):
    report_file = tmp_path / "overload.json"
    process = started(report_file)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    report = json.loads(report_file.read_text())
    sides = {"plain", "null_pool", "ours"}
    if shutil.which("npm"):
        sides.add("serverless_mysql")
    if importlib.util.find_spec("tenacity"):
        sides.add("backoff")
    if shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"):
        sides.add("queue")
        assert report["results"]["2"]["queue"]["success"] == 1.0
        assert report["results"]["2"]["queue"]["refused_by_server"] == 0
    assert set(report["slow"]["2"]) == sides & set(scenes.PATIENT)
    assert report["slow"]["2"]["ours"]["p50"] > 0.2
    assert report["published"]["30"]["ours"]["success"] == 1.0
    assert report["published"]["30"]["ours"]["peak"] <= 30 + 1
    for load in ("1", "2"):
        assert set(report["results"][load]) == sides
        assert report["results"][load]["ours"]["success"] == 1.0
        assert report["results"][load]["ours"]["peak"] <= scenes.LIMIT + 1
    assert report_file.with_suffix(".svg").exists()
    assert report_file.with_suffix(".png").exists()
    if "serverless_mysql" not in sides:
        pytest.skip(f"serverless-mysql was left out: {node.NODE_MISSING}")


@pytest.mark.usefixtures("either_server")
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_and_no_file(tmp_path: Path, how: signal.Signals):
    process = started(tmp_path / "overload.json")
    family: set[int] = set()
    until = time.monotonic() + 30
    while len(family) < 150 and time.monotonic() < until:
        family |= descendants(process.pid)
        time.sleep(0.05)
    assert len(family) >= 150, process.communicate(timeout=5)
    os.kill(process.pid, how)
    process.communicate(timeout=90)
    until = time.monotonic() + 20
    while (left := {pid for pid in family if running(pid)}) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == set()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("mysql-", "mariadb-"))]


def measured() -> dict[str, Any]:
    if not scale.MEASURED.exists():
        pytest.skip("nothing measured yet: run `make bench-overload`, then `… --write-docs`")
    figures: dict[str, Any] = json.loads(scale.MEASURED.read_text())
    return figures


def test_the_simulation_agrees_with_what_was_measured_within_stated_factors():
    """1.5 in throughput, 2.5 in attempts and p99: it knows nothing of the machine's scheduler."""
    for one in scale.compare(measured()):
        for figure, factor in (("throughput", 1.5), ("attempts", 2.5), ("p99", 2.5)):
            ratio = one[f"{figure}_simulated"] / one[figure]
            assert 1 / factor < ratio < factor, (one["load"], figure, ratio)


@pytest.mark.parametrize(("page", "name"), [("README.md", "overload"), ("scale.md", "scale")])
def test_the_pages_have_their_numbers_and_pictures(page: str, name: str):
    page = (ROOT / "lab" / "overload" / page).read_text()
    inside = page.partition("<!-- bench:begin -->")[2].partition("<!-- bench:end -->")[0]
    assert inside.count("\n|") > 4
    assert (ROOT / "lab" / "overload" / f"{name}.svg").exists()
    assert (ROOT / "lab" / "overload" / f"{name}.png").exists()
