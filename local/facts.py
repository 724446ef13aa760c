"""The machine and the versions that figures belong to."""

import os
import platform
from importlib.metadata import version
from typing import Any

from local.servers import Server


def facts(server: Server) -> dict[str, Any]:
    """What a report has to say beside its figures, so that they can be compared."""
    return {
        "server": str(server),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("awslambdaric", "PyMySQL", "SQLAlchemy")},
    }
