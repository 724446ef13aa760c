"""Splits a file of SQL into its statements, as no server does it."""

import re
from collections.abc import Iterator

PIECE = re.compile(
    r"""(?P<text> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `[^`]*` | /\*(?:[!+]|M!).*?\*/ )
      | (?P<comment> --(?=\s|$)[^\n]* | \#[^\n]* | /\*.*?\*/ )
      | (?P<end> ; )
      | (?P<open> ['"`] | /\* )""",
    re.DOTALL | re.VERBOSE,
)

# What is left of a stored program's body where `;` has cut it up: its grammar wants a `;` before
# each END or UNTIL, and no statement of SQL begins with one. So `begin` itself is never looked at,
# which is a name like any other to both servers.
REST_OF_A_BODY = re.compile(r"(?:DELIMITER|END|UNTIL)\b", re.IGNORECASE)

# Statements that change rows alone, and so can be committed with others. Anything else may commit
# by itself (DDL), or is the file's own BEGIN or COMMIT.
ROWS = re.compile(r"(?:INSERT|UPDATE|DELETE|REPLACE|SELECT|WITH|LOAD)\b", re.IGNORECASE)


class SplitError(ValueError):
    """The file cannot be split; the message names the line or the construct."""


def split(sql: str) -> Iterator[str]:
    """The statements, without comments; `;` in a string, a name or a comment ends none.

    Stored programs with a body of several statements would need DELIMITER, which is a command of
    the mysql client and no SQL; they are refused.
    """
    statement, position = "", 0
    for piece in PIECE.finditer(sql + "\n;"):
        statement += sql[position : piece.start()]
        position = piece.end()
        if piece["open"]:
            line = sql.count("\n", 0, piece.start()) + 1
            raise SplitError(f"line {line}: {piece['open']} is opened and never closed")
        statement += piece["text"] or (" " if piece["comment"] else "")
        if piece["end"]:
            statement, whole = "", statement.strip()
            if REST_OF_A_BODY.match(whole):
                raise SplitError(
                    "DELIMITER and stored programs with BEGIN … END are not supported; keep logic "
                    "in the functions, or write a body of one statement"
                )
            if whole:
                yield whole


def changes_rows_alone(statement: str) -> bool:
    """Whether it can be committed or rolled back together with another statement."""
    return ROWS.match(statement) is not None
