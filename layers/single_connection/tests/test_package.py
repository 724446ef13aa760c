"""The package stands alone: built, installed where nothing else of this tree is, and used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import single_connection

FOLDER = Path(__file__).resolve().parents[1]
SOURCE = FOLDER / "src" / "single_connection"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL
)


def run(*command: str | Path, cwd: Path) -> str:
    """Without what this tree's tests have in their environment."""
    environ = {
        name: os.environ[name] for name in os.environ if not name.startswith(("COV", "PYTHON"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution, and a wheel that was built from that alone."""
    output = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, FOLDER, cwd=output)
    return output


def test_the_version_stands_in_one_place_and_the_changelog_knows_it(built: Path) -> None:
    number = single_connection.__version__
    assert tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["dynamic"] == [
        "version"
    ]
    assert version("single-connection") == number, "installed before it changed: install it again"
    assert f"\n## {number}\n" in (FOLDER / "CHANGELOG.md").read_text()
    assert {path.name for path in built.iterdir()} == {
        f"single_connection-{number}.tar.gz",
        f"single_connection-{number}-py3-none-any.whl",
    }


def test_wheel_and_source_hold_every_file_of_the_package_and_no_test(built: Path) -> None:
    files = {
        str(path.relative_to(SOURCE.parent))
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    [wheel] = built.glob("*.whl")
    [source] = built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files
    data = {"py.typed", "rds_roots/eu-west-1.pem", "amazon_roots/roots.pem"}
    assert {f"single_connection/{name}" for name in data} <= names
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - {".gitignore"} == {
        *(f"src/{name}" for name in files),
        *("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO"),
    }


def test_the_licence_is_that_of_the_starter() -> None:
    assert (FOLDER / "LICENSE").read_text() == (FOLDER.parents[1] / "LICENSE").read_text()


def test_what_lambda_gets_is_pinned_by_hash_and_is_what_the_package_needs_to_run() -> None:
    pinned = set(
        re.findall(r"^([\w-]+)==", (FOLDER / "requirements.txt").read_text(), re.MULTILINE)
    )
    assert (FOLDER / "requirements.txt").read_text().count("--hash=sha256:") >= len(pinned)
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}  # type: ignore[index]
    wanted = {name for name in wanted if not name.startswith("types-")}  # nobody runs types
    assert wanted <= {name.lower() for name in pinned}


@pytest.mark.slow
def test_installed_where_nothing_else_is_the_examples_of_the_readme_hold(
    built: Path, tmp_path: Path
) -> None:
    [wheel] = built.glob("*.whl")
    run(sys.executable, "-m", "venv", "environment", cwd=tmp_path)
    python = tmp_path / "environment" / "bin" / "python"
    try:
        run(python, "-m", "pip", "install", "--quiet", "--retries", "0", wheel, cwd=tmp_path)
    except AssertionError as error:
        if re.search(r"NewConnectionError|NameResolutionError|ConnectTimeout", str(error)):
            pytest.skip("no package index can be reached: `pip install` needs PyMySQL from one")
        raise
    handler, test = BLOCKS
    (tmp_path / "readme.py").write_text(f"{handler}\n\n{test}\nprint('well', database)")
    assert run(python, "-I", "readme.py", cwd=tmp_path).startswith("well")
    listed = run(python, "-m", "pip", "list", "--format", "freeze", cwd=tmp_path).lower()
    assert "boto3" not in listed
    assert "sqlalchemy" not in listed


def test_the_handler_of_the_readme_has_ten_lines() -> None:
    assert len(BLOCKS[0].splitlines()) == 10


@pytest.mark.slow
def test_the_zip_for_lambda_holds_the_package_and_its_pinned_dependencies(tmp_path: Path) -> None:
    make = ("make", "--silent", "layer-zip", f"DIST={tmp_path}", f"PYTHON={sys.executable}")
    try:
        run(*make, "PYTHON_313=false", cwd=FOLDER)
    except AssertionError as error:
        if "NewConnectionError" in str(error) or "NameResolutionError" in str(error):
            pytest.skip("no package index can be reached: the zip needs PyMySQL from one")
        raise
    [made] = tmp_path.iterdir()
    assert made.name == f"single_connection-{single_connection.__version__}-layer.zip"
    with zipfile.ZipFile(made) as archive:
        folders = {"/".join(name.split("/")[:2]) for name in archive.namelist()}
    assert {"python/single_connection", "python/pymysql", "python/aws_lambda_powertools"} <= folders
    assert not [name for name in folders if not name.startswith("python")]
