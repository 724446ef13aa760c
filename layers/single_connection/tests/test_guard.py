"""Laws 1 and 2: only inside an invocation, and one at a time, through whatever driver."""

import asyncio
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymysql
import pytest
from single_connection import (
    Database,
    OutsideInvocationError,
    SecondConnectionError,
)
from single_connection._guard import Guard
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import World, body, function, invoke
from layers.single_connection.tests.network import Proxy

HOW = "run `make .venv/rivals`"


def chain(error: BaseException | None) -> list[type]:
    """The error's type and those it came from: some drivers wrap what refused them."""
    found = []
    while error is not None:
        found.append(type(error))
        error = error.__cause__ or error.__context__
    return found


def by_pymysql(where: dict[str, Any]) -> Any:
    return pymysql.connect(**where)


def by_mysql_connector(where: dict[str, Any]) -> Any:
    connector = pytest.importorskip("mysql.connector", reason=HOW)
    return connector.connect(use_pure=True, connection_timeout=2, **where)


def by_aiomysql(where: dict[str, Any]) -> Any:
    aiomysql = pytest.importorskip("aiomysql", reason=HOW)
    return asyncio.run(aiomysql.connect(**where))


def by_asyncmy(where: dict[str, Any]) -> Any:
    asyncmy = pytest.importorskip("asyncmy", reason=HOW)

    async def connect() -> Any:
        return await asyncmy.connect(**where)

    return asyncio.run(connect())


def by_raw_socket(where: dict[str, Any]) -> Any:
    return socket.create_connection((where["host"], where["port"]), 1)


def by_connect_ex(where: dict[str, Any]) -> Any:
    with socket.socket() as sock:
        return sock.connect_ex((where["host"], where["port"]))


def by_asyncio(where: dict[str, Any]) -> Any:
    return asyncio.run(asyncio.open_connection(where["host"], where["port"]))


def by_mapped_address(where: dict[str, Any]) -> Any:
    with socket.socket(socket.AF_INET6) as sock:
        return sock.connect((f"::ffff:{where['host']}", where["port"]))


def by_name(where: dict[str, Any]) -> Any:
    with socket.socket() as sock:
        return sock.connect(("localhost", where["port"]))


def by_name_in_bytes(where: dict[str, Any]) -> Any:
    with socket.socket() as sock:
        return sock.connect((b"localhost", where["port"]))


def by_short_address(where: dict[str, Any]) -> Any:
    with socket.socket() as sock:
        return sock.connect(("127.1", where["port"]))


DRIVERS = [
    by_pymysql,
    by_mysql_connector,
    by_aiomysql,
    by_asyncmy,
    by_raw_socket,
    by_connect_ex,
    by_asyncio,
    by_mapped_address,
    by_name,
    by_name_in_bytes,
    by_short_address,
]


def where(world: World) -> dict[str, Any]:
    environ = world.environ()
    return {
        "host": environ["DATABASE_HOST"],
        "port": int(environ["DATABASE_PORT"]),
        "user": environ["DATABASE_USER"],
        "password": environ["DATABASE_PASSWORD"],
    }


@pytest.mark.parametrize("driver", DRIVERS)
# aiomysql and asyncmy leave their half-made connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_second_connection_is_refused_and_names_the_first(
    world: World, driver: Callable[[dict[str, Any]], Any]
) -> None:
    database = world.database()
    lines: list[int] = []

    def work() -> None:
        lines.append(sys._getframe().f_lineno + 1)
        database.connection()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - wrapped by some drivers
            driver(where(world))
        assert SecondConnectionError in chain(caught.value), chain(caught.value)
        if type(caught.value) is SecondConnectionError:
            assert f"{__file__}:{lines[0]} in work" in str(caught.value)
        assert len(world.sessions()) == 1

    invoke(database, work)


@pytest.mark.parametrize("driver", [by_pymysql, by_raw_socket])
def test_a_connection_beside_the_layer_is_refused_before_the_layers_own_too(
    world: World, driver: Callable[[dict[str, Any]], Any]
) -> None:
    def work() -> None:
        with pytest.raises(SecondConnectionError, match="not opened yet"):
            driver(where(world))

    invoke(world.database(), work)


