"""Makes a fresh copy of this project yours: `make adopt NAME=bookings [KEEP_SHOP=1] [HOLDER=…]`.

One name gives stack, schema, service, compose project, network and README. The example's functions
go with their tests, tables and events, and one that says hello stays; what is told of this project
itself (its benchmarks, changelog and decisions) goes too. The layer is left as it is.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.template import ROOT, read_template
from starter import budget, function, pages, shop

# In the order in which they are looked for: the longer first.
PREFIX = re.compile(
    r"sam-single-connection|(?<![\w-])single-connection(?=-(?:dev|prod)\b|\s+environment=)"
    r"|(?<=StackPrefix:\n    Type: String\n    Default: )single-connection"
)
WORD = re.compile(r"(?<!\w)(?<![Tt]he )(?<!\ba )shop(?!\w|\.md|\.proxy)")
TITLE = re.compile(r"(?<!\w)Shop(?!\w)")
KINDS = {".py", ".yaml", ".yml", ".toml", ".json", ".sql", ".html", ".md", ".txt", ".lock", ""}
NOT_OURS = {".git", "build", ".aws-sam", "src", "lab", "node_modules"}
TOLD_OF_US = ("lab", "benchmarks", "docs/renamed.md", "docs/faults.md")
STARTED_ANEW = {
    "CHANGELOG.md": "# Changelog\n\n## Unreleased\n",
    "docs/decisions.md": "# Decisions\n\n"
    "Each with its day: what we chose, against what, why, and what would change our mind.\n",
}
SETTINGS = re.compile(r"^## Settings\n.*?(?=^## )", re.DOTALL | re.MULTILINE)
DONE_WITH = ("starter/adopt.py", "starter/shop.py", "tests/template/test_adopt.py")
PAGES_OF_US = (
    "tests/test_readme.py",
    "tests/test_layout.py",
    "tests/template/test_smoke_and_load.py",
)


def texts(root: Path) -> Iterator[Path]:
    """Every file that a name may stand in; of the layer, its tests alone."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if NOT_OURS & set(parts) or any(p.startswith(".venv") or "cache" in p for p in parts):
            continue
        if parts[0] == "layers" and "tests" not in parts:
            continue
        if path.is_file() and path.suffix in KINDS:
            yield path


def rename(root: Path, name: str) -> None:
    """The project's names, each wherever it stands."""
    prefix, title = name.replace("_", "-"), name.replace("_", " ").capitalize()
    for path in texts(root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        new = TITLE.sub(title, WORD.sub(name, PREFIX.sub(prefix, text)))
        if new != text:
            path.write_text(new, encoding="utf-8")


def forget(root: Path) -> None:
    """Take away what is told of this project, and what runs it."""
    for told in (*TOLD_OF_US, *PAGES_OF_US):
        path = root / told
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for page, text in STARTED_ANEW.items():
        (root / page).write_text(text, encoding="utf-8")
    for told in ("Makefile", "docs/local.md"):
        edit(root / told, r", then 200 environments against 65 connections", "")
    edit(root / "pyproject.toml", r'"lab", "layers', '"layers')
    edit(root / "pyproject.toml", r', "lab"\]', "]")
    edit(root / "pyproject.toml", r'^"(\{lab/\*\*/test_\*,conftest\}\.py|lab/\*\*)" = .*\n', "")
    edit(root / "pyproject.toml", r",lab/connect/cold\}", "}")
    edit(
        root / "Makefile",
        r"^(?:#.*\n)*\.PHONY: [\w-]+\n[\w-]+:.*\n(?:\t.*\n)*?\t.*-m lab\..*\n\n",
        "",
    )
    edit(
        root / ".github/dependabot.yml",
        r"^  - package-ecosystem: npm\n    directory: /lab.*\n.*\n",
        "",
    )


def edit(path: Path, pattern: str, by: str) -> None:
    """Every place where the pattern matches, line by line."""
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(pattern, by, text, flags=re.MULTILINE), encoding="utf-8")


def adopt(name: str, holder: str, *, keep_shop: bool, root: Path = ROOT) -> None:
    """All of it, in a copy that nobody has changed yet.

    Raises:
        RefusedError: the name is none, or it was done already.
    """
    if not function.NAME.fullmatch(name) or len(name) > 30:
        raise function.RefusedError(
            f"NAME is {name!r}; expected words of lower-case letters and digits with an "
            "underscore between, like bookings, 30 characters at most."
        )
    schema = read_template(root / "template.yaml")["Parameters"]["DatabaseName"]["Default"]
    if schema != "shop":
        raise function.RefusedError(f"This project is {schema} already; adopt is for a fresh copy.")
    if not keep_shop:
        function.add("hello", "http", root)  # first: it may refuse, and then nothing was done
    forget(root)
    if not keep_shop:
        shop.take_away(root)
    for done in DONE_WITH:
        (root / done).unlink(missing_ok=True)
    edit(root / "Makefile", r"^\.PHONY: adopt\nadopt:.*\n(?:\t.*\n)*\n", "")
    rename(root, name)
    title = name.replace("_", " ").capitalize()
    readme = function.PARTS.joinpath("README.md").read_text(encoding="utf-8")
    settings = SETTINGS.findall((root / "README.md").read_text(encoding="utf-8"))
    text = "\n".join([readme.replace("@Name@", title), *settings]).rstrip() + "\n"
    (root / "README.md").write_text(text, encoding="utf-8")
    edit(root / "LICENSE", r"^(Copyright \(c\) \d+) .*", rf"\1 {holder or f'The {title} authors'}")
    path = root / "template.yaml"
    rows = budget.compute(read_template(path))
    path.write_text(budget.written(path.read_text(encoding="utf-8"), rows), encoding="utf-8")
    pages.renew(root)
    pages.unlink_what_is_gone(root)
    for command in (("check", "--fix", "--exit-zero", "--silent"), ("format", "--quiet")):
        ruff = [sys.executable, "-m", "ruff", *command, "."]
        subprocess.run(ruff, cwd=root, check=False)  # noqa: S603 - `make lint` says what is left


def main(arguments: list[str]) -> int:
    """Do it; 1 and a sentence if it cannot be done."""
    name, keep, holder, *_ = [*arguments, "", "", ""]
    try:
        adopt(name, holder, keep_shop=keep not in ("", "0"))
    except (function.RefusedError, budget.BudgetError) as error:
        print(f"Nothing was done. {error}", file=sys.stderr)
        return 1
    print(
        f"This is {name} now; README.md is new, and commit what has changed. "
        "Try: make serve, make test-quick, make check."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
