"""SQLAlchemy gives what it gives elsewhere, by its own dialect compliance suite."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.database import LocalDatabase
from local.fixtures import unmeasured

pytest.importorskip("sqlalchemy", reason="run `pip install SQLAlchemy`")

RUN = Path(__file__).parent / "compliance" / "run.py"
SECONDS = 800.0

# What comes out otherwise than on a plain engine without a pool, and the error it comes out with.
# These use a second connection beside the first, which is what the layer is there to refuse.
SECOND = "asked for inside an SQLAlchemy connection"
ARGUED = {
    "AutocommitIsolationTest::test_turn_autocommit_off_via_default_iso_level": SECOND,
    "IntegerTest::test_huge_int": SECOND,
    "IsolationLevelTest::test_invalid_level_execution_option": SECOND,
}
# An invocation for each test: without those on names and reflection, which are many and the same.
# (Temporary tables of the test before are expected by four: they went with its invocation.)
EACH = "not Reflection and not Bizarro and not QuotedName and not ArgSignature"

Outcomes = dict[str, list[str]]


def outcomes(server: LocalDatabase, directory: Path, mode: str, *more: str) -> Outcomes:
    """What became of each test of the suite."""
    server.reset()
    for schema in ("test_schema", "test_schema_2"):
        server.create_schema(schema)
    written = directory / f"{mode}.json"
    # Coverage of thousands of SQLAlchemy's own tests would take half as long again.
    done = subprocess.run(
        [sys.executable, RUN, mode, f"{server.server.flavor}+pymysql", written, *more],
        env=unmeasured(os.environ) | server.master_environ(),
        check=False,  # the suite fails where MySQL does not do what it asks for
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert written.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    found: Outcomes = json.loads(written.read_text())
    assert len(found) > 500, done.stdout[-3000:]
    return found


def unargued(control: Outcomes, ours: Outcomes) -> list[str]:
    """The differences that nobody argued for, and the arguments that no difference needs."""
    left, lines = set(ARGUED), []
    for test, (expected, _) in sorted(control.items()):
        outcome, said = ours.get(test, ["absent", ""])
        if expected == outcome:
            continue
        name = re.sub(r"_(mysql|mariadb)\+[^:]*|\[.*", "", test)
        if name in ARGUED and re.search(ARGUED[name], said):
            left.discard(name)
        else:
            lines.append(f"{test}: {expected} -> {outcome} {said}")
    return lines + [f"{name}: no difference any more" for name in sorted(left)]


@pytest.mark.slow
def test_the_suite_comes_out_as_on_a_plain_engine(server: LocalDatabase, tmp_path: Path) -> None:
    control = outcomes(server, tmp_path, "plain")
    assert sum(outcome == "passed" for outcome, _ in control.values()) > 1000
    one = outcomes(server, tmp_path, "one")
    assert unargued(control, one) == []
    if server.server.flavor == "mysql":  # where the invocations begin and end is the same on both
        each = outcomes(server, tmp_path, "each", "-k", EACH)
        assert unargued({test: control[test] for test in each}, each) == []
