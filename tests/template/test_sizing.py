"""The sizing rule's tables are computed, not guessed."""

import math
import re

from deploy import cost
from deploy.template import ROOT, read_budgets
from tests.template.conftest import Document

PAGE = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")
SIZES = ("micro", "small", "medium", "large")
KEPT = 15


def tables() -> list[list[list[str]]]:
    """Each table's rows of cells, without its head."""
    found = re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        for table in found
    ]


def smallest(budgets: Document, connections: int) -> str:
    for size in SIZES:
        if connections <= budgets[f"db.t3.{size}"].max_connections - KEPT:
            return size
    return "beyond"


def test_each_cell_is_the_rate_times_the_time_held(template: Document) -> None:
    budgets = read_budgets(template)
    connections, _ = tables()
    assert [row[0] for row in connections][-1] == "10,000"
    for rate, *cells in connections:
        for cell, held in zip(cells, (0.005, 0.02, 0.05, 0.2), strict=True):
            average = int(rate.replace(",", "")) * held
            needed = math.ceil(average + 3 * math.sqrt(average))
            assert cell == f"{needed:,} {smallest(budgets, needed)}"


def test_connects_a_second_follow_from_the_credits_earned() -> None:
    _, processor = tables()
    assert [row[0] for row in processor] == list(SIZES)
    for _, earned, steady, burst in processor:
        percent = int(earned.split()[0])
        assert int(steady) == 2 * percent * 10  # of two vCPUs, at a millisecond each
        assert burst == "2,000"


def test_the_numbers_named_in_the_text_are_the_budgets(template: Document) -> None:
    budgets = read_budgets(template)
    for size in SIZES:
        held = budgets[f"db.t3.{size}"].max_connections - KEPT
        assert f"{held} on a {size}" in " ".join(PAGE.split())
    difference = cost.INSTANCE_HOUR["db.t4g.small"] - cost.INSTANCE_HOUR["db.t4g.micro"]
    assert f"{difference * cost.HOURS:.2f} dollars a month more" in " ".join(PAGE.split())
    assert f"proxy {cost.PROXY:.2f}" in " ".join(PAGE.split())
