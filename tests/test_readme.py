"""What the README shows works, and what it names is there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from single_connection.testing import LambdaContext

from deploy.template import read_template
from local.database import LocalDatabase
from tests.conftest import load_function

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
# lab/ may be deleted, with its targets; the README then still speaks of it.
LAB = ROOT / "lab"
LABS_TARGETS = r"bench|experiment|soak"
DOCUMENTS = [
    path
    for pattern in (
        *("*.md", "docs/*.md", "docs/guides/*.md"),
        *("examples/*/*.md", "lab/*/*.md", "layers/*/*.md"),
    )
    for path in sorted(ROOT.glob(pattern))
]


def name_of(path: Path) -> str:
    """As the tree has it."""
    return str(path.relative_to(ROOT))


def test_the_handler_of_the_readme_answers_from_a_real_database(
    shop: LocalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in shop.application_environ().items():
        monkeypatch.setenv(name, value)
    (code,) = [text for language, text in BLOCKS if language == "python"]
    handler: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), handler)
    answer = handler["lambda_handler"]({"id": 1}, LambdaContext())
    assert answer == {"name": "Espresso cup", "stock": 100}
    assert shop.sessions() == []


def test_the_answer_that_the_readme_shows_is_the_functions(shop: LocalDatabase) -> None:
    if not (ROOT / "functions/orders_api").exists():
        pytest.skip("the README speaks of the shop's API, and the shop was taken away")
    text = next(text for language, text in BLOCKS if "awscurl" in text)
    request, shown = text.splitlines()
    assert "/products?limit=2" in request
    event = json.loads((ROOT / "events/orders_api.products.json").read_text("utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shop.application_environ().items():
            patch.setenv(name, value)
        answer = load_function("orders_api").lambda_handler(event, LambdaContext())
    assert event["rawQueryString"] == "limit=2"
    assert json.loads(answer["body"]) == json.loads(shown)


def test_the_outputs_that_the_readme_shows_are_the_templates() -> None:
    text = next(text for language, text in BLOCKS if text.startswith("ApiUrl"))
    shown = [line.split()[0] for line in text.splitlines()]
    assert set(shown) <= set(read_template()["Outputs"])


@pytest.mark.slow
def test_sam_init_makes_a_project_that_is_complete(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout to be initialised from")
    (command,) = [line for _, text in BLOCKS for line in text.splitlines() if "sam init" in line]
    origin = tmp_path / "single-connection.git"
    subprocess.run(["git", "clone", "-q", "--bare", ROOT, origin], check=True)
    _, *words = shlex.split(command)
    place = words.index("--location") + 1
    assert words[place].startswith("git+https://")
    words[place] = f"git+file://{origin}"
    environ = {**os.environ, "SAM_CLI_TELEMETRY": "0", "HOME": str(tmp_path)}
    sam = Path(sys.executable).with_name("sam")
    subprocess.run(
        [sam, *words, "--no-input"], cwd=tmp_path, env=environ, check=True, capture_output=True
    )
    made = tmp_path / words[words.index("--name") + 1]
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "-z", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listed.stdout.split("\0") if name]
    assert len(names) > 100
    assert [name for name in names if not (made / name).exists()] == []


@pytest.fixture(scope="module")
def targets() -> set[str]:
    """What `make help` lists."""
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return set(re.findall(r"^  make (\S+)", listed, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_make_target_that_is_named_exists(document: Path, targets: set[str]) -> None:
    text = document.read_text("utf-8")
    shell = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`(make [^`]+)`", text.replace("\n", " "))
    used = set(re.findall(r"\bmake ([a-z][a-z0-9.-]*)", "\n".join([*shell, *inline])))
    if document.parent.parent.name == "layers":
        targets = targets | {"layer-zip"}  # in the Makefile beside it
    missing = used - targets
    if not LAB.exists():
        missing = {name for name in missing if not re.match(LABS_TARGETS, name)}
    assert missing == set()


def test_the_readme_begins_with_the_two_commands() -> None:
    first = next(text for language, text in BLOCKS if language == "sh")
    assert first.split() == ["make", "demo", "make", "test"]


def test_the_one_invocation_of_the_readme_answers(server: LocalDatabase) -> None:
    (line,) = [line for _, text in BLOCKS for line in text.splitlines() if "make invoke" in line]
    function, event = re.findall(r"=(\S+)", line)
    ran = subprocess.run(
        [sys.executable, "-m", "local.invoke", function, event],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "REPORT RequestId:" in ran.stderr
    assert "Espresso cup" in ran.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_to_a_file_leads_there(document: Path) -> None:
    text = document.read_text("utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    links += re.findall(r'\b(?:src|srcset|href)="(?!https?:|#)([^"]+)"', text)
    targets = {(document.parent / link).resolve() for link in links}
    dead = {target for target in targets if not target.exists()}
    assert {target for target in dead if LAB.exists() or not target.is_relative_to(LAB)} == set()


def test_every_setting_of_the_layer_is_in_the_readme() -> None:
    package = ROOT / "layers/single_connection/src/single_connection"
    source = "".join(path.read_text("utf-8") for path in package.glob("*.py"))
    names = set(re.findall(r'"(DATABASE_[A-Z_]+)"', source))
    assert len(names) > 8
    assert [name for name in names if f"`{name}`" not in README] == []


def test_decisions_stand_in_order_and_each_says_what_would_change_our_mind() -> None:
    text = (ROOT / "docs/decisions.md").read_text("utf-8")
    decisions = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    dates = [one[:10] for one in decisions]
    assert dates == sorted(dates)
    silent = [
        one.partition("\n")[0]
        for one in decisions
        if "change our mind" not in " ".join(one.split())
    ]
    assert silent == []
