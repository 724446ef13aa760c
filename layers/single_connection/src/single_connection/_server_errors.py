"""What an error number of the server, or of the connection to it, means for who waits or repeats.

The numbers are from MySQL's and MariaDB's error references and from the guide to RDS Proxy.
"""

from typing import Final

# No connection is to be had now, but others have theirs: waiting helps.
FULL: Final = frozenset({
    1040,  # too many connections
    1203,  # too many connections of this user (max_user_connections)
    1226,  # the same, by a limit of the account
    9501,  # RDS Proxy: no database connection could be borrowed in time
})  # fmt: skip
# RDS Proxy says it at a statement, on a session that stays: the statement was not carried out.
BORROW: Final = frozenset({9501})
# Starting, stopping, blocked or silent: waiting helps, too.
PASSING: Final = frozenset({
    1053,  # shutdown in progress
    1129,  # the host is blocked, until FLUSH HOSTS
    1130,  # the host is not allowed, as while grants are being loaded
    2003,  # no answer to a connect
    2006,  # gone away
    2013,  # lost
    3032,  # offline mode, as in a managed server's maintenance
})  # fmt: skip
# The session is no more; what of it was not committed is rolled back.
LOST: Final = frozenset({
    1053,  # shutdown in progress
    1927,  # killed (MariaDB)
    2006,  # gone away
    2013,  # lost
    2055,  # lost, with the system's reason
    3169,  # killed
    4031,  # idle for longer than the lease (MySQL 8.0.24)
})  # fmt: skip
# Nothing was written, and the same statement may work in a moment: a server that takes no writes.
READ_ONLY: Final = frozenset({
    1290,  # --read-only
    1836,  # read-only mode, as in a failover
})  # fmt: skip
# The server's own advice is to run the whole transaction again.
REPEATABLE: Final = frozenset({
    1020,  # a row has changed since it was read (MariaDB, innodb_snapshot_isolation)
    1205,  # lock wait timeout
    1213,  # deadlock
})  # fmt: skip
# The password is wrong, or is being changed.
DENIED: Final = frozenset({1045, 1698})
NO_ACCESS_TO_SCHEMA: Final = 1044
NO_SUCH_SCHEMA: Final = 1049
NO_SUCH_SESSION: Final = 1094
NO_SUCH_SAVEPOINT: Final = 1305
# How the layer ends the words of a lost connection, where its statement changed rows by itself.
OUTCOME_UNKNOWN: Final = "whether the statement was carried out is not known"
