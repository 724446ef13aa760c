"""Whether files have changed, by what the file system says of them."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

_NOT_SOURCE = ("__pycache__", ".pyc", "~", ".swp")


def fingerprint(paths: Iterable[Path]) -> str:
    """Changes when a file in these folders (or one of these files) is edited, added or removed."""
    seen = sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not any(part.endswith(_NOT_SOURCE) for part in file.parts):
                try:
                    found = file.stat()
                except OSError:  # an editor is just replacing it
                    continue
                seen.update(f"{file} {found.st_mtime_ns} {found.st_size}\n".encode())
    return seen.hexdigest()
