"""What is compared: each side connects, runs one SELECT, reads its row, and closes.

Every side runs in a process of its own (`python -m lab.connect.sides`), told over a pipe when to
run; so none pays for another's imports, hooks or threads, and all are measured in turn.
"""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

Work = Callable[[], object]
STATEMENT = "SELECT 1"
ROOT = Path(__file__).resolve().parents[2]
# Seconds after a batch until the server's CPU clock is read: whoever does not wait for the server
# leaves it with work to finish.
SETTLE = 0.003


@dataclass(frozen=True)
class Door:
    """Where a side connects, and as whom."""

    host: str
    port: int
    name: str
    user: str
    password: str
    ca_file: str


# What people use today --------------------------------------------------------------------------


def documented(door: Door) -> Work:
    """PyMySQL as its documentation shows it: TLS, but the certificate is not verified."""
    import pymysql.cursors

    def work() -> object:
        connection = pymysql.connect(
            host=door.host,
            port=door.port,
            user=door.user,
            password=door.password,
            database=door.name,
            cursorclass=pymysql.cursors.DictCursor,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(STATEMENT)
            return cursor.fetchone()

    return work


def _pymysql(door: Door, **options: Any) -> Work:
    import pymysql

    def work() -> object:
        connection = pymysql.connect(
            host=door.host,
            port=door.port,
            user=door.user,
            password=door.password,
            database=door.name,
            **options,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(STATEMENT)
            return cursor.fetchone()

    return work


def with_ca(door: Door) -> Work:
    """PyMySQL with `ssl_ca`, certificate and name verified."""
    return _pymysql(door, ssl_ca=door.ca_file, ssl_verify_cert=True, ssl_verify_identity=True)


def mysqlclient(door: Door) -> Work:
    """The C driver, certificate and name verified."""
    import MySQLdb

    def work() -> object:
        connection = MySQLdb.connect(
            host=door.host,
            port=door.port,
            user=door.user,
            password=door.password,
            database=door.name,
            ssl_mode="VERIFY_IDENTITY",
            ssl={"ca": door.ca_file},
        )
        with contextlib.closing(connection), contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(STATEMENT)
            return cursor.fetchone()

    return work


def _connector(door: Door, *, pure: bool) -> Work:
    import mysql.connector

    if not pure:
        # Says why, where the OpenSSL it was built for cannot be loaded.
        import _mysql_connector  # type: ignore[import-not-found] # noqa: F401

    def work() -> object:
        connection = mysql.connector.connect(
            host=door.host,
            port=door.port,
            user=door.user,
            password=door.password,
            database=door.name,
            use_pure=pure,
            ssl_ca=door.ca_file,
            ssl_verify_cert=True,
            ssl_verify_identity=True,
        )
        with contextlib.closing(connection), contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(STATEMENT)
            return cursor.fetchone()

    return work


def connector_pure(door: Door) -> Work:
    """mysql-connector-python in Python, verified."""
    return _connector(door, pure=True)


def connector_c(door: Door) -> Work:
    """mysql-connector-python with its C extension, verified."""
    return _connector(door, pure=False)


def null_pool(door: Door) -> Work:
    """SQLAlchemy's NullPool over PyMySQL, verified."""
    import sqlalchemy

    url = sqlalchemy.URL.create(
        "mysql+pymysql", door.user, door.password, door.host, door.port, door.name
    )
    engine = sqlalchemy.create_engine(
        url,
        poolclass=sqlalchemy.pool.NullPool,
        connect_args={
            "ssl_ca": door.ca_file,
            "ssl_verify_cert": True,
            "ssl_verify_identity": True,
        },
    )

    def work() -> object:
        with engine.connect() as connection:
            return connection.exec_driver_sql(STATEMENT).fetchone()

    return work


def kept(door: Door) -> Work:
    """A connection that is never closed: the floor that no function may stand on."""
    import pymysql

    connection = pymysql.connect(
        host=door.host,
        port=door.port,
        user=door.user,
        password=door.password,
        database=door.name,
        ssl_ca=door.ca_file,
        ssl_verify_cert=True,
        ssl_verify_identity=True,
    )

    def work() -> object:
        with connection.cursor() as cursor:
            cursor.execute(STATEMENT)
            return cursor.fetchone()

    return work


# The way from there to here, one step after the other --------------------------------------------


def one_context(door: Door) -> Work:
    """One verifying context for all connections."""
    return _pymysql(door, ssl=ssl.create_default_context(cafile=door.ca_file))


def key_share(door: Door) -> Work:
    """The same, with a first key share that MySQL takes."""
    context = ssl.create_default_context(cafile=door.ca_file)
    context.set_ecdh_curve("prime256v1")
    return _pymysql(door, ssl=context)


def resumed(door: Door) -> Work:
    """The same, resuming the TLS session."""
    import pymysql

    class Resuming(ssl.SSLContext):
        last: ssl.SSLSession | None = None

        def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
            kwargs["session"] = self.last
            return super().wrap_socket(*args, **kwargs)

    context = Resuming(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(door.ca_file)
    context.set_ecdh_curve("prime256v1")

    def work() -> object:
        connection = pymysql.connect(
            host=door.host,
            port=door.port,
            user=door.user,
            password=door.password,
            database=door.name,
            ssl=context,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(STATEMENT)
            context.last = context.last or vars(connection)["_sock"].session
            return cursor.fetchone()

    return work


def _opened(door: Door, *, early: bool, newest: ssl.TLSVersion | None = None) -> Work:
    from single_connection import _driver as driver
    from single_connection._deadline import Deadline
    from single_connection._early import EarlyRequest
    from single_connection._lease import Lease
    from single_connection._opening import Opening
    from single_connection._tls import ResumingContext

    tls = ResumingContext(door.ca_file)
    if newest is not None:
        tls.maximum_version = newest
    target = driver.Target(
        host=door.host,
        port=door.port,
        addresses=(door.host,),
        name=door.name,
        user=door.user,
        password=door.password,
        tls=tls,
        early=EarlyRequest() if early else None,
    )

    def work() -> object:
        opening = Opening(Deadline(3.0, 0.5))
        connection = driver.open_connection(target, Lease(3.0), opening, opening.deadline.soft)
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(STATEMENT)
            return cursor.fetchone()

    return work


def leased(door: Door) -> Work:
    """The same, with TLS in memory, one pipelined SET with the lease, and the end awaited."""
    return _opened(door, early=False)


def early(door: Door) -> Work:
    """The same, with the TLS hello sent before the server's greeting has come."""
    return _opened(door, early=True)


def tls_12(door: Door) -> Work:
    """What is not taken: TLS 1.2, whose resumption is cheaper and not forward secret."""
    return _opened(door, early=True, newest=ssl.TLSVersion.TLSv1_2)


def ours(door: Door) -> Work:
    """A whole invocation: guard, deadline, lease, destruction confirmed by the server, metrics."""
    from single_connection import Database
    from single_connection.testing import LambdaContext

    database = Database.from_environment(
        {
            "DATABASE_HOST": door.host,
            "DATABASE_PORT": str(door.port),
            "DATABASE_NAME": door.name,
            "DATABASE_USER": door.user,
            "DATABASE_PASSWORD": door.password,
            "DATABASE_CA_FILE": door.ca_file,
            "POWERTOOLS_METRICS_NAMESPACE": "Benchmark",
            "POWERTOOLS_SERVICE_NAME": "benchmark",
        }
    )

    @database.invocation
    def handler(_event: Any, _context: Any) -> object:
        with database.connection().cursor() as cursor:
            cursor.execute(STATEMENT)
            return cursor.fetchone()

    context = LambdaContext(3600)
    return lambda: handler({}, context)


RIVALS = {
    "documented": (documented, "PyMySQL, as documented (not verified)"),
    "with_ca": (with_ca, "PyMySQL, ssl_ca"),
    "null_pool": (null_pool, "SQLAlchemy NullPool, ssl_ca"),
    "connector_pure": (connector_pure, "mysql-connector, Python"),
    "connector_c": (connector_c, "mysql-connector, C"),
    "mysqlclient": (mysqlclient, "mysqlclient, C"),
    "ours": (ours, "this layer, whole invocation"),
    "kept": (kept, "kept connection (the floor)"),
}
STEPS = {
    "documented": (documented, "PyMySQL as documented"),
    "with_ca": (with_ca, "only our CA is parsed, and it is verified"),
    "one_context": (one_context, "one TLS context for all connections"),
    "key_share": (key_share, "a first key share the server takes"),
    "resumed": (resumed, "TLS 1.3 session resumed"),
    "leased": (leased, "TLS in memory; set-up in one SET with the lease; end awaited"),
    "early": (early, "TLS hello sent before the greeting"),
    "ours": (ours, "guard, deadline, telemetry: the whole invocation"),
}
ASIDE = {"tls_12": (tls_12, "not taken: TLS 1.2 instead")}
ALL = {**RIVALS, **STEPS, **ASIDE}
UNVERIFIED = ("documented",)


# A side in its own process -----------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Seconds: each repetition's wall time, and CPU time per repetition on both ends."""

    wall: list[float]
    client_cpu: float
    server_cpu: float


class SideMissingError(Exception):
    """A side cannot run here; says why."""


class Runner:
    """One side in one process, run on request at any of several doors."""

    def __init__(self, side: str, doors: list[Door], server_pid: int) -> None:
        """Start, and connect through each door.

        Raises:
            SideMissingError: It cannot; the message says why.
        """
        self.side = side
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lab.connect.sides"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # What a driver logs about the wrong CA is expected.
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )
        ready = self._ask(
            {"side": side, "doors": [asdict(door) for door in doors], "server_pid": server_pid}
        )
        if "missing" in ready:
            self.close()
            raise SideMissingError(f"{ALL[side][1]}: {ready['missing']}")

    def __enter__(self) -> Self:
        """The runner."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.close()

    def run(self, door: int, repetitions: int) -> Batch:
        """Run the side's work so often through the door of that number."""
        return Batch(**self._ask({"run": repetitions, "door": door}))

    def refuses(self, wrong_ca: str) -> bool:
        """Whether the side, told to trust `wrong_ca`, refuses this server."""
        return bool(self._ask({"refuses": wrong_ca})["refuses"])

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SideMissingError(f"{ALL[self.side][1]}: its process ended")
        return dict(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _cpu_of(process: int) -> float:
    """CPU seconds of another process, to the nanosecond; Linux's clock_getcpuclockid(3)."""
    return time.clock_gettime((~process << 3) | 2)


def _run(work: Work, repetitions: int, server_pid: int) -> Batch:
    wall = []
    server, client = _cpu_of(server_pid), time.process_time()
    for _ in range(repetitions):
        began = time.perf_counter()
        work()
        wall.append(time.perf_counter() - began)
    client = time.process_time() - client
    time.sleep(SETTLE)
    server = _cpu_of(server_pid) - server
    return Batch(wall, client / repetitions, server / repetitions)


def _refuses(side: str, door: Door, wrong_ca: str) -> bool:
    try:
        ALL[side][0](Door(**{**asdict(door), "ca_file": wrong_ca}))()
    except Exception:  # noqa: BLE001 - each driver has its own
        return True
    return False


def main() -> None:
    """Serve requests from stdin, one JSON object a line."""
    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - the metrics' line goes here
    works: list[Work] = []
    doors: list[Door] = []
    server_pid, side = 0, ""
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        if "side" in asked:
            side, server_pid = asked["side"], asked["server_pid"]
            doors = [Door(**door) for door in asked["doors"]]
            try:
                works = [ALL[side][0](door) for door in doors]
                for work in works * 3:
                    work()
            except Exception as error:  # noqa: BLE001 - said where it is read
                answer = {"missing": f"{type(error).__name__}: {error}"}
        elif "refuses" in asked:
            answer = {"refuses": _refuses(side, doors[0], asked["refuses"])}
        else:
            answer = asdict(_run(works[asked["door"]], asked["run"], server_pid))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
