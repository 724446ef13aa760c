"""The example that comes with a fresh copy, and how it is taken away."""

import ast
import re
from pathlib import Path

from starter import function

FUNCTIONS = ("orders_api", "stock_worker", "sales_report")
# What only the example's tests, pages and tables speak of.
SPEAKS = re.compile(
    r"orders_api|stock_worker|sales_report|OrdersApi|StockWorker|SalesReport"
    r"|\bFROM products\b|\b(?:shop)\.orders|\bproducts\b"
)
TESTS_OF_IT = (
    "tests/test_guides.py",
    "tests/test_pages.py",
    "tests/functions/test_any_event.py",
    "tests/functions/test_openapi.py",
    "tests/functions/test_page.py",
)
PAGES_OF_IT = (
    "shop.md",
    "serve.png",
    "serve-dark.png",
)


def take_away(root: Path) -> None:
    """Its functions, tables, rights, pages and tests; what is left starts with migration 0001."""
    migrate = root / "functions" / "migrate"
    own = sorted(path for path in (migrate / "migrations").glob("*.sql") if "hello" in path.name)
    for name in FUNCTIONS:
        function.remove(name, root, keep=False)
    for path in (migrate / "migrations").glob("*.sql"):
        if path not in own:
            path.unlink()
    for number, path in enumerate(own, 1):
        path.rename(path.with_name(f"{number:04}{path.name[4:]}"))
    grants = (migrate / "grants.toml").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in grants if line.startswith(("#", "hello ="))]
    (migrate / "grants.toml").write_text("".join(kept), encoding="utf-8")
    take_away_what_speaks_of_it(root)
    name_another(root)


# What stands for it where something is only named.
INSTEAD = (
    (r"\borders_api\.products\b", "hello.list"),
    (r"\borders_api\b", "hello"),
    (r"\b(?:OrdersApi|StockWorker|SalesReport)\b", "Hello"),
    (r"\b(?:stock_worker|sales_report)\b", "hello"),
    (r"EVENT=(?:products|place)\b", "EVENT=list"),
    (r"(127\.0\.0\.1:8000)/products\ncurl [^`]*", r"\1/hello\n"),
    (r"The second places an order:[^\n]*\n[^\n]*\n\n", ""),
    (r"\b(the|The|a) (?:toy )?shop\b", r"\1 service"),
)
NAMED_IN = (
    *("Makefile", "AGENTS.md", "CONTRIBUTING.md", "compose.yaml", "events/README.md"),
    *("local/**/*.py", "tests/**/*.py", "deploy/*.py", "layers/single_connection/tests/*.py"),
    *(".vscode/*.json", "docs/*.md", "docs/guides/*.md", "template.yaml"),
)


def name_another(root: Path) -> None:
    """Where an example is named, name what is left."""
    for path in (path for pattern in NAMED_IN for path in root.glob(pattern)):
        _replace(path, INSTEAD)


def _replace(path: Path, rules: tuple[tuple[str, str], ...]) -> None:
    text = path.read_text(encoding="utf-8")
    for pattern, by in rules:
        text = re.sub(pattern, by, text)
    path.write_text(text, encoding="utf-8")


def take_away_what_speaks_of_it(root: Path) -> None:
    """Pages and tests: whole files, or of a file that has others the functions."""
    for page in PAGES_OF_IT:
        (root / "docs" / page).unlink(missing_ok=True)
    for test in TESTS_OF_IT:
        (root / test).unlink(missing_ok=True)
    for path in (root / "local" / "tests").glob("test_*.py"):
        if SPEAKS.search(path.read_text(encoding="utf-8")):
            path.unlink()
    for path in [*root.glob("tests/functions/*.py"), *root.glob("tests/template/*.py")]:
        text = path.read_text(encoding="utf-8")
        if SPEAKS.search(text):
            path.write_text(without_what_speaks_of_it(text), encoding="utf-8")


def without_what_speaks_of_it(text: str) -> str:
    """A module without the functions that speak of the example; its other lines as they were."""
    lines = text.splitlines(keepends=True)
    for node in reversed(ast.parse(text).body):
        if not isinstance(node, ast.FunctionDef):
            continue
        first = min([node.lineno, *(one.lineno for one in node.decorator_list)]) - 1
        if SPEAKS.search("".join(lines[first : node.end_lineno])):
            del lines[first : node.end_lineno]
    return "".join(lines)
