"""Each picture of the laboratory has its dark one, and each page shows the one that fits."""

import re
from pathlib import Path

import pytest

from lab.dark import COLOURS, SUFFIX, darken

LAB = Path(__file__).parent
PICTURES = [path for path in sorted(LAB.glob("*/*.svg")) if not path.stem.endswith(SUFFIX)]
PAGES = [LAB.parent / "README.md", *sorted(LAB.glob("*/*.md"))]


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_the_dark_picture_is_the_light_one_in_other_colours(path: Path) -> None:
    dark = path.with_name(f"{path.stem}{SUFFIX}.svg")
    assert dark.read_text("utf-8") == darken(path.read_text("utf-8")), "python -m lab.dark"


def test_nothing_of_a_light_page_is_left_in_it() -> None:
    for path in PICTURES:
        dark = darken(path.read_text("utf-8")).lower()
        assert not [colour for colour in COLOURS if colour in dark], path


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.parent.name)
def test_a_page_shows_the_picture_that_fits_its_background(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.findall(r"!\[[^\]]*\]\([^)]*\.svg\)", text) == []
    for dark, light in re.findall(r'srcset="([^"]+)">\s*<img alt="[^"]+" src="([^"]+)"', text):
        assert (page.parent / dark).exists()
        assert (page.parent / light).exists()
        assert Path(dark).stem == Path(light).stem + SUFFIX
