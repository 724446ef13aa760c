"""A handler that leaves in whatever way it is told to; see ../test_ways_out.py."""

import asyncio
import concurrent.futures
import contextlib
import os
import sys
import threading
import time

import pymysql.cursors
from single_connection import Database

database = Database.from_environment()
kept: list[object] = []  # what a careless handler keeps alive between invocations

MILLION = "SELECT REPEAT('x', 10) FROM seq a, seq b, seq c, seq d, seq e, seq f"


class OwnError(Exception):
    """The handler's own."""


def query(statement, *arguments):
    with database.connection().cursor() as cursor:
        cursor.execute(statement, arguments or None)
        return cursor.fetchall()


def kept_alive(thing):
    kept.append(thing)
    return thing


def return_():
    return query("SELECT 1")


def raise_():
    query("SELECT 1")
    raise OwnError("the handler's own words")


def leave():
    query("SELECT 1")
    sys.exit("goodbye")


def interrupt():
    query("SELECT 1")
    raise KeyboardInterrupt


def half_read_cursor():
    cursor = kept_alive(database.connection().cursor(pymysql.cursors.SSCursor))
    cursor.execute(MILLION)
    return cursor.fetchone()


def half_read_generator():
    def rows():
        with database.transaction():
            with database.connection().cursor(pymysql.cursors.SSCursor) as cursor:
                cursor.execute(MILLION)
                yield from cursor

    return next(kept_alive(rows()))


def unread_result():
    kept_alive(database.connection()).query(MILLION, unbuffered=True)


def open_transaction():
    database.connection().begin()
    query("UPDATE things SET number = number + 1 WHERE name = 'open'")


def open_transaction_sleeping():
    open_transaction()
    time.sleep(30)


def open_transaction_block():
    block = kept_alive(database.transaction())
    block.__enter__().execute("UPDATE things SET number = number + 1 WHERE name = 'open'")


def exception_in_transaction():
    with database.transaction() as cursor:
        cursor.execute("UPDATE things SET number = number + 1 WHERE name = 'open'")
        raise OwnError("half-way")


def locked_table():
    query("SELECT GET_LOCK('ours', 1)")
    database.connection().begin()
    query("SELECT * FROM things FOR UPDATE")


def in_query(seconds=30):
    with contextlib.suppress(Exception):
        query(f"SELECT SLEEP({seconds})")


def busy_thread():
    database.connection()
    threading.Thread(target=in_query, daemon=True).start()
    time.sleep(0.1)


def busy_thread_without_a_first_connection():
    threading.Thread(target=in_query, daemon=True).start()
    time.sleep(0.2)


def thread_pool():
    pool = kept_alive(concurrent.futures.ThreadPoolExecutor(3))
    for _ in range(3):
        pool.submit(in_query)
    time.sleep(0.1)


def thread_that_keeps_asking():
    def ask():
        while True:
            with contextlib.suppress(Exception):
                query("SELECT 1")
            time.sleep(0.001)

    threading.Thread(target=ask, daemon=True).start()
    time.sleep(0.05)


def asyncio_run():
    async def work():
        return await asyncio.to_thread(query, "SELECT 1")

    return asyncio.run(work())


def asyncio_run_left_behind():
    async def work():
        task = asyncio.get_running_loop().run_in_executor(None, in_query)
        await asyncio.sleep(0.1)
        return task

    loop = kept_alive(asyncio.new_event_loop())
    loop.run_until_complete(work())


def forked(in_child):
    """Fork; the child does its thing and ends, unseen by the runtime; gives what it said."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = in_child()
        except BaseException as error:
            said = type(error).__name__
        os.write(write, str(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def fork_that_exits():
    query("SELECT 1")
    forked(lambda: None)
    return query("SELECT 2")


def fork_that_asks():
    query("SELECT 1")
    said = forked(lambda: query("SELECT 1"))
    assert query("SELECT 2") == ((2,),)
    return said


def fork_that_uses_the_parents():
    connection = database.connection()
    query("SELECT 1")

    def use():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    said = forked(use)
    assert query("SELECT 2") == ((2,),)
    return said


def fork_that_opens_its_own():
    settings = database.settings
    return forked(lambda: pymysql.connect(host=settings.host, port=settings.port))


def fork_that_lingers():
    query("SELECT 1")
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)


def fork_that_raises_through_the_handler():
    query("SELECT 1")
    if os.fork() == 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise ChildError


class ChildError(BaseException):
    """In the forked child; ends it before the runtime client does more."""


def exit_at_once():
    query("SELECT 1")
    os._exit(3)


def killed():
    """Wait to be killed by the observer."""
    return query("SELECT SLEEP(10)")


def lost_and_found(seconds=10):
    """Meet a killed session, and go on with a new one."""
    try:
        query(f"SELECT SLEEP({seconds})")
    except pymysql.err.OperationalError:
        return query("SELECT 'again'")


def interrupted_query():
    """A time-out of one's own, by signal: PyMySQL drops the socket and the server works on."""
    import signal

    def stop(*_):
        raise OwnError("the handler's own alarm")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    query("SELECT SLEEP(20)")


def closed_by_hand():
    query("SELECT 1")
    database.connection().close()


def closed_and_opened():
    for _ in range(5):
        query("SELECT 1")
        database.connection().close()
    return query("SELECT 1")


def broken_clean_up():
    connection = database.connection()
    query("SELECT 1")
    connection.say_goodbye = None  # whatever the reason: our own clean-up fails
    raise OwnError("still the handler's own words")


def nothing():
    """No connection is wanted, none is opened."""


def big_transaction():
    with database.transaction() as cursor:
        cursor.execute(
            "INSERT INTO big SELECT NULL, REPEAT('x', 100) FROM seq a, seq b, seq c, seq d"
        )
        raise OwnError("after ten thousand rows")


def session_variables():
    query("SELECT 1")
    return [list(row) for row in query("SHOW SESSION VARIABLES")]


WAYS = {
    name.removesuffix("_"): thing for name, thing in globals().copy().items() if callable(thing)
}


@database.invocation
def marked(event, context):
    return WAYS[event["way"]]()


def lambda_handler(event, context):
    try:
        answer = marked(event, context)
    except ChildError:
        os._exit(0)
    finally:
        if event.get("forget"):
            kept.clear()
    return answer if not isinstance(answer, tuple) else [list(row) for row in answer]
