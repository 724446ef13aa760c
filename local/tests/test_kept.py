"""The database that stays: who started it does not matter, and what was written is there."""

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import keep, migration, sql
from local.changes import fingerprint
from local.database import LocalDatabaseError
from local.environment import ROOT
from local.fixtures import need
from local.kept import KeptDatabase
from local.servers import FLAVORS, Flavor, Server

pytestmark = pytest.mark.server


@pytest.fixture
def flavor(request: pytest.FixtureRequest) -> Flavor:
    """The first that is here, or each where a test is parametrized with them."""
    chosen = request.config.getoption("--database")
    if hasattr(request, "param"):
        if chosen not in {"all", request.param}:
            pytest.skip("another database was asked for")
        return need(request.param).flavor
    server: Server = request.getfixturevalue("either_server")
    return server.flavor


each_flavor = pytest.mark.parametrize("flavor", FLAVORS, indirect=True)


@pytest.fixture
def directory(flavor: Flavor, tmp_path: Path) -> Iterator[Path]:
    """A folder with a running database, started by a process that has ended."""
    folder = tmp_path / "kept hére"
    run("keep", folder, "start", "--server", flavor)
    yield folder
    if kept := KeptDatabase.at(folder):
        kept.remove()


def run(module: str, folder: Path, *arguments: str, status: int = 0) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", f"local.{module}", *arguments, "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


@each_flavor
def test_what_was_written_outlives_whoever_started_and_stopped_it(directory: Path) -> None:
    run("sql", directory, "INSERT INTO orders (customer) VALUES ('Łódź 預订')")
    before = KeptDatabase.running(directory)
    assert before
    assert "is stopped" in run("keep", directory, "stop")
    assert KeptDatabase.running(directory) is None
    assert "Stopped: `make database` starts one." in run("keep", directory, "status", status=1)
    run("keep", directory, "start")
    after = KeptDatabase.running(directory)
    assert after
    assert after.port == before.port
    assert after.application_environ() == before.application_environ()
    assert "Łódź 預订" in run("sql", directory, "SELECT customer FROM orders")


