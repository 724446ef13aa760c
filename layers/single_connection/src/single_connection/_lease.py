"""The limits after which the server lets go by itself."""

import math


class Lease:
    """The limits after which the server lets go by itself, from the seconds an invocation has left.

    It counts from the session's last statement: an environment that dies without a word is gone
    from the server `seconds` later. A lock is waited for at most half as long, so that a
    transaction that met a lock-wait timeout can still be run again.

    Attributes:
        seconds: How long the server may keep the session without a word from us.
        mark: A name by which the session is found again, to be killed; "" for none.
    """

    __slots__ = ("mark", "seconds", "through_proxy")

    def __init__(self, seconds: float, mark: str = "", *, through_proxy: bool = False) -> None:
        self.seconds = seconds
        self.mark = mark
        self.through_proxy = through_proxy

    def statement(self) -> str:
        """The one SET that carries the whole session set-up, on MySQL and MariaDB alike.

        What only one of them has stands in a comment that it alone carries out, so that nothing
        depends on the version that the server's greeting claims, in plain text, before TLS. (The
        manuals, "Comments": MySQL knows no /*M!, MariaDB passes over /*!50700 to /*!50999.)
        """
        whole = max(1, math.ceil(self.seconds))
        settings = ["NAMES utf8mb4", "autocommit = 1", f"wait_timeout = {whole}"]
        if self.through_proxy:  # it pins the session on variables it does not track, and on locks
            return "SET " + ", ".join(settings)
        lock_wait = max(1, whole // 2)
        settings += [
            f"net_write_timeout = {whole}",
            f"innodb_lock_wait_timeout = {lock_wait}",
            f"lock_wait_timeout = {lock_wait}",
        ]
        if self.mark:
            settings.append(f"@single_connection = GET_LOCK('{self.mark}', 0)")
        return (
            "SET "
            + ", ".join(settings)
            + f" /*!50708 , max_execution_time = {max(1, round(self.seconds * 1000))} */"
            + f" /*M! , max_statement_time = {max(0.001, self.seconds):.3f} */"
        )
