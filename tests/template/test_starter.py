"""A copy gets a function, loses it, and is as right as before; all of its checks: test_adopt.py."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.template import FUNCTION, ROOT, read_template
from local.fixtures import unmeasured
from starter import budget, function
from starter.stack import StackError, put_before

# Names that no function of yours has: these tests run in your copy, too.
NAME, LOGICAL = "starter_trial", "StarterTrial"
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "build", ".aws-sam", "__pycache__", ".*_cache", ".hypothesis", "node_modules"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """This project somewhere else, in a folder with a space, without git."""
    return Path(shutil.copytree(ROOT, tmp_path / "my bookings", ignore=LEFT_OUT))


def files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


def functions_of(root: Path) -> int:
    resources = read_template(root / "template.yaml")["Resources"]
    return sum(r["Type"] == FUNCTION for r in resources.values())


def run(root: Path, *command: str) -> str:
    # What is measured is the layer, not a copy of it.
    environ = unmeasured(os.environ)
    environ |= {"AWS_DEFAULT_REGION": "us-east-1", "SAM_CLI_TELEMETRY": "0"}
    done = subprocess.run(
        command, cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (
        f"{' '.join(command)}\n{done.stdout[-20000:]}\n{done.stderr[-2000:]}"
    )
    return done.stdout


@pytest.mark.parametrize("trigger", function.TRIGGERS)
def test_what_is_added_and_removed_again_leaves_its_table_alone(copy: Path, trigger: str) -> None:
    before, template = files(copy), (copy / "template.yaml").read_text(encoding="utf-8")
    function.add(NAME, trigger, copy)
    new = files(copy) - before
    assert {f"functions/{NAME}/app.py", f"tests/functions/test_{NAME}.py"} < new
    assert LOGICAL in read_template(copy / "template.yaml")["Resources"]
    function.remove(NAME, copy)
    left = {f for f in files(copy) - before if not f.startswith("build/removed/")}
    assert len(left) == 1
    assert left.pop().startswith("functions/migrate/migrations/")
    assert (copy / "template.yaml").read_text(encoding="utf-8") == template


def test_what_is_removed_can_be_had_back_though_it_was_never_committed(copy: Path) -> None:
    grants = copy / "functions/migrate/grants.toml"
    granted = grants.read_text(encoding="utf-8")
    for expected in (NAME, f"{NAME}-2"):
        function.add(NAME, "direct", copy)
        written = copy / "functions" / NAME / "app.py"
        written.write_text(f"# mine, {expected}\n", encoding="utf-8")
        function.remove(NAME, copy)
        kept = copy / "build" / "removed" / expected / "functions" / NAME / "app.py"
        assert kept.read_text(encoding="utf-8") == f"# mine, {expected}\n"
        grants.write_text(granted, encoding="utf-8")


def test_each_function_of_the_shop_can_be_taken_away(copy: Path) -> None:
    function.add(NAME, "http", copy)
    for name in ("orders_api", "stock_worker", "sales_report"):
        if (copy / "functions" / name).exists():  # not yet taken away
            function.remove(name, copy)
    template = (copy / "template.yaml").read_text(encoding="utf-8")
    for gone in ("OrdersApi", "StockWorker", "StockQueue", "SalesReport"):
        assert gone not in template.partition("\nResources:\n")[2], gone
    assert (copy / "template.yaml").stat().st_size > 50_000


def test_a_function_that_no_class_has_room_for_changes_nothing(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (copy / name).read_bytes() for name in files(copy)}
    monkeypatch.setattr(budget, "KEPT_FOR_PEOPLE", 60)
    with pytest.raises(budget.BudgetError, match=rf"they want .*{LOGICAL} 2"):
        function.add(NAME, "queue", copy)
    assert {name: (copy / name).read_bytes() for name in files(copy)} == before


@pytest.mark.parametrize(
    ("name", "trigger", "said"),
    [
        (NAME, "mail", "expected one of http, queue, schedule, direct"),
        ("VenueAdmin", "http", "expected words of lower-case letters"),
        ("", "http", "expected words of lower-case letters"),
        ("../x", "http", "expected words of lower-case letters"),
        ("migrate", "http", "There is a function migrate already"),
        ("products", "http", "There is a table products already"),
    ],
)
def test_a_name_or_a_trigger_that_is_none_is_refused(
    copy: Path, name: str, trigger: str, said: str
) -> None:
    before = files(copy)
    with pytest.raises(function.RefusedError, match=said):
        function.add(name, trigger, copy)
    assert files(copy) == before


@pytest.mark.parametrize("name", ["migrate", "connection_census", "rotate_secret", "nothing", ""])
def test_what_stays_or_is_not_there_is_not_removed(copy: Path, name: str) -> None:
    with pytest.raises(function.RefusedError, match="There is no function"):
        function.remove(name, copy)


def test_a_template_without_the_place_is_refused_with_a_sentence() -> None:
    with pytest.raises(StackError, match="has no place: expected one line 'ConnectionCensus:'"):
        put_before("Resources:\n", "  ConnectionCensus:\n", "")
