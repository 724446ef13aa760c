"""What broke on machines of people who came new: odd folders, odd homes, half-made environments."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

from local.ascii import ascii_path, function_name
from local.environment import ROOT
from local.servers import find_servers

ODD = "Łódź 预订"


def make_wheel(folder: Path, name: str) -> str:
    """A package that can be installed without an index; its hash."""
    about = f"{name}-1.0.dist-info"
    files = {
        f"{name}/__init__.py": b"VALUE = 42\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in files).encode()
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def install(venv: Path, lock: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local.install", str(venv), str(lock), "--size", "1 MB"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PIP_NO_CACHE_DIR": "1", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    digest = make_wheel(tmp_path, "greeting")
    file = tmp_path / "requirements.lock"
    file.write_text(f"# two lines a package\ngreeting==1.0 \\\n    --hash=sha256:{digest}\n")
    return file


@pytest.mark.slow
def test_a_half_made_environment_is_made_anew_with_this_python_and_progress_is_said(
    lock: Path, tmp_path: Path
) -> None:
    venv = tmp_path / ODD / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/bin/false")  # of an interpreter that is gone
    (venv / "lib").mkdir()
    (venv / "lib" / "left-over").touch()
    done = install(venv, lock, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].endswith("venv: 1 packages, 1 MB; one to two minutes …")
    assert lines[1:3] == ["  1 of 1: greeting", "  all fetched; unpacking them …"]
    assert re.fullmatch(r"  done after \d+ s", lines[3])
    asked = "import greeting, sys; print(greeting.VALUE, sys.version_info[:2])"
    ran = subprocess.run(
        [venv / "bin" / "python", "-c", asked], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == f"42 {sys.version_info[:2]}"
    assert not (venv / "lib" / "left-over").exists()


@pytest.mark.slow
def test_a_proxy_that_does_not_answer_is_one_sentence_without_its_password(
    lock: Path, tmp_path: Path
) -> None:
    done = install(
        tmp_path / "venv",
        lock,
        HTTPS_PROXY="http://me:secret@127.0.0.1:9",
        PIP_INDEX_URL="https://index.invalid/simple",
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "error: pip does not reach the package index through the proxy http://127.0.0.1:9: set or"
    )
    assert "tries again" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.slow
def test_a_package_that_is_not_there_is_pips_own_reason(lock: Path, tmp_path: Path) -> None:
    lock.write_text(f"nowhere==1.0 --hash=sha256:{'0' * 64}\n")
    done = install(tmp_path / "venv", lock, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 1
    assert "error: pip failed: ERROR: Could not find a version" in done.stderr


def test_make_installs_by_it_and_starts_checkov_without_its_script() -> None:
    recipes = [line for line in (ROOT / "Makefile").read_text().splitlines() if line[:1] == "\t"]
    assert [line for line in recipes if " -m venv" in line] == []
    assert [line for line in recipes if "bin/checkov" in line] == []
    assert any("-m local.install $(VENV)" in line for line in recipes)


def test_layer_and_functions_build_whatever_their_logical_ids_are() -> None:
    """SAM calls `make build-<logical id>` in the folder of each that is built by make."""
    resources = yaml_parse((ROOT / "template.yaml").read_text())["Resources"].values()
    folders = {
        resource["Properties"].get("ContentUri") or resource["Properties"]["CodeUri"]
        for resource in resources
        if resource.get("Metadata", {}).get("BuildMethod") == "makefile"
    }
    assert len(folders) > 1
    for folder in folders:
        planned = subprocess.run(
            ["make", "--dry-run", "build-Bookings2", "ARTIFACTS_DIR=/the/artifacts"],
            cwd=ROOT / folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "pip install" in planned.stdout, folder
        assert "/the/artifacts" in planned.stdout, folder


@pytest.mark.parametrize("home", ["/proc/1/nowhere", ""])
def test_without_a_home_to_write_to_the_tools_of_make_keep_theirs_in_build(home: str) -> None:
    said = subprocess.run(
        ["make", "--silent", "--eval", "x: ; @echo $$HOME", "x"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": home},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == str(ROOT / "build" / "home")


def test_paths_and_names_are_those_that_lambda_could_have(tmp_path: Path) -> None:
    plain = tmp_path / "functions"
    assert ascii_path(plain) == plain
    odd = tmp_path / ODD / "functions" / "größe" / "app"
    odd.mkdir(parents=True)
    (odd / "app.py").touch()
    seen = ascii_path(odd)
    assert str(seen).isascii()
    assert seen.name == "app"
    assert (seen / "app.py").samefile(odd / "app.py")
    assert function_name("orders_api") == "orders_api"
    assert function_name(ODD) == "-d-"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, unpacked into a folder whose name has a space and letters of three scripts."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("the tree is no clone of git, which would say what belongs to it")
    folder = tmp_path_factory.mktemp("copy") / ODD
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "build").mkdir()
    for made in ("mysql", "databases"):  # or each server is unpacked and prepared again
        if (ROOT / "build" / made).exists():
            (folder / "build" / made).symlink_to(ROOT / "build" / made)
    return folder


def run_in(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if "DATABASE" not in name}
    done = subprocess.run(
        command, cwd=copy, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.server
def test_a_function_answers_from_a_folder_with_an_odd_name(copy: Path) -> None:
    if not find_servers():
        pytest.skip("no database server: `make servers` installs one")
    done = run_in(copy, sys.executable, "-m", "local.invoke", "orders_api", "products")
    assert json.loads(done.stdout)["statusCode"] == 200
    # The layer of the function is the copy's.
    asked = "from local.environment import LAYER; print(LAYER.exists(), LAYER)"
    said = run_in(copy, sys.executable, "-c", asked).stdout
    assert said.startswith("True ")
    assert ODD in said


@pytest.mark.server
def test_a_database_stays_in_a_folder_with_an_odd_name(copy: Path) -> None:
    if not find_servers():
        pytest.skip("no database server: `make servers` installs one")
    try:
        run_in(copy, sys.executable, "-m", "local.keep", "start")
        assert "42" in run_in(copy, sys.executable, "-m", "local.sql", "SELECT 6 * 7").stdout
    finally:
        run_in(copy, sys.executable, "-m", "local.keep", "remove")


@pytest.mark.slow
def test_the_quick_tests_of_what_runs_functions_pass_in_a_folder_with_an_odd_name(
    copy: Path,
) -> None:
    files = [
        f"local/tests/test_{name}.py"
        for name in ("environment", "runtime_api", "template", "serve_gateway")
    ]
    options = ("-n", "0", "-q", "-p", "no:cacheprovider", "-m", "not server and not slow")
    done = run_in(copy, sys.executable, "-m", "pytest", *options, *files)
    assert re.search(r"\d+ passed", done.stdout)
    assert not re.search(r"\d+ failed", done.stdout)
