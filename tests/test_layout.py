"""The tree says whose a thing is, and which way the arrows point."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("layers/single_connection/src/single_connection")
OURS = ("single_connection", "layers", "local", "lab", "deploy", "starter", "functions", "tests")
# Lambda itself has one: /var/task and /opt/python.
MAY_SET_A_PYTHON_PATH = {
    "local/environment.py",
    "local/docker/image.py",
    "lab/connect/cold_start.py",
    "layers/single_connection/tests/test_managed_instances.py",
}


def tracked(*patterns: str) -> list[Path]:
    """The files of the tree, those about to be added too, without what was built."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout: the tree's files cannot be listed")
    return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def imported(path: Path) -> Iterator[str]:
    """Which of our own top-level names a file imports, at its top or anywhere in it."""
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        yield from (top for name in names if (top := name.partition(".")[0]) in OURS)


def owner(path: Path) -> str:
    """Whose a file is; tests are of the folder they lie in."""
    if path.is_relative_to(PACKAGE):
        return "single_connection"
    if path.is_relative_to("layers"):
        return "layer's tests"
    if path.parts[0] in {"local", "lab"} and (
        "tests" in path.parts or path.name.startswith(("test_", "conftest"))
    ):
        return f"{path.parts[0]}'s tests"
    return path.parts[0]


MAY_IMPORT = {
    "single_connection": {"single_connection"},
    "functions": {"single_connection"},
    "examples": {"single_connection"},
    "deploy": {"deploy"},
    "starter": {"deploy", "starter"},
    "local": {"single_connection", "local"},
    "lab": {"single_connection", "local", "lab"},
    "layer's tests": {"single_connection", "layers", "local"},
    "local's tests": {"single_connection", "local"},
    "lab's tests": {"single_connection", "local", "lab"},
    "tests": {"single_connection", "local", "deploy", "starter", "tests"},
    "conftest.py": set(),
}


def test_arrows_point_one_way() -> None:
    """Package; local on it; lab on both; deploy alone; nothing on lab, and no function on ours."""
    wrong = {
        f"{path} imports {name}"
        for path in tracked("*.py")
        for name in imported(path)
        if name not in MAY_IMPORT[owner(path)]
    }
    assert wrong == set()


def test_every_owner_is_there() -> None:
    """Or the test above would hold for folders that were renamed."""
    there = {owner(path) for path in tracked("*.py")}
    deletable = {"lab", "lab's tests"} if not (ROOT / "lab").exists() else set()
    assert there == MAY_IMPORT.keys() - deletable


def modules(folder: str) -> dict[str, Path]:
    """The modules of a folder by their dotted name."""
    files = [p for p in tracked(f"{folder}/*.py") if "tests" not in p.parts]
    return {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
        if not path.name.startswith(("test_", "conftest"))
    }


@pytest.mark.parametrize("folder", ["local", "lab", "deploy"])
def test_no_circle_of_modules(folder: str) -> None:
    """Imports for types alone count too: who needs a name of the other is not beneath it."""
    if not (ROOT / folder).exists():
        pytest.skip(f"{folder}/ was deleted")
    known = modules(folder)
    arrows: dict[str, set[str]] = {}
    for name, path in known.items():
        found = set()
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
                found |= inner or {node.module} & known.keys()
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names} & known.keys()
        arrows[name] = found - {name}
    done: set[str] = set()
    while arrows:
        free = {name for name, targets in arrows.items() if targets <= done}
        assert free, f"a circle among {sorted(arrows)}"
        done |= free
        arrows = {name: targets for name, targets in arrows.items() if name not in free}


def test_nothing_is_found_by_a_trick_with_the_path() -> None:
    """The package is installed; everything else runs from the root."""
    here = Path(__file__).relative_to(ROOT)
    trick = re.compile(
        r"\bsys\.path\.(insert|append|extend)|\bsys\.path\b.*[^=]=[^=]|addsitedir|extraPaths"
    )
    tricks = []
    for path in tracked("*.py", "Makefile", "*/Makefile", "*.toml", ".github", ".ci", ".vscode"):
        text = (ROOT / path).read_text("utf-8")
        if path != here and trick.search(text):
            tricks.append(f"{path}: sys.path")
        if path != here and "PYTHONPATH" in text and str(path) not in MAY_SET_A_PYTHON_PATH:
            tricks.append(f"{path}: PYTHONPATH")
    assert tricks == []


def test_the_installed_package_is_that_of_the_tree() -> None:
    import single_connection

    assert Path(single_connection.__file__).parent == ROOT / PACKAGE


@pytest.fixture
def without_lab(tmp_path: Path) -> Path:
    """A copy of the tree as it is after `rm -r lab` and without its lines in the Makefile."""
    if not (ROOT / "lab").exists():
        pytest.skip("lab/ was deleted: this tree is that copy")
    copy = tmp_path / "tree"
    copy.mkdir()
    for path in tracked():
        if path.parts[0] != "lab":
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, copy / path, follow_symlinks=False)
    makefile = (copy / "Makefile").read_text("utf-8")
    labs = r"\.PHONY: (\S+)\n\1:.*\n(\t.* -m lab\..*\n)+\n"  # targets that run lab and nothing else
    without, deleted = re.subn(labs, "", makefile)
    assert deleted >= 3
    (copy / "Makefile").write_text(without)
    return copy


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """With this Python, in that folder, unmeasured: its files are copies."""
    environ = {name: os.environ[name] for name in os.environ if not name.startswith("COV")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_without_lab_every_test_is_collected_and_the_rules_hold(without_lab: Path) -> None:
    collected = run(without_lab, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")
    assert collected.returncode == 0, collected.stdout[-3000:] + collected.stderr[-3000:]
    assert "layers/single_connection/tests/test_ways_out.py" in collected.stdout
    quick = ["tests/test_readme.py", "-k", "leads_there or make_target"]
    ran = run(without_lab, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *quick)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


def test_without_lab_the_demo_says_in_one_line_that_the_experiment_is_left_out(
    without_lab: Path, tmp_path: Path
) -> None:
    """The recipe alone; what `local.demo` does has tests of its own."""
    stand_in = tmp_path / "environment" / "bin" / "python"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    (tmp_path / "environment" / "installed").touch()
    ran = subprocess.run(
        ["make", "--silent", "demo", f"VENV={tmp_path / 'environment'}"],
        cwd=without_lab,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said = "-m local.demo\nNo lab/experiment/ here: the experiment is left out.\n"
    assert ran.stdout == said


def test_every_file_that_is_named_anywhere_is_there() -> None:
    """Comments, docstrings and pages; from the root, or from where they stand."""
    named = r"(?<![\w/.-])((?:docs|lab|local|tests|layers|functions|deploy|examples)/[\w./-]+\.\w+)"
    package = Path("layers/single_connection")
    missing = []
    for path in tracked("*.py", "*.md", "*.yaml", "*.toml", "Makefile"):
        if path.name in {"CHANGELOG.md", "renamed.md"}:
            continue  # these speak of what was
        for name in re.findall(named, (ROOT / path).read_text("utf-8")):
            beside = any((ROOT / folder / name).exists() for folder in (".", path.parent, package))
            if not beside and ((ROOT / "lab").exists() or not name.startswith("lab/")):
                missing.append(f"{path} names {name}")
    assert missing == []
