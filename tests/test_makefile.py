"""What the Makefile promises beyond calling commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RIVALS = ROOT / "requirements-rivals.lock"


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The Makefile and the rivals' lock, with a pip that cannot compile one of them."""
    for name in ("Makefile", RIVALS.name):
        shutil.copy(ROOT / name, tmp_path)
    pip = tmp_path / "venv" / "bin" / "pip"
    pip.parent.mkdir(parents=True)
    pip.write_text('#!/bin/sh\necho "$*" >> asked\ncase "$*" in *mysqlclient*) exit 1;; esac\n')
    pip.chmod(0o755)
    return tmp_path


def test_a_driver_that_cannot_be_compiled_takes_no_other_with_it(tree: Path) -> None:
    made = make("venv/rivals", "VENV=venv", "-ovenv/installed", cwd=tree)
    assert made.returncode == 0, made.stderr
    assert made.stderr.startswith("NOT INSTALLED: mysqlclient, see build/rivals/")
    pinned = set(re.findall(r"^([\w.-]+)==", RIVALS.read_text(), re.MULTILINE))
    asked = (tree / "asked").read_text().splitlines()
    assert {line.rpartition("/")[2].removesuffix(".txt") for line in asked} == pinned
    assert all("--require-hashes" in line for line in asked)
    assert not (tree / "venv" / "rivals").exists(), "the next run would not try again"


def test_coverage_is_a_gate_where_everything_ran_and_nowhere_else() -> None:
    old = ("-o.venv/installed", "-o.venv/rivals")
    assert "--fail-under=95" in make("-n", "test", *old).stdout
    part = make("-n", "test", "PYTEST=layers", *old).stdout
    assert "coverage report" in part
    assert "--fail-under" not in part


def test_what_is_measured_lies_below_build() -> None:
    assert 'data_file = "build/coverage/' in (ROOT / "pyproject.toml").read_text()


def test_the_quick_tests_wait_for_no_server() -> None:
    quick = make("-n", "test-quick", "-o.venv/installed").stdout
    assert "local.servers" not in quick
    assert '-m "not server and not slow"' in quick


def test_the_layer_is_packed_in_a_folder_with_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "my bücher"
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$*" >> "$ASKED"\n')
    python.chmod(0o755)
    shutil.copytree(ROOT / "layers/single_connection/src", folder / "layer" / "src")
    shutil.copy(ROOT / "layers/single_connection/Makefile", folder / "layer")
    asked, (version, made) = tmp_path / "asked", ("PYTHON_VERSION=3.11", f"PYTHON={python}")
    target = folder / "build" / "layer" / "python"
    # The package is copied into it after pip has made it.
    python.write_text(f'{python.read_text()}mkdir -p "{target}"\n')
    run = make(
        f"ASKED={asked}",
        version,
        made,
        f"DIST={folder / 'build'}",
        "layer-zip",
        "-C",
        str(folder / "layer"),
    )
    assert run.returncode == 0, run.stderr
    assert f"--target {target} " in asked.read_text()
