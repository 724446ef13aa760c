"""Finds the COMMIT in what nobody but client and server can read: by the length of its record."""

# MySQL protocol: a header of 4 bytes, COM_QUERY, the text. TLS 1.3: a header of 5 bytes, then the
# text, a byte for its type, and 16 of AEAD tag.
COMMIT_RECORD = 5 + (4 + 1 + len("COMMIT")) + 1 + 16
_APPLICATION_DATA = 23


class Records:
    """Follows a client's side of a MySQL session over TLS 1.3, record by record."""

    def __init__(self) -> None:
        self._head = b""
        self._left = -1  # of the record at hand; -1 while its header is not complete
        self._plain = True  # the client's first packet asks for TLS, in the clear
        self.said = 0  # records under TLS: the end of the handshake, the login, then statements

    def has_commit(self, data: bytes) -> bool:
        """Whether a COMMIT begins in these bytes, the next that the client says."""
        found = False
        while data:
            if self._left > 0:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                continue
            size = 4 if self._plain else 5
            taken = size - len(self._head)
            self._head, data = self._head + data[:taken], data[taken:]
            if len(self._head) < size:
                break
            if self._plain:
                self._left = int.from_bytes(self._head[:3], "little")
                self._plain = False
            else:
                self._left = int.from_bytes(self._head[3:], "big")
                self.said += self._head[0] == _APPLICATION_DATA
                found |= (self._head[0], 5 + self._left) == (_APPLICATION_DATA, COMMIT_RECORD)
            self._head = b""
        return found
