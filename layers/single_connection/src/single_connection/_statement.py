"""What a statement is, by its first words: enough to know what it does to a transaction."""

import re
from typing import NamedTuple

# White space, comments and opening parentheses; not what stands in /*! … */, which is carried out.
_BEFORE = re.compile(r"(?:\s|\(|/\*(?![!M]).*?\*/|--(?=[\s\0]|$)[^\n]*|#[^\n]*)*", re.DOTALL)
_WORDS = re.compile(
    r"(?:/\*M?!\d*\s*)?([A-Za-z]+)(?:\s+WORK\b)?(?:\s|/\*(?![!M]).*?\*/)*([A-Za-z_@.]*)",
    re.DOTALL | re.IGNORECASE,
)

# Ended by it, or begun: MySQL's reference manual, "Statements That Cause an Implicit Commit".
_CONTROL = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "XA"})
_DEFINING = frozenset({
    "ALTER", "ANALYZE", "CACHE", "CHECK", "CREATE", "DROP", "FLUSH", "GRANT", "INSTALL", "OPTIMIZE",
    "RENAME", "REPAIR", "RESET", "REVOKE", "TRUNCATE", "UNINSTALL",
})  # fmt: skip
_READING = frozenset({
    "DESC", "DESCRIBE", "EXPLAIN", "HELP", "SELECT", "SHOW", "TABLE", "VALUES", "WITH",
})  # fmt: skip
_RETURNING = frozenset({"DELETE", "INSERT", "REPLACE", "UPDATE"})
# What a WITH does in the end, unless it reads; FOR UPDATE does.
_CHANGE = re.compile(r"(?<!FOR)\s(DELETE|UPDATE)\b", re.IGNORECASE)
# A SET of an encoding in which the second byte of a character may be a backslash or a quote.
_UNSAFE_CHARSET = re.compile(
    r"\b(?:NAMES|CHARSET|CHARACTER[_\s]+SET\w*)\b.*\b(?:big5|cp932|gb18030|gbk|sjis)",
    re.DOTALL | re.IGNORECASE,
)


class Statement(NamedTuple):
    """The first word, and what follows from it.

    Attributes:
        word: In capitals; "" where there is none.
        second: The second one.
    """

    word: str
    second: str

    @property
    def reads(self) -> bool:
        """Whether it changes no rows, as far as its first word tells."""
        return self.word in _READING

    @property
    def returns_changed(self) -> bool:
        """Whether rows that it gives are rows that it changed (MariaDB's RETURNING)."""
        return self.word in _RETURNING

    @property
    def is_harmless(self) -> bool:
        """Whether it may be sent before it is known that the session is as it should be."""
        return self.word == "SELECT" or self.begins

    @property
    def begins(self) -> bool:
        """Whether it begins a transaction."""
        return self.word == "BEGIN" or (self.word == "START" and self.second == "TRANSACTION")

    @property
    def rolls_back(self) -> bool:
        """Whether it undoes the whole transaction."""
        return self.word == "ROLLBACK" and self.second != "TO"

    @property
    def ends_transaction(self) -> bool:
        """Whether it begins or ends a transaction, or commits the one that is open by itself."""
        if self.word in _CONTROL:
            return self.word != "ROLLBACK" or self.second != "TO"
        if self.word in _DEFINING:
            return self.second != "TEMPORARY"
        if self.word in ("LOCK", "UNLOCK"):
            return self.second in ("TABLE", "TABLES")
        if self.word == "SET":
            return self.second.rpartition(".")[2] == "AUTOCOMMIT" or self.second == "PASSWORD"
        return self.begins

    @property
    def commits_first(self) -> bool:
        """Whether the server commits what is open before it looks whether it can do it."""
        return self.word in _DEFINING and self.ends_transaction

    @property
    def alters_session(self) -> bool:
        """Whether it leaves something in the session that a new one would not have."""
        if self.word in ("SET", "USE", "PREPARE", "LOCK"):
            return True
        return self.word == "CREATE" and self.second == "TEMPORARY"


def names_another_charset(sql: str | bytes) -> bool:
    """Whether a SET changes how the server reads strings, behind the back of who escapes them."""
    text = sql if isinstance(sql, str) else sql.decode("latin-1")
    return _UNSAFE_CHARSET.search(text) is not None


def classify(sql: str | bytes) -> Statement:
    """The statement's first words."""
    text = sql if isinstance(sql, str) else sql[:4096].decode("latin-1")
    start = _BEFORE.match(text)
    words = _WORDS.match(text, start.end() if start else 0)
    if words is None:
        return Statement("", "")
    word, second = words.groups()
    if word.upper() == "WITH" and (change := _CHANGE.search(text, words.end())):
        word, second = change[1], ""
    return Statement(word.upper(), second.upper().removeprefix("@@"))
