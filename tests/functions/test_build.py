"""What runs on this machine runs in Lambda: each module of a function's folder is shipped."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local.environment import Answer, Environment
from tests.functions.conftest import ROOT

BUILT = sorted(path.parent.name for path in ROOT.glob("functions/*/Makefile"))


def run(folder: Path) -> Answer:
    async def invoke() -> Answer:
        async with Environment(folder) as environment:
            return await environment.invoke({})

    return asyncio.run(invoke())


@pytest.mark.parametrize("function", BUILT)
@pytest.mark.parametrize("logical_id", ["OrdersApi", "YourOwn"])
def test_a_second_module_and_a_package_are_built_in(
    function: str, logical_id: str, tmp_path: Path
) -> None:
    """pip is left out: what it downloads is not what is tried."""
    source, artifact = tmp_path / function, tmp_path / "artifact"
    shutil.copytree(ROOT / "functions" / function, source)
    artifact.mkdir()
    (source / "prices").mkdir()
    (source / "prices" / "__init__.py").write_text("RATE = 7\n")
    (source / "pricing.py").write_text("from prices import RATE\n")
    (source / "app.py").write_text(
        "import pricing\ndef lambda_handler(event, context): return pricing.RATE\n"
    )
    assert run(source).payload == b"7"
    subprocess.run(
        ["make", "-C", source, f"build-{logical_id}", "PYTHON=true", "PYTHON_313=false"],
        env={**os.environ, "ARTIFACTS_DIR": str(artifact)},
        check=True,
    )
    assert {path.name for path in artifact.iterdir()} == {"app.py", "pricing.py", "prices"}
    assert run(artifact).payload == b"7"
