"""What the documentation has from the template (picture, bill, what is cheaper), and its links."""

import re
from pathlib import Path

from deploy import cost, picture
from deploy.template import read_template

TABLES = {
    "README.md": re.compile(r"^\| what \| count \|.*\n(?:\|.*(?:\n|\Z))*", re.MULTILINE),
    "docs/cost.md": re.compile(r"^\| and then \|.*\n(?:\|.*(?:\n|\Z))*", re.MULTILINE),
}
LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
PICTURE = re.compile(
    r"^<picture>\n.*?\bsrc=\"([^\"]+)\">\n</picture>\n\n?", re.DOTALL | re.MULTILINE
)


def unlink_what_is_gone(root: Path) -> None:
    """A link to a page that is gone becomes its words; a picture, and a row of nothing else, go."""
    for path in (
        p for place in ("*.md", "docs/*.md", "docs/guides/*.md") for p in root.glob(place)
    ):
        folder = path.parent

        def is_dead(target: str, folder: Path = folder) -> bool:
            return "://" not in target and not (folder / target).exists()

        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [(line, LINK.findall(line) if line.startswith("|") else []) for line in lines]
        text = "".join(
            line for line, links in rows if not links or not all(is_dead(to) for _, to in links)
        )
        text = LINK.sub(lambda link: link[1] if is_dead(link[2]) else link[0], text)
        text = PICTURE.sub(lambda picture: "" if is_dead(picture[1]) else picture[0], text)
        path.write_text(text, encoding="utf-8")


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
