"""What is said and done about database servers that are there, or are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local import debian as debian_packages
from local import servers
from local.servers import (
    ServerMissingError,
    any_server,
    find_servers,
    identify,
    install,
    main,
    require_server,
)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any server: its only programs are those a test puts into this directory."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(servers, "USUAL_PLACES", ())
    monkeypatch.setattr(servers, "BUILD", tmp_path / "build")
    return programs


def put(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_missing_server_is_one_sentence_that_says_how_to_get_it(bare: Path) -> None:
    assert find_servers() == []
    with pytest.raises(ServerMissingError) as refused:
        require_server("mariadb")
    sentence = str(refused.value)
    for way in ("local.servers install mariadb", "apt-get", "brew install", "make local"):
        assert way in sentence
    assert "\n" not in sentence


def test_list_names_what_is_missing_too(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(bare / "mariadbd", "echo 'mariadbd  Ver 11.8.2-MariaDB for Linux on aarch64'")
    assert main(["list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"MariaDB 11.8.2 ({bare / 'mariadbd'})"
    assert "There is no MySQL server" in second


def test_the_flavor_is_what_the_program_says_and_not_its_name(bare: Path) -> None:
    put(bare / "mysqld", "echo 'mysqld  Ver 10.11.14-MariaDB-0+deb12u2 for debian-linux-gnu'")
    assert [(server.flavor, server.version) for server in find_servers()] == [
        ("mariadb", "10.11.14")
    ]


def test_a_program_under_two_names_is_one_server(bare: Path) -> None:
    put(bare / "mariadbd", f"echo >>{bare}/asked; echo 'mariadbd  Ver 11.8.2-MariaDB for Linux'")
    (bare / "mysqld").symlink_to(bare / "mariadbd")
    assert len(find_servers()) == 1
    assert (bare / "asked").read_text() == "\n"


@pytest.mark.parametrize(
    "script", ["echo 'echo 9.1'", "exit 1", "echo 'mysql  Ver 9.7.4 for Linux'"]
)
def test_a_program_that_is_no_server_is_refused_by_its_own_answer(bare: Path, script: str) -> None:
    with pytest.raises(ServerMissingError, match="is no MySQL or MariaDB server"):
        identify((str(put(bare / "mysqld", script)),))
    assert find_servers() == []


def test_a_program_that_does_not_exist_is_refused(bare: Path) -> None:
    with pytest.raises(ServerMissingError, match=r"nowhere does not run .* name a mariadbd"):
        identify((str(bare / "nowhere"),))


def test_installing_what_is_there_does_nothing(bare: Path) -> None:
    put(bare / "mariadbd", "echo 'mariadbd  Ver 11.8.2-MariaDB for Linux'")
    put(bare / "apt-get", f"touch {bare}/called")
    assert install("mariadb").version == "11.8.2"
    assert not (bare / "called").exists()


def test_without_a_wish_one_server_is_enough_and_the_other_is_missed_loudly(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install"]) == 1
    put(bare / "mysqld", "echo 'mysqld  Ver 8.4.6 for macos15 on arm64'")
    capsys.readouterr()
    assert main(["install"]) == 0
    said = capsys.readouterr()
    assert said.out == f"MySQL 8.4.6 is ready ({bare / 'mysqld'})\n"
    assert said.err.startswith("WITHOUT MARIADB: ")
    assert "brew install mariadb" in said.err
    assert main(["install", "mariadb"]) == 1


def test_without_apt_the_error_names_the_other_ways(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "mariadb", "mysql"]) == 1
    assert "brew install mariadb" in capsys.readouterr().err
    assert main(["install", "mysql"]) == 1
    assert "brew install mysql" in capsys.readouterr().err


def test_without_root_and_without_sudo_the_error_says_what_to_run(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bare / "apt-get", f"touch {bare}/called")
    (bare / "env").symlink_to("/usr/bin/env")
    put(bare / "sudo", "echo 'sudo: a password is required' >&2; exit 1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ServerMissingError, match=r"needs root: .*sudo apt-get install mariadb"):
        install("mariadb")
    assert not (bare / "called").exists()


def test_mariadb_is_installed_after_an_update_where_the_lists_are_old(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (bare / "env").symlink_to("/usr/bin/env")
    version = "echo mariadbd  Ver 11.8.2-MariaDB"
    put(
        bare / "apt-get",
        f"""case $1 in
        update) touch {bare}/updated;;
        install) [ -e {bare}/updated ] || {{ echo 'E: Unable to locate package' >&2; exit 100; }}
            printf '#!/bin/sh\\n{version}\\n' > {bare}/mariadbd; chmod +x {bare}/mariadbd;;
        esac""",
    )
    assert install("mariadb").flavor == "mariadb"


# An apt-get that knows two mirrors and writes down how it was asked, and a dpkg-deb that unpacks a
# tree whose "dynamic loader" answers for mysqld.
APT_GET = """
case "$*" in
*indextargets*) echo 'Debian|Debian-Security|https://debian.example/security/'
                echo 'Debian|Debian|https://debian.example/debian/'; exit;;
