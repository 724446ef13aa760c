"""The private names of PyMySQL that the layer uses are there, do what it believes, and are all."""

import ast
import inspect
import re
from pathlib import Path

import pymysql
import pytest
import single_connection
from pymysql.connections import Connection, MySQLResult
from single_connection._driver.seams import SEAMS

LAYER = Path(single_connection.__file__).parent
DRIVER = sorted((LAYER / "_driver").glob("*.py"))
MODULES = sorted([*LAYER.glob("*.py"), *DRIVER])


def name_of(path: Path) -> str:
    """A module's name; the driver's parts are one."""
    return "_driver" if path in DRIVER else path.stem


def attributes(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def imports(path: Path) -> set[str]:
    """Top-level names of what a module imports, its own package's as `.name`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == (2 if path in DRIVER else 1):
            found |= {f".{node.module or name.name}" for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            continue  # another part of the driver
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_the_seams_are_the_private_names_that_are_used_or_replaced_and_no_others() -> None:
    theirs = {name for name in dir(Connection) + dir(MySQLResult) if re.match("_[a-z]", name)}
    # Set in __init__ only, so not on the class.
    theirs |= set(re.findall(r"self\.(_[a-z_]+) =", inspect.getsource(pymysql.connections)))
    used: set[str] = set()
    for path in DRIVER:
        if path.stem != "seams":
            used |= attributes(path) | set(re.findall(r"def (_[a-z_]+)\(self", path.read_text()))
    assert used & theirs == set(SEAMS)
    assert list(SEAMS) == sorted(SEAMS)


@pytest.mark.parametrize("name", SEAMS)
def test_a_private_name_is_there(name: str) -> None:
    source = inspect.getsource(pymysql.connections)
    assert re.search(rf"\b{name}\b", source)
    if callable(getattr(Connection, name, None)):
        assert re.search(rf"def {name}\(self", source)


SHAPES = {
    "_execute_command": "(self, command, sql)",
    "_force_close": "(self)",
    "_read_ok_packet": "(self)",
    "set_character_set": "(self, charset, collation=None)",
    "write_packet": "(self, payload)",
    "query": "(self, sql, unbuffered=False)",
}


@pytest.mark.parametrize("name", SHAPES)
def test_an_overridden_or_called_method_has_the_shape_the_layer_believes(name: str) -> None:
    assert str(inspect.signature(getattr(Connection, name))) == SHAPES[name]


def test_pymysql_sets_the_character_set_once_and_last_as_it_connects() -> None:
    """There the whole session set-up takes its place."""
    connect = inspect.getsource(Connection.connect)
    assert connect.count("self.set_character_set(self.charset, self.collation)") == 1
    assert connect.index("_request_authentication") < connect.index("set_character_set")


def test_pymysql_closes_the_connection_before_it_raises_a_loss() -> None:
    read = inspect.getsource(vars(Connection)["_read_bytes"])
    assert read.count("self._force_close()") == 3


def test_a_cursor_that_reads_row_by_row_reads_through_the_result() -> None:
    read = inspect.getsource(pymysql.cursors.SSCursor.read_next)
    assert "self._result._read_rowdata_packet_unbuffered()" in read
    assert "if self.unbuffered_active" in inspect.getsource(MySQLResult.__del__)


def test_only_driver_imports_pymysql_and_only_secretsmanager_reaches_boto3() -> None:
    knowing = {name_of(path) for path in MODULES if "pymysql" in imports(path)}
    # Beside the driver, the names of its errors are known to who runs a transaction again or kills.
    assert knowing == {"_driver", "_kill", "_transaction"}
    reaching = [path.stem for path in MODULES if imports(path) & {"boto3", "botocore"}]
    assert reaching == ["_secretsmanager"]


def test_the_layer_imports_nothing_of_ours_and_nothing_beyond_its_requirements() -> None:
    import sys

    allowed = set(sys.stdlib_module_names) | {"pymysql", "aws_lambda_powertools"}
    for path in MODULES:
        foreign = {name for name in imports(path) if not name.startswith(".")} - allowed
        # Lambda's runtime brings boto3 and the hooks of snapshots itself.
        there = {
            "sqlalchemy": {"sqlalchemy"},
            "powertools": {"sqlalchemy"},  # only where it is loaded already
            "_secretsmanager": {"boto3", "botocore"},
        }
        there["_snapshot"] = {"snapshot_restore_py"}
        assert foreign == there.get(path.stem, set()), path.stem


def test_arrows_between_the_modules_point_one_way() -> None:
    arrows: dict[str, set[str]] = {}
    for path in MODULES:
        arrows.setdefault(name_of(path), set()).update(
            name[1:] for name in imports(path) if name.startswith(".")
        )
    done: set[str] = set()
    while arrows:
        free = {name for name, targets in arrows.items() if targets <= done}
        assert free, f"a circle among {sorted(arrows)}"
        done |= free
        for name in free:
            del arrows[name]


def test_importing_the_layer_imports_neither_boto3_nor_sqlalchemy_nor_opens_anything() -> None:
    import subprocess
    import sys

    program = (
        "import sys\n"
        "sys.addaudithook(lambda e, a: e.startswith('socket.conn') and sys.exit('connected'))\n"
        "import single_connection, single_connection.testing\n"
        "database = single_connection.Database.from_environment({})\n"
        "database.invocation(lambda event, context: None)\n"
        "heavy = {'boto3', 'botocore', 'sqlalchemy', 'aws_lambda_powertools'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_has_a_docstring() -> None:
    bare = [
        name
        for name in single_connection.__all__
        if not (getattr(single_connection, name).__doc__ or "").strip()
    ]
    for member, thing in vars(single_connection.Database).items():
        if not member.startswith("_") and not (thing.__doc__ or "").strip():
            bare.append(f"Database.{member}")
    assert not bare
