"""What the documentation has from the template: the picture, the bill, and what is cheaper."""

import re
from pathlib import Path

from deploy import cost, picture
from deploy.template import read_template

TABLES = {
    "README.md": re.compile(r"^\| what \| count \|.*\n(?:\|.*(?:\n|\Z))*", re.MULTILINE),
    "docs/cost.md": re.compile(r"^\| and then \|.*\n(?:\|.*(?:\n|\Z))*", re.MULTILINE),
}


def renew(root: Path) -> None:
    """Write each of them anew, where it is."""
    template = read_template(root / "template.yaml")
    made = {
        "README.md": cost.markdown(cost.price(template, {})),
        "docs/cost.md": cost.cheaper(template),
    }
    for name, table in TABLES.items():
        path = root / name
        if path.exists():
            text = path.read_text(encoding="utf-8")
            path.write_text(table.sub(f"{made[name]}\n", text), encoding="utf-8")
    for drawn, text in picture.pictures(template).items():
        path = root / "docs" / drawn.name
        if path.exists():
            path.write_text(text, encoding="utf-8")
