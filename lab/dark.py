"""A picture for dark pages, from the one for light pages: the same drawing in other colours.

    python -m lab.dark lab/*/*.svg

Whatever draws a picture calls `write_dark`; a page shows the one or the other by <picture>.
"""

import re
import sys
from pathlib import Path

SUFFIX = "-dark"
INK = "#e6edf3"
# Text, and matplotlib's text as glyphs: black where nothing is said.
INKED = 'text,g[id^="text_"]'
# Paper, ink, what is faint, and our own colour; other series are bright enough as they are.
COLOURS = {
    "#ffffff": "#0d1117",
    "#000000": INK,
    "#222222": INK,
    "#767676": "#9198a1",
    "#b0b0b0": "#6e7681",
    "#d0d0d0": "#3d444d",
    "#0072b2": "#56a8de",
}


def darken(svg: str) -> str:
    """The picture in the colours of dark pages; text without a colour is black by default."""
    recoloured = re.sub(
        "|".join(COLOURS), lambda found: COLOURS[found[0].lower()], svg, flags=re.IGNORECASE
    )
    return re.sub(r"(<svg[^>]*>)", rf"\1<style>{INKED}{{fill:{INK}}}</style>", recoloured, count=1)


def write_dark(path: Path) -> Path:
    """Write the dark one beside `path`."""
    dark = path.with_name(f"{path.stem}{SUFFIX}.svg")
    dark.write_text(darken(path.read_text("utf-8")), "utf-8")
    return dark


if __name__ == "__main__":
    for given in map(Path, sys.argv[1:]):
        if not given.stem.endswith(SUFFIX):
            print(write_dark(given))
