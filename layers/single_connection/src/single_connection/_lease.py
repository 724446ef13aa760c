"""The limits after which the server lets go by itself."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """The limits after which the server lets go by itself, from the seconds an invocation has left.

    It counts from the session's last statement: an environment that dies without a word is gone
    from the server `seconds` later. A lock is waited for at most half as long, so that a
    transaction that met a lock-wait timeout can still be run again.
    """

    seconds: float
    through_proxy: bool = False

    def statement(self, server_version: str) -> str:
        """The one SET that carries the whole session set-up."""
        whole = max(1, math.ceil(self.seconds))
        settings = ["NAMES utf8mb4", "autocommit = 1", f"wait_timeout = {whole}"]
        if not self.through_proxy:  # a proxy pins the session on variables it does not track
            lock_wait = max(1, whole // 2)
            settings += [
                f"net_write_timeout = {whole}",
                f"innodb_lock_wait_timeout = {lock_wait}",
                f"lock_wait_timeout = {lock_wait}",
                f"max_statement_time = {max(0.001, self.seconds):.3f}"
                if "MariaDB" in server_version
                else f"max_execution_time = {max(1, round(self.seconds * 1000))}",
            ]
        return "SET " + ", ".join(settings)