@each_flavor
def test_it_is_limited_encrypted_and_its_secrets_are_the_owners_alone(directory: Path) -> None:
    kept = KeptDatabase.running(directory)
    assert kept
    shown = kept.execute("SHOW GLOBAL VARIABLES LIKE 'max_connections'")
    assert int(shown[0]["Value"]) - kept.observer.counted == 65
    for name in ("database.json", "client.cnf", "init.sql"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600, name
    password = kept.master_environ()["DATABASE_PASSWORD"]
    assert password not in " ".join(kept.client_command("mysql"))
    assert password not in repr(kept)


def test_starting_it_twice_and_stopping_it_twice_is_no_error(directory: Path) -> None:
    pid = (directory / "data" / "server.pid").read_text()
    run("keep", directory, "start")
    assert (directory / "data" / "server.pid").read_text() == pid
    run("keep", directory, "stop")
    assert "No database is running." in run("keep", directory, "stop")


def test_who_has_known_it_longer_than_it_runs_can_still_stop_it(directory: Path) -> None:
    known = KeptDatabase.running(directory)
    assert known
    run("keep", directory, "stop")
    run("keep", directory, "start")  # another process, of which `known` was never told
    pid = int((directory / "data" / "server.pid").read_text())
    known.stop()
    assert not known.is_running
    assert not Path(f"/proc/{pid}").exists()


def test_the_exports_lead_a_program_to_it_with_verified_tls(directory: Path) -> None:
    kept = KeptDatabase.running(directory)
    assert kept
    script = f"{kept.exports()}\nenv"
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    for name, value in kept.application_environ().items():
        assert f"{name}={value}" in shown.stdout.splitlines()
    assert kept.exports() in run("keep", directory, "status")


async def test_migrations_run_again_only_when_their_files_change(directory: Path) -> None:
    kept = KeptDatabase.running(directory)
    assert kept
    files = [migration.migration_function().directory]
    assert kept.migrated == fingerprint(files)
    assert await migration.bring_up_to_date(kept) is None
    kept.note_migration("older")
    answer = await migration.bring_up_to_date(kept)
    assert answer is not None
    assert answer.status == "ok"
    again = KeptDatabase.at(directory)
    assert again
    assert again.migrated == fingerprint(files)


def test_another_server_or_port_than_it_has_is_refused_and_the_data_kept(directory: Path) -> None:
    said = run("keep", directory, "start", "--port", "1", status=2)
    assert "make database-remove" in said
    assert KeptDatabase.running(directory)


def test_the_prompt_reads_statements_of_several_lines_and_goes_on_after_an_error(
    directory: Path,
) -> None:
    typed = "SELECT name\nFROM products\nWHERE id = 1;\nnonsense;\nSELECT 6 * 7 AS answer;\n"
    done = subprocess.run(
        [sys.executable, "-m", "local.sql", "--prompt", "--directory", str(directory)],
        cwd=ROOT, input=typed, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Espresso cup" in done.stdout
    assert "42" in done.stdout
    assert done.stderr.startswith("error 1064: ")


def test_the_servers_own_client_takes_our_place_where_there_is_one(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptDatabase.running(directory)
    assert kept
    program = tmp_path / "bin" / "mysql"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    file = f"--defaults-file={directory / 'client.cnf'}"
    assert sql.client(kept) == [str(program), file, "--ssl-mode=VERIFY_IDENTITY", "shop"]
    program.rename(program.with_name("mariadb"))
    program.symlink_to("mariadb")  # as on Debian
    assert kept.client_command(str(program))[2] == "--ssl-verify-server-cert"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sql.client(kept) is None


def test_the_command_that_is_printed_can_be_pasted_whatever_the_folder_is_called(
    directory: Path, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "mysql"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$1"\n')
    program.chmod(0o755)
    (program.parent / "mariadb").symlink_to("mysql")
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    said = subprocess.run(
        [sys.executable, "-m", "local.keep", "status", "--directory", str(directory)],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pasted = subprocess.run(
        ["/bin/sh", "-c", said.splitlines()[-1]], capture_output=True, text=True, check=True
    )
    assert pasted.stdout == f"--defaults-file={directory / 'client.cnf'}\n"


def test_a_client_that_is_here_gets_in_over_tls(directory: Path) -> None:
    kept = KeptDatabase.running(directory)
    assert kept
    command = sql.client(kept)
    if not command:
        pytest.skip("no client of this server here: `apt-get install mariadb-client-core`")
    asked = "SELECT CURRENT_USER(); SHOW STATUS LIKE 'Ssl_version'"
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert "master@%" in done.stdout
    assert "TLSv1." in done.stdout


@each_flavor
def test_removed_means_no_process_and_no_file(directory: Path) -> None:
    kept = KeptDatabase.running(directory)
    assert kept
    pid = int((directory / "data" / "server.pid").read_text())
    assert "is gone, with its data" in run("keep", directory, "remove")
    assert not directory.exists()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
    assert run("keep", directory, "status", status=1).startswith("There is none")


def test_a_taken_port_is_one_clear_sentence(flavor: Flavor, tmp_path: Path) -> None:
    kept = KeptDatabase.create(tmp_path / "kept", flavor=flavor)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", kept.port))
        other.listen()
        with pytest.raises(LocalDatabaseError, match=f"Port {kept.port} is taken: stop what"):
            kept.start()
    kept.remove()
    assert not (tmp_path / "kept").exists()


def test_without_a_database_the_client_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sql.main(["--directory", str(tmp_path)]) == 2
    assert "`make database` starts one that stays" in capsys.readouterr().err
    assert keep.main(["status", "--directory", str(tmp_path)]) == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"flavor": "mariadb"}'])
def test_a_file_that_is_none_of_ours_is_one_clear_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "database.json").write_text(text)
    with pytest.raises(
        LocalDatabaseError, match=r"is none of ours, or of an older version .*delete"
    ):
        KeptDatabase.at(tmp_path)


def test_the_fingerprint_changes_with_any_file_and_not_with_byte_code(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("1")
    before = fingerprint([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "app.pyc").write_text("1")
    assert fingerprint([tmp_path]) == before
    os.utime(tmp_path / "app.py", ns=(1, 1))
    assert fingerprint([tmp_path]) != before
    edited = fingerprint([tmp_path])
    (tmp_path / "more.sql").touch()
    assert fingerprint([tmp_path]) != edited
