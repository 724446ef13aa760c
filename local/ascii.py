"""Paths and names in ASCII, as they are in Lambda, wherever the project lies.

Lambda's runtime client sends a failed init phase, with the paths of its traceback, in Latin-1: from
a folder called `Łódź 预订` it could not even say what went wrong. In Lambda no path is like that.
"""

import atexit
import functools
import re
import shutil
import tempfile
from pathlib import Path


def ascii_path(path: Path) -> Path:
    """The same file by a path in ASCII: itself, or through a link that goes when we end."""
    if str(path).isascii():
        return path
    beyond = path
    rest: list[str] = []
    while beyond.name.isascii():
        rest.insert(0, beyond.name)
        beyond = beyond.parent
    return _link(beyond).joinpath(*rest)


@functools.cache
def _link(path: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ascii-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    link = folder / "project"
    link.symlink_to(path, target_is_directory=True)
    return link


def function_name(folder: str) -> str:
    """A name that Lambda allows (letters, digits, hyphen, underscore), for a folder's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", folder)