def test_a_connection_outside_an_invocation_is_refused(world: World) -> None:
    database = world.database()
    with pytest.raises(OutsideInvocationError):
        by_pymysql(where(world))
    with pytest.raises(OutsideInvocationError):
        database.connection()
    invoke(database, database.connection)
    with pytest.raises(OutsideInvocationError):
        by_pymysql(where(world))
    with pytest.raises(OutsideInvocationError):
        database.connection()


def test_a_thread_left_over_gets_no_connection_after_its_invocation(world: World) -> None:
    database, over, refused = world.database(), threading.Event(), []

    def late() -> None:
        over.wait()
        for ask in (database.connection, lambda: by_pymysql(where(world))):
            try:
                ask()
            except OutsideInvocationError as error:
                refused.append(error)

    thread = threading.Thread(target=late)
    invoke(database, thread.start)
    over.set()
    thread.join()
    assert len(refused) == 2


def test_connections_to_anything_else_pass_untouched(world: World) -> None:
    database = world.database()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def work() -> None:
            database.connection()
            socket.create_connection(("127.0.0.1", port)).close()
            with socket.socket(socket.AF_UNIX) as unix, pytest.raises(FileNotFoundError):
                unix.connect("/nowhere/at/all")
            # Another host on the database's port: 192.0.2.0/24 is for documentation (RFC 5737).
            with socket.socket() as sock:
                sock.settimeout(0.01)
                with pytest.raises(OSError, match=r"timed out|unreachable|refused"):
                    sock.connect(("192.0.2.1", world.server.port))

        invoke(database, work)
        socket.create_connection(("127.0.0.1", port)).close()


def test_an_address_that_is_not_known_refuses_nothing() -> None:
    database = Database.from_environment({})
    assert not Guard(database._connector).is_database(("127.0.0.1", 3306))  # type: ignore[arg-type]

    class Nowhere:
        def address(self) -> tuple[str, int]:
            return "no-such-host.invalid", 3306

    assert not Guard(Nowhere()).is_database(("127.0.0.1", 3306))


