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

from lab.connect import cold_start, report
from lab.connect import measure as connect
from local.delay_proxy import DelayProxy
from local.servers import find_servers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `python -m lab.connect --quick` writes, at one server and with pure Python."""
    servers = find_servers()
    if not servers:
        pytest.skip("no database server: python -m local.servers install")
    pytest.importorskip("matplotlib")
    output = tmp_path_factory.mktemp("bench")
    sides = ["documented", "with_ca", "kept", "resumed", "early", "ours"]
    flavor = servers[0].flavor
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


def test_the_document_has_a_place_for_every_table() -> None:
    text = (ROOT / "lab" / "connect" / "README.md").read_text()
    for name in ("rivals-mysql", "steps-mysql", "rivals-mariadb", "targets", "parameters"):
        assert f"<!-- bench:begin {name} -->" in text
        assert f"<!-- bench:end {name} -->" in text


def test_a_process_that_imports_the_layer_imports_neither_boto3_nor_powertools() -> None:
    python = cold_start.find_python("3.13") or cold_start.find_python("3.11")
    if python is None:
        pytest.skip("neither Python 3.13 nor 3.11 works here")
    assert cold_start.measure(python, rounds=1)["must_not_be_imported"] == []


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
