"""The workflows run what everybody runs, and hold no key."""

import re
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from deploy.template import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_a_commit_with_their_version_beside_it(path: Path) -> None:
    uses = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_workflow_uses_a_stored_key(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "secrets." not in text
    assert "aws-access-key-id" not in text
    assert yaml.safe_load(text)["permissions"]["contents"] == "read"


def test_only_main_is_deployed_and_only_after_its_checks() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/deploy.yaml").read_text(encoding="utf-8"))
    trigger = workflow[True]["workflow_run"]  # YAML 1.1 reads the key `on` as true
    assert trigger["workflows"] == ["check"]
    assert trigger["branches"] == ["main"]
    [job] = workflow["jobs"].values()
    assert "github.ref == 'refs/heads/main'" in job["if"]
    assert "conclusion == 'success'" in job["if"]


def test_what_was_deployed_is_asked_whether_it_works() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/deploy.yaml").read_text(encoding="utf-8"))
    [job] = workflow["jobs"].values()
    commands = [step["run"].split() for step in job["steps"] if "make" in step.get("run", "")]
    assert [command[1] for command in commands] == ["deploy", "smoke"]
    assert all("ENVIRONMENT=prod" in command for command in commands)


def test_the_checks_are_everybodys() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yaml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make check", "make demo"]


def test_a_commit_is_checked_by_what_make_check_calls() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    [local] = hooks["repos"]
    called = {hook["entry"].split()[-1] for hook in local["hooks"]}
    [line] = re.findall(r"^check: (.*?) ##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert called == {*line.split()} - {"test", "test-3.13"} | {"test-quick"}


def test_a_release_is_checked_built_as_by_hand_and_attested_whole() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text(encoding="utf-8"))
    assert workflow[True]["push"].keys() == {"tags"}
    steps = workflow["jobs"]["release"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[0] == "make check"
    assert commands[1].startswith("make package TAG=")
    [attested] = [step["with"] for step in steps if "attest" in step.get("uses", "")]
    assert attested["subject-path"] == "build/package/*"
    assert commands[2].endswith(attested["subject-path"])


def test_a_tag_that_is_not_the_packages_version_is_refused() -> None:
    made = subprocess.run(
        [
            "make",
            "--silent",
            "package",
            "TAG=v0.0.1",
            "-o.venv/installed",
            "-o.venv-release/installed",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode != 0
    assert "v0.0.1 is not the package's version" in made.stderr


def test_dependabot_looks_where_there_is_something_to_update() -> None:
    config = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))
    [python] = [u for u in config["updates"] if u["package-ecosystem"] == "pip"]
    folders = {
        f"/{path.parent.relative_to(ROOT)}".removesuffix(".")
        for pattern in ("functions/*/requirements.txt", "layers/*/requirements.txt")
        for path in ROOT.glob(pattern)
    }
    given = python["directories"]
    assert "/" in given
    assert folders == {one for one in folders if any(fnmatchcase(one, each) for each in given)}
    named = {each for each in given if "*" not in each}
    assert named <= {"/", *folders}