esac
[ "$1" = -c ] || exit 1
cat "$2" > {log}/apt.conf
state=$(dirname "$2"); cat "$state/sources.list" > {log}/sources.list
case "$*" in *install*) {install};; esac
"""
DPKG_DEB = """
lib=$3/usr/lib/x86_64-linux-gnu
mkdir -p "$lib" "$3/usr/sbin" "$3/usr/share/mysql"
printf '#!/bin/sh\\necho mysqld  Ver 9.7.4-2 for Linux on x86_64\\n' > "$lib/ld-linux-x86-64.so.2"
chmod +x "$lib/ld-linux-x86-64.so.2"; touch "$3/usr/sbin/mysqld"
"""


@pytest.fixture
def debian(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(debian_packages, "KEYRING", put(tmp_path / "keyring.gpg", ""))
    put(
        bare / "apt-get",
        APT_GET.format(log=tmp_path, install='touch "$state/cache/archives/mysql_9.7.deb"'),
    )
    put(bare / "dpkg-deb", DPKG_DEB)
    return bare


def test_mysql_is_unpacked_beside_the_host_and_runs_by_its_own_loader(
    debian: Path, tmp_path: Path
) -> None:
    server = install("mysql")
    assert (server.flavor, server.version) == ("mysql", "9.7.4")
    library = tmp_path / "build/mysql/usr/lib/x86_64-linux-gnu"
    assert server.command[:3] == (
        str(library / "ld-linux-x86-64.so.2"), "--library-path", str(library)
    )  # fmt: skip
    assert server.share == tmp_path / "build/mysql/usr/share/mysql"
    assert install("mysql") == server


def test_without_root_and_mariadb_a_command_falls_back_to_mysql_by_itself(
    debian: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert any_server().flavor == "mysql"


def test_where_neither_can_be_had_both_reasons_are_said(bare: Path) -> None:
    with pytest.raises(ServerMissingError) as refused:
        any_server()
    assert "brew install mariadb" in str(refused.value)
    assert "brew install mysql" in str(refused.value)


def test_mysql_comes_from_the_mirror_this_machine_uses_and_not_the_security_one(
    debian: Path, tmp_path: Path
) -> None:
    install("mysql")
    keyring = tmp_path / "keyring.gpg"
    assert (tmp_path / "sources.list").read_text() == (
        f"deb [signed-by={keyring}] https://debian.example/debian/ sid main\n"
    )


def test_apt_for_mysql_keeps_its_hands_off_the_host(debian: Path, tmp_path: Path) -> None:
    install("mysql")
    configured = (tmp_path / "apt.conf").read_text()
    paths = [line.split('"')[1] for line in configured.splitlines() if "Dir::" in line]
    assert len(paths) == 7
    assert all(path.startswith(str(tmp_path / "build")) for path in paths)


@pytest.mark.parametrize("broken", ["apt-get", "dpkg-deb"])
def test_a_failed_installation_says_why_and_leaves_nothing(
    debian: Path, tmp_path: Path, broken: str
) -> None:
    if broken == "apt-get":
        failing = "echo 'E: Failed to fetch, no route to host' >&2; exit 100"
        put(debian / broken, APT_GET.format(log=tmp_path, install=failing))
    else:
        put(debian / broken, f"{DPKG_DEB}\necho 'dpkg-deb: no space left' >&2; exit 2")
    with pytest.raises(ServerMissingError, match=r"no route to host|no space left"):
        install("mysql")
    assert [path.name for path in (tmp_path / "build").iterdir()] == [".mysql.lock"]


def test_a_broken_tree_is_replaced(debian: Path, tmp_path: Path) -> None:
    (tmp_path / "build/mysql/usr").mkdir(parents=True)
    assert install("mysql").flavor == "mysql"


BARE_PYTEST = """
import sys
from pathlib import Path
import pytest
from local import servers
servers.USUAL_PLACES = ()
servers.BUILD = Path(sys.argv[1])
sys.exit(pytest.main(["-p", "no:cacheprovider", "-q", "-k", "listens", *sys.argv[2:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environ", "status", "outcome"),
    [({}, 0, "2 skipped"), ({"CI": "true"}, 1, "1 error")],
    ids=["here", "in a pipeline"],
)
def test_tests_of_a_missing_database_are_skipped_loudly_but_fail_in_a_pipeline(
    tmp_path: Path, environ: dict[str, str], status: int, outcome: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", BARE_PYTEST, str(tmp_path), "local/tests/test_database.py"],
        cwd=Path(__file__).resolve().parents[2],
        env={"PATH": str(tmp_path), "COLUMNS": "300", **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, outcome in ran.stdout) == (status, True), ran.stdout + ran.stderr
    for flavor in ("mariadb", "mysql"):
        assert f"local.servers install {flavor}" in ran.stdout