def test_a_fault_of_the_guard_itself_breaks_nobodys_sockets(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bool:
        raise RuntimeError("a fault of ours")

    database = world.database()
    monkeypatch.setattr(Guard, "is_database", fail)
    with socket.create_server(("127.0.0.1", 0)) as other:
        invoke(database, lambda: socket.create_connection(other.getsockname()).close())
    sys.audit("socket.connect", None, ("what is no address",))


def test_a_connection_to_another_port_costs_the_guard_no_look_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = world.database()

    def look_up(*_: object, **__: object) -> None:
        raise AssertionError("a name was resolved for a connection that is none of ours")

    def work() -> None:
        database.connection()
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        sys.audit("socket.connect", None, ("somewhere.example", 1))

    invoke(database, work)


def test_one_invocation_after_the_other_starts_clean(world: World) -> None:
    database, seen = world.database(), set()

    def work() -> None:
        assert world.sessions() == []
        seen.add(database.connection().thread_id())
        with pytest.raises(SecondConnectionError):
            by_pymysql(where(world))

    for _ in range(3):
        invoke(database, work)
    assert len(seen) == 3
    world.wait_for(lambda: not world.sessions())


# What cannot be refused beforehand ------------------------------------------------------------


def unseen_connect(host: str, port: int) -> int:
    """A descriptor connected without Python's knowledge, as a C driver or uvloop does it."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    address = socket.AF_INET.to_bytes(2, sys.byteorder) + port.to_bytes(2, "big")
    address += socket.inet_aton(host) + bytes(8)
    assert libc.connect(descriptor, address, len(address)) == 0
    return int(descriptor)


def test_a_c_drivers_connection_is_found_destroyed_counted_and_logged(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mysqldb = pytest.importorskip("MySQLdb", reason=HOW)
    database = Database.from_environment(
        world.environ()
        # A service of its own: Powertools keeps a logger by name, with the output it first saw.
        | {"POWERTOOLS_METRICS_NAMESPACE": "test", "POWERTOOLS_SERVICE_NAME": str(uuid4())}
    )
    kept = []

    def work() -> None:
        database.connection()
        kept.append(
            mysqldb.connect(**where(world), database="shop", ssl={"ca": str(world.server.ca_file)})
        )
        kept[0].query("SELECT 1")
        assert len(world.sessions()) == 2

    invoke(database, work)
    world.wait_for(lambda: not world.sessions(), 1.0)
    said = capsys.readouterr().out
    assert re.search(r'"ConnectionLeaks": *\[?1', said)
    assert "1 connections beside the invocation's own were found and destroyed" in said
    with pytest.raises(mysqldb.Error):
        kept[0].query("SELECT 1")
    kept[0].close()


def test_a_c_drivers_connection_in_the_middle_of_a_query_is_killed(world: World) -> None:
    mysqldb = pytest.importorskip("MySQLdb", reason=HOW)
    database, threads = world.database(), []

    def query() -> None:
        other = mysqldb.connect(
            **where(world), database="shop", ssl={"ca": str(world.server.ca_file)}
        )
        with pytest.raises(mysqldb.Error):
            other.query("SELECT SLEEP(10)")
        other.close()

    def work() -> None:
        threads.append(threading.Thread(target=query))
        threads[0].start()
        world.wait_for(lambda: world.busy("SLEEP"))

    invoke(database, work)
    world.wait_for(lambda: not world.sessions(), 1.0)
    threads[0].join()


def test_an_unseen_socket_is_found_and_shut(world: World) -> None:
    database = world.database()
    descriptors: list[int] = []
    killed: list[Any] = []

    def end_leaks(*what: Any) -> bool:
        killed.append(what)
        return True

    database._connector.end_leaks = end_leaks  # type: ignore[method-assign, assignment]

    def work() -> None:
        descriptors.append(unseen_connect(world.server.host, world.server.port))
        world.wait_for(world.sessions)

    invoke(database, work)
    assert not killed, "it heard, and needs no connection to end it"
    world.wait_for(lambda: not world.sessions(), 1.0)
    with socket.socket(fileno=descriptors[0]) as sock:
        sock.settimeout(1)
        while sock.recv(4096):
            pass


def test_a_connection_made_before_the_layer_knew_is_found_at_the_end_of_the_first_invocation(
    world: World,
) -> None:
    mysqldb = pytest.importorskip("MySQLdb", reason=HOW)
    early = mysqldb.connect(**where(world), ssl={"ca": str(world.server.ca_file)})
    assert len(world.sessions()) == 1
    invoke(world.database(), lambda: None)
    world.wait_for(lambda: not world.sessions(), 1.0)
    with pytest.raises(mysqldb.Error):
        early.query("SELECT 1")
    early.close()


def test_sockets_that_are_not_the_databases_are_left_alone(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        theirs = socket.create_connection(other.getsockname())
        accepted, _ = other.accept()
        idle = socket.socket()
        database = world.database()
        invoke(database, database.connection)
        invoke(database, database.connection)  # looked at once, and remembered as harmless
        theirs.sendall(b"x")
        assert accepted.recv(1) == b"x"
        for sock in (theirs, accepted, idle):
            sock.close()


CHILD = """
import sys, time, ssl, pymysql
connection = pymysql.connect(
    host={host!r}, port={port}, user={user!r}, password={password!r}, ssl_ca={ca!r}
)
print("connected", flush=True)
if {query}:
    connection.cursor().execute("SELECT SLEEP(30)")
time.sleep(30)
"""


@pytest.mark.parametrize("busy", [False, True])
def test_a_child_processs_connection_is_found_and_destroyed(world: World, busy: bool) -> None:
    program = CHILD.format(**where(world), ca=str(world.server.ca_file), query=busy)
    children = []

    def work() -> None:
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"connected\n"
        if busy:
            world.wait_for(lambda: world.busy("SLEEP"))

    try:
        invoke(world.database(), work)
        world.wait_for(lambda: not world.sessions(), 1.0)
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_a_child_left_over_from_an_earlier_invocation_is_watched_too(world: World) -> None:
    program = "input()\n" + CHILD.format(**where(world), ca=str(world.server.ca_file), query=False)
    database = world.database()
    child = None

    def start() -> None:
        nonlocal child
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def wake() -> None:
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"connected\n"

    invoke(database, start)
    try:
        invoke(database, wake)
        world.wait_for(lambda: not world.sessions(), 1.0)
    finally:
        assert child is not None
        child.kill()
        child.communicate()


def test_a_spawned_multiprocessing_child_is_found_though_nothing_announces_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "handlers")
    from spawned import child as connect  # type: ignore[import-not-found]

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(
        target=connect, args=(world.server.host, world.server.port, theirs), daemon=True
    )

    def work() -> None:
        child.start()
        assert ours.poll(10)
        world.wait_for(world.sessions)

    try:
        invoke(world.database(), work)
        world.wait_for(lambda: not world.sessions(), 1.0)
    finally:
        child.kill()
        child.join()
        child.close()
        ours.close()
        theirs.close()


def test_somebody_elses_session_is_never_killed(world: World) -> None:
    """A fault of serverless-mysql; and where the network translates addresses, an end of ours may

    be that of another environment's session."""
    database = world.database()
    elsewhere = subprocess.Popen(
        [
            sys.executable,
            "-c",
            CHILD.format(**where(world), ca=str(world.server.ca_file), query=True),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        theirs = world.wait_for(lambda: world.busy("SLEEP"))

        def kill() -> bool:
            # As if behind a translation: the server sees other addresses than ours.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "single_connection._driver.connection.end_of", lambda _sock: "10.0.0.1:1"
                )
                return database._connector.end_leaks(frozenset({theirs.host}), time.monotonic() + 1)

        database._connector.find_leaks = list  # type: ignore[method-assign]
        assert invoke(database, kill) is False
        assert [one.id for one in world.sessions()] == [theirs.id]

        def kill_by_a_number_that_is_not_ours() -> bool:
            """As a greeting may name it, in plain text, or from before the server restarted."""
            connection = database.connection()
            connection.ping()
            connection.claimed_id, connection.mark = theirs.id, "nobodys"
            return database._connector.end(connection, time.monotonic() + 1)

        assert not invoke(database, kill_by_a_number_that_is_not_ours)
        assert [one.id for one in world.sessions()] == [theirs.id]
    finally:
        elsewhere.kill()
        elsewhere.communicate()


# More than one Database ----------------------------------------------------------------------


def test_two_database_objects_of_one_server_share_one_connection_at_a_time(world: World) -> None:
    first, second = world.database(), world.database()

    def work() -> None:
        with pytest.raises(OutsideInvocationError):
            second.connection()
        first.connection()

        def within() -> None:
            with pytest.raises(SecondConnectionError, match="in work"):
                second.connection()

        invoke(second, within)
        with first.connection().cursor() as cursor:
            cursor.execute("SELECT 1")  # the second one's end did not take it for a leak

    invoke(first, work)
    world.wait_for(lambda: not world.sessions(), 1.0)


def test_two_databases_on_two_servers_are_independent(world: World, proxy: Proxy) -> None:
    """One server behind two addresses, which are all that a guard can know."""
    with Proxy(world.server.host, world.server.port) as other:
        _independent(world, world.database(port=other.port), world.database(port=proxy.port))


def _independent(world: World, first: Database, second: Database) -> None:

    def work() -> None:
        first.connection()
        invoke(second, lambda: second.connection().ping())
        first.connection().ping()
        world.wait_for(lambda: len(world.sessions()) == 1)

    invoke(first, work)
    world.wait_for(lambda: not world.sessions(), 1.0)


# Through the runtime client ------------------------------------------------------------------

IMPORTED = """
import pymysql
from single_connection import Database
{before}
database = Database.from_environment()
settings = database.settings
{after}

@database.invocation
def lambda_handler(event, context):
    database.connection().ping()
    return len({there})
"""


def handler(folder: Path, **parts: str) -> Path:
    source = textwrap.dedent(IMPORTED).format(**{"before": "", "after": "", "there": "[]"} | parts)
    (folder / "app.py").write_text(source)
    return folder


def test_a_connection_at_import_is_refused_by_lambdas_init(world: World, tmp_path: Path) -> None:
    after = "pymysql.connect(host=settings.host, port=settings.port)"
    with function("app", world.environ(), directory=handler(tmp_path, after=after)) as broken:
        answer = broken.invoke()
    assert answer.status == "init_error"
    assert "OutsideInvocationError" in answer.payload.decode() + answer.log


def test_a_connection_at_import_through_the_layer_is_refused_by_lambdas_init(
    world: World, tmp_path: Path
) -> None:
    with function(
        "app", world.environ(), directory=handler(tmp_path, after="database.connection()")
    ) as broken:
        answer = broken.invoke()
    assert "OutsideInvocationError" in answer.payload.decode() + answer.log


def test_a_connection_opened_before_the_layer_is_found_at_the_end_of_the_first_invocation(
    world: World, tmp_path: Path
) -> None:
    before = (
        "import os\nearly = pymysql.connect(host=os.environ['DATABASE_HOST'], "
        "port=int(os.environ['DATABASE_PORT']), user=os.environ['DATABASE_USER'], "
        "password=os.environ['DATABASE_PASSWORD'], ssl_ca=os.environ['DATABASE_CA_FILE'])"
    )
    folder = handler(tmp_path, before=before, there="[early.open]")
    with function("app", world.environ(), directory=folder) as careless:
        assert body(careless.invoke()) == 1
        world.wait_for(lambda: not world.sessions(), 1.0)
        assert body(careless.invoke()) == 1


# Wrong use ------------------------------------------------------------------------------------


async def coroutine(event: Any, context: Any) -> None:
    """Not a handler."""


def generator(event: Any, context: Any) -> Any:
    yield


async def async_generator(event: Any, context: Any) -> Any:
    yield


@pytest.mark.parametrize("wrong", [coroutine, generator, async_generator])
def test_a_handler_that_ends_before_its_work_does_is_refused(wrong: Any) -> None:
    database = Database.from_environment({})
    with pytest.raises(TypeError, match=wrong.__name__):
        database.invocation(wrong)


def test_one_marked_handler_calling_another_joins_its_invocation(world: World) -> None:
    database = world.database()

    @database.invocation
    def inner(event: Any, context: Any) -> int:
        return database.connection().thread_id()

    @database.invocation
    def outer(event: Any, context: Any) -> bool:
        return database.connection().thread_id() == inner(event, context) == inner(event, context)

    assert outer({}, LambdaContext())


def test_an_invocation_in_another_thread_beside_the_first_is_refused(world: World) -> None:
    database, refused = world.database(), []

    def second() -> None:
        try:
            invoke(database, database.connection)
        except SecondConnectionError as error:
            refused.append(str(error))

    def first() -> None:
        database.connection()
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    invoke(database, first)
    assert "one at a time" in refused[0]


def test_fifty_threads_of_one_invocation_share_its_one_connection(world: World) -> None:
    database = world.database()
    numbers, errors = set(), []

    def ask() -> None:
        try:
            connection = database.connection()
            with connection.cursor() as cursor:
                cursor.execute("SELECT CONNECTION_ID()")
                [(number,)] = cursor.fetchall()
                numbers.add(number)
        except Exception as error:
            errors.append(error)

    def work() -> None:
        threads = [threading.Thread(target=ask) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(world.sessions()) == 1

    invoke(database, work)
    assert not errors
    assert len(numbers) == 1


def test_settings_are_read_at_first_use_and_name_every_problem(world: World) -> None:
    database = Database.from_environment({})
    with pytest.raises(Exception, match="DATABASE_HOST is missing; DATABASE_NAME is missing") as e:
        invoke(database, database.connection)
    assert "DATABASE_CA_FILE" in str(e.value)
    assert "DATABASE_SECRET_ARN, or DATABASE_USER and DATABASE_PASSWORD" in str(e.value)
    assert invoke(Database.from_environment({}), lambda: "no connection, no settings needed")


def test_a_guard_in_a_forked_child_refuses_a_connection_of_its_own(world: World) -> None:
    database = world.database()

    def work() -> bytes:
        database.connection()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                by_raw_socket(where(world))
            except BaseException as error:
                os.write(write, type(error).__name__.encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            return pipe.read()

    assert invoke(database, work) == b"SecondConnectionError"


def test_a_marked_handler_in_a_forked_child_is_an_invocation_of_its_own(
    world: World,
) -> None:
    database = world.database()

    def work() -> bytes:
        parents = database.connection().thread_id()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write, str(invoke(database, number)).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        assert [one.id for one in world.sessions()] == [parents] == [number()]
        with os.fdopen(read, "rb") as pipe:
            return pipe.read()

    def number() -> int:
        return int(database.connection().thread_id())

    assert invoke(database, work).isdigit()
