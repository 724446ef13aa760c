"""The README's picture of the architecture is the template's."""

import re
from xml.etree import ElementTree as ET

import pytest

from deploy.picture import DARK, LIGHT, WIDTH, draw, functions, pictures
from deploy.template import read_budgets
from tests.template.conftest import ASKED_FOR, FUNCTIONS, Document

README_WIDTH = 830  # pixels of a README's column, at most
LEGIBLE = 12


def test_the_picture_is_what_the_template_makes(template: Document) -> None:
    stale = [path.name for path, text in pictures(template).items() if path.read_text() != text]
    assert not stale, "python -m deploy.picture"


def test_it_has_every_function_and_their_sum_is_the_budgets(template: Document) -> None:
    found = functions(template)
    assert {one.name for one in found} == FUNCTIONS.keys() - ASKED_FOR
    budget = read_budgets(template)[template["Parameters"]["DatabaseInstanceClass"]["Default"]]
    assert sum(one.reserved for one in found) == budget.reserved(proxy=False)


def test_a_function_that_is_added_is_drawn(template: Document) -> None:
    template["Resources"]["Hello"] = {
        "Type": "AWS::Serverless::Function",
        "Properties": {"ReservedConcurrentExecutions": 2},
    }
    picture = draw(template, LIGHT)
    assert ">Hello<" in picture
    assert ">by hand<" in picture


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_it_is_svg_legible_in_a_readme_by_light_and_in_the_dark(
    template: Document, colours: dict[str, str]
) -> None:
    picture = draw(template, colours)
    ET.fromstring(picture)
    sizes = [int(size) for size in re.findall(r'font-size="(\d+)"', picture)]
    assert min(sizes) * README_WIDTH / WIDTH >= LEGIBLE
    paper = _luminance(colours["paper"])
    for name in ("ink", "faint", "ours"):
        assert _contrast(_luminance(colours[name]), paper) >= 4.5  # WCAG 2.2, AA
    assert _contrast(_luminance(colours["on_ours"]), _luminance(colours["ours"])) >= 4.5


def _luminance(colour: str) -> float:
    """Relative, as WCAG defines it."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: float, other: float) -> float:
    high, low = max(one, other), min(one, other)
    return (high + 0.05) / (low + 0.05)
