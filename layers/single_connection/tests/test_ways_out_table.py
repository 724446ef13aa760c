"""docs/ways-out.md names tests that exist, so that the table is true as long as they pass."""

import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parents[2] / "docs" / "ways-out.md"


def test_every_test_named_in_the_table_of_ways_out_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TABLE.read_text()))
    sources = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    assert len(named) > 30
    assert not {name for name in named if f"def {name}(" not in sources}


def test_every_line_of_each_table_has_a_test() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", TABLE.read_text(), re.MULTILINE)
    assert len(tables) == 2
    rows = [row for table in tables for row in table.splitlines()[2:]]
    assert len(rows) > 50
    assert not [row for row in rows if "`test_" not in row]
