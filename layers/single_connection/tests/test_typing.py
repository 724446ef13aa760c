"""What a user's type checker sees: real types, with nothing but the installed package."""

import re
import subprocess
import sys
from pathlib import Path

HANDLER = """
from typing import Any, assert_type

from single_connection import Cursor, Database, DatabaseBusyError
from single_connection.testing import FakeServer, LambdaContext, fake

database = Database.from_environment()
Row = dict[str, Any]


@database.invocation
def lambda_handler(event: Row, context: object) -> Row | None:
    with database.transaction() as cursor:
        assert_type(cursor.execute("SELECT name FROM products WHERE id = %s", (event["id"],)), int)
        assert_type(cursor.rowcount, int)
        for row in cursor:
            assert_type(row, Row)
        cursor.exexute("SELECT 1")  # wrong: attr-defined
        cursor.fetchone()["name"]  # wrong: index
        assert_type(cursor, Cursor)
    with database.cursor() as alone:
        assert_type(alone, Cursor)
        alone.execute("SELECT name FROM products")
        [one] = alone.fetchall()
        assert_type(one, Row)
    with database.connection().cursor() as plain:
        assert_type(plain.fetchone(), tuple[Any, ...] | None)
    database.connection().rolback()  # wrong: attr-defined
    return one


assert_type(lambda_handler({}, None), Row | None)
lambda_handler({})  # wrong: call-arg


@database.transactional
def rename(cursor: Cursor, number: int, name: str) -> bool:
    return bool(cursor.execute("UPDATE products SET name = %s WHERE id = %s", (name, number)))


assert_type(rename(7, "Mug"), bool)
rename("7", "Mug")  # wrong: arg-type
assert_type(DatabaseBusyError(1040, retry_after=1, attempts=2, waited=0.5).retry_after, float)

with fake(database) as server:
    assert_type(server, FakeServer)
    lambda_handler({"id": 1}, LambdaContext(3))
"""


def test_a_handlers_types_are_real_and_its_mistakes_are_found(tmp_path: Path) -> None:
    """Away from this tree and its configuration: found as installed, by its py.typed."""
    (tmp_path / "app.py").write_text(HANDLER)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "app.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = set(
        re.findall(r"^app\.py:(\d+): error: .*\[([a-z-]+)\]$", checked.stdout, re.MULTILINE)
    )
    wrong = {
        (str(number), match[1])
        for number, line in enumerate(HANDLER.splitlines(), 1)
        if (match := re.search(r"# wrong: ([a-z-]+)", line))
    }
    assert found == wrong, checked.stdout + checked.stderr
    assert checked.stdout.count(" error: ") == len(wrong), checked.stdout
