"""A fresh copy, in a folder with a space and without git, gets a name and is green as it is."""

import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from deploy.settings import read_environment
from deploy.template import FUNCTION, ROOT, read_template
from starter import adopt, function, shop
from tests.template.test_starter import copy, files, functions_of, run

__all__ = ["copy"]  # a fixture

FRESH = {*shop.FUNCTIONS, *function.KEPT}
pytestmark = pytest.mark.skipif(
    {path.parent.name for path in ROOT.glob("functions/*/app.py")} != FRESH,
    reason="functions were added or taken away here: make adopt is for a fresh copy",
)

# As the page on it has them; `test_starter.py`, which is run in the copy, has others.
NEW = {"venue_admin": "http", "mail_out": "queue", "tidy_up": "schedule", "look_up": "direct"}
# The layer keeps its name, and whoever uses it names it; locks say what asks for what.
OURS = re.compile(r"sam-single-connection|\bsingle-connection-(dev|prod)|\bshop\b", re.IGNORECASE)


def mentions(root: Path) -> set[str]:
    """Every file outside the package, with a name of ours in it."""
    return {
        name
        for name in files(root)
        if not name.startswith("layers/single_connection/") and not name.endswith((".png", ".pyc"))
        if OURS.search((root / name).read_text(encoding="utf-8", errors="replace"))
    }


def test_one_name_is_everywhere_and_ours_is_nowhere(copy: Path) -> None:
    adopt.adopt("bookings", "Ada Lovelace", keep_shop=False, root=copy)
    assert mentions(copy) == set()
    template = read_template(copy / "template.yaml")
    assert template["Parameters"]["DatabaseName"]["Default"] == "bookings"
    assert template["Parameters"]["ServiceName"]["Default"] == "bookings"
    assert read_environment(copy, "default").stack == "bookings-dev"
    assert read_environment(copy, "prod").stack == "bookings-prod"
    compose = yaml.safe_load((copy / "compose.yaml").read_text(encoding="utf-8"))
    assert compose["name"] == compose["networks"]["functions"]["name"] == "bookings"
    assert "Ada Lovelace" in (copy / "LICENSE").read_text(encoding="utf-8")
    assert (copy / "README.md").read_text(encoding="utf-8").startswith("# Bookings\n")
    assert not (copy / "lab").exists()
    assert "## " not in (copy / "docs" / "decisions.md").read_text(encoding="utf-8")
    folders = {
        r["Properties"]["CodeUri"] for r in template["Resources"].values() if r["Type"] == FUNCTION
    }
    assert folders == {f"functions/{name}/" for name in ("hello", *function.KEPT)}
    [migration] = (copy / "functions/migrate/migrations").glob("*.sql")
    assert migration.name == "0001_hello.sql"


@pytest.mark.parametrize("keep_shop", [False, True], ids=["hello", "shop"])
def test_no_page_of_it_leads_to_one_that_is_gone(copy: Path, keep_shop: bool) -> None:
    adopt.adopt("bookings", "", keep_shop=keep_shop, root=copy)
    pages = [*copy.glob("*.md"), *copy.glob("docs/**/*.md")]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(
            r"\]\(([^)#\s]+)|src(?:set)?=\"([^\"]+)", page.read_text(encoding="utf-8")
        )
    ]
    assert len(links) > 30
    dead = [
        f"{page.relative_to(copy)}: {link or image}"
        for page, (link, image) in links
        if "://" not in link and not (page.parent / (link or image)).exists()
    ]
    assert dead == []
    local = (copy / "docs/local.md").read_text(encoding="utf-8")
    assert ("8000/orders" in local) == keep_shop
    assert "\n## Settings\n" in (copy / "README.md").read_text(encoding="utf-8")
    assert "65 connections" not in (copy / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["", "Bookings", "my-bookings", "1a", "a" * 31])
def test_a_name_that_is_none_changes_nothing(copy: Path, name: str) -> None:
    before = files(copy)
    with pytest.raises(function.RefusedError, match="expected words of lower-case letters"):
        adopt.adopt(name, "", keep_shop=False, root=copy)
    assert files(copy) == before


def test_a_copy_with_a_function_of_the_same_name_is_left_as_it_is(copy: Path) -> None:
    hello = copy / "functions" / "hello"
    (hello / "__pycache__").mkdir(parents=True)  # as git leaves it: that alone is no function
    (hello / "app.py").write_text("")
    before = files(copy)
    with pytest.raises(function.RefusedError, match="There is a function hello already"):
        adopt.adopt("bookings", "", keep_shop=False, root=copy)
    assert files(copy) == before
    (hello / "app.py").unlink()
    adopt.adopt("bookings", "", keep_shop=False, root=copy)


def test_a_project_that_has_its_name_gets_no_other(copy: Path) -> None:
    adopt.adopt("bookings", "", keep_shop=True, root=copy)
    assert (copy / "functions" / "orders_api" / "app.py").is_file()
    assert "The Bookings authors" in (copy / "LICENSE").read_text(encoding="utf-8")
    with pytest.raises(function.RefusedError, match="This project is bookings already"):
        adopt.adopt("other", "", keep_shop=True, root=copy)


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize(
    "keep_shop",
    [
        pytest.param(False, id="hello"),
        # The shop under another name is what all the other tests are about: minutes for little.
        pytest.param(
            True, id="shop", marks=pytest.mark.skipif(
                not os.environ.get("EXHAUSTIVE"), reason="run it with EXHAUSTIVE=1"
            ),
        ),
    ],
)  # fmt: skip
def test_an_adopted_copy_with_a_function_of_each_trigger_less_one_passes_its_checks(
    copy: Path, keep_shop: bool
) -> None:
    adopt.adopt("bookings", "", keep_shop=keep_shop, root=copy)
    python = sys.executable
    pytest_ = (python, "-m", "pytest", "-n", "2", "-q", "--database", "mariadb")
    run(copy, python, "-m", "ruff", "check", ".")
    run(copy, python, "-m", "ruff", "format", "--check", ".")
    run(copy, *pytest_, "tests/functions/test_events.py", "tests/template/test_stack.py")
    before = functions_of(copy)
    for name, trigger in NEW.items():
        run(copy, python, "-m", "starter.function", "add", name, trigger)  # the copy's own
    run(copy, python, "-m", "starter.function", "remove", "mail_out")
    assert functions_of(copy) == before + len(NEW) - 1
    run(copy, python, "-m", "ruff", "check", ".")
    run(copy, python, "-m", "ruff", "format", "--check", ".")
    run(copy, python, "-m", "mypy")
    run(copy, str(Path(python).with_name("sam")), "validate", "--lint")
    run(copy, *pytest_, "-m", "not server and not slow", "tests/template", "tests/functions")
    mine = [f"tests/functions/test_{name}.py" for name in NEW if name != "mail_out"]
    run(copy, *pytest_, *mine, "tests/functions/test_events.py", "tests/functions/test_migrate.py")
