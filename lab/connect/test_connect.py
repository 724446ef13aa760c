"""The connection benchmark works, measures what it says, and its document can be written anew."""

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.connect import cold_report, report
from lab.connect import measure as connect
from local.delay_proxy import DelayProxy
from local.servers import Server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def measured(either_server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `python -m lab.connect --quick` writes, at one server and with pure Python."""
    pytest.importorskip("matplotlib")
    output = tmp_path_factory.mktemp("bench")
    sides = ["documented", "with_ca", "kept", "resumed", "early", "ours"]
    flavor = either_server.flavor
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        arguments = ["--quick", "--server", flavor, "--output", str(output), "--sides", *sides]
        assert connect.main(arguments) == 0
    result = json.loads((output / "connect.json").read_text())
    result["output"], result["server"] = output, result["servers"][flavor]
    return dict(result)


def test_every_side_is_measured_at_every_door(measured: dict[str, Any]) -> None:
    doors = measured["server"]["doors"]
    assert set(doors) == {"direct", "0", "0.5", "2"}
    for door in ("direct", "0.5"):
        for side in ("documented", "with_ca", "kept", "ours"):
            one = doors[door][side]
            assert 0 < one["median_ms"] < 10_000
            assert one["client_cpu_ms"] > 0
            assert one["server_cpu_ms"] > 0


def test_who_is_called_verified_refuses_a_wrong_authority(measured: dict[str, Any]) -> None:
    verified = measured["server"]["verified"]
    assert verified == {
        "documented": False,
        "with_ca": True,
        "kept": True,
        "resumed": True,
        "early": True,
        "ours": True,
    }


def test_the_chart_is_drawn_and_the_table_names_every_side(measured: dict[str, Any]) -> None:
    assert (measured["output"] / "connect.png").read_bytes().startswith(b"\x89PNG")
    assert "this layer" in (measured["output"] / "connect.svg").read_text()
    assert "kept connection" in report.table(measured)


def test_the_tables_of_a_document_are_written_anew_and_nothing_else(
    measured: dict[str, Any],
) -> None:
    name = next(name for name in report.blocks(measured["output"]) if name.startswith("rivals"))
    begin, end = f"<!-- bench:begin {name} -->", f"<!-- bench:end {name} -->"
    once = report.fill(f"before\n{begin}\nold\n{end}\nafter", report.blocks(measured["output"]))
    assert once.startswith(f"before\n{begin}\n| connect")
    assert once.endswith(f"|\n{end}\nafter")
    assert report.fill(once, report.blocks(measured["output"])) == once


COLD = ("cold-start-targets", "cold-start", "cold-start-imports", "cold-start-memory")


def test_the_document_has_a_place_for_every_table() -> None:
    text = (ROOT / "lab" / "connect" / "README.md").read_text()
    for name in ("rivals-mysql", "steps-mysql", "rivals-mariadb", "targets", "parameters", *COLD):
        assert f"<!-- bench:begin {name} -->" in text
        assert f"<!-- bench:end {name} -->" in text


SIDES = {
    name: {"import": 50.0 + at, "first call": 10.0, "all": 60.0 + at, "added": 1.0}
    for at, name in enumerate([*cold_report.LABELS, "python", "pymysql", "layer"])
}


def test_cold_starts_are_reported_with_their_targets_and_a_missed_one_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documented = {"import": 150.0, "first call": 60.0, "all": 210.0}
    sides = SIDES | {"documented": documented, "documented, TLS": documented}
    assert cold_report.write({"sides": sides}, tmp_path) == 0
    written = json.loads((tmp_path / "cold_start.json").read_text())
    assert {target["met"] for target in written["targets"]} == {True}
    assert set(report.blocks(tmp_path)) == set(written["tables"])
    assert (tmp_path / "cold.svg").exists()
    slow = sides | {"ours": {"import": 40.0, "first call": 50.0, "all": 90.0}}
    assert cold_report.write({"sides": slow}, tmp_path) == 1
    assert "NOT MET" in capsys.readouterr().out


def test_the_estimate_has_the_import_at_a_full_core_and_the_call_at_its_share(
    tmp_path: Path,
) -> None:
    result: dict[str, Any] = {"sides": SIDES}
    cold_report.write(result, tmp_path)
    head, rows = result["tables"]["cold-start-memory"]
    assert head[-1] == "1769 MB"
    assert rows[0][-1] == "60"
    assert rows[0][1] == f"{50 + 10 * 1769 / 128:.0f}"


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that greets, and then repeats what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"hello")
                while data := client.recv(100):
                    client.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_the_proxy_takes_a_round_trip_for_each_answer_and_counts_them(echo: int) -> None:
    times = []
    with DelayProxy("127.0.0.1", echo, 0.02) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            began = time.monotonic()
            assert client.recv(100) == b"hello"
            times.append(time.monotonic() - began)
            for _ in range(5):
                began = time.monotonic()
                client.sendall(b"again")
                assert client.recv(100) == b"again"
                times.append(time.monotonic() - began)
        assert proxy.turns == 6
    assert min(times) >= 0.0199
    assert statistics.median(times) < 0.08  # of a busy machine
