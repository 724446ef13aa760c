"""That what `sam build` made is for the Python and the processor that the functions will have."""

import re
from pathlib import Path

from deploy.questions import Questions, RefusedError
from deploy.template import ROOT

BUILT = ROOT / ".aws-sam" / "build"
# What a compiled module says of itself: module.cpython-313-x86_64-linux-gnu.so
TAG = re.compile(r"\.cpython-3(\d+)-(x86_64|aarch64)-linux-gnu\.so$")
PROCESSORS = {"x86_64": "x86_64", "aarch64": "arm64"}


def check_artifacts(asked: Questions, built: Path = BUILT) -> None:
    """A module compiled for another Python or processor fails at import, in Lambda only."""
    wanted = asked.parameter("Runtime"), asked.parameter("Architecture")
    for path in sorted(built.rglob("*.so")):
        if not (tag := TAG.search(path.name)):
            continue
        found = f"python3.{tag[1]}", PROCESSORS[tag[2]]
        if found != wanted:
            version = wanted[0].removeprefix("python")
            raise RefusedError(
                f"{path.relative_to(built)} was built for {' on '.join(found)}, and the functions "
                f"will have {' on '.join(wanted)}: run `make build PYTHON_VERSION={version} "
                f"ARCHITECTURE={wanted[1]}`."
            )
