"""What the layer adds to a cold start: CPU time of a new process, against `import pymysql` alone.

Fresh processes, in turn, with compiled modules on disk as in Lambda after the first import. CPU
time, not wall time: it scales with the share of a core that Lambda gives (1,769 MB is one, AWS
Lambda Developer Guide, "Configure Lambda function memory"). The scaled figures are an estimate.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

BUILD = Path("build/bench")
FULL_CORE_MB = 1769
MEMORY_MB = (128, 256, 512, FULL_CORE_MB)
LIMIT_MS = 15.0

# CPU time is read inside, so that the interpreter's own start is in every figure alike.
END = "\nimport time; print(time.process_time())"
ENVIRON = {
    "DATABASE_HOST": "127.0.0.1",
    "DATABASE_NAME": "shop",
    "DATABASE_USER": "application",
    "DATABASE_PASSWORD": "password",
    "AWS_REGION": "eu-west-1",
}
PROGRAMS = {
    "python": "",
    "pymysql": "import pymysql",
    "layer": "from single_connection import Database\nDatabase.from_environment().settings",
    "sqlalchemy": "import sqlalchemy, sqlalchemy.dialects.mysql.pymysql",
    "boto3": "import boto3",
}
LABELS = {
    "python": "Python itself",
    "pymysql": "import pymysql",
    "layer": "this layer with its settings",
    "sqlalchemy": "SQLAlchemy with its PyMySQL dialect",
    "boto3": "import boto3 (here only when a secret is read)",
}
ABSENT = ("boto3", "botocore", "aws_lambda_powertools", "asyncio")


def main(arguments: list[str] | None = None) -> int:
    """Measure on each Python there is; 1 if the layer costs more than it may."""
    parser = argparse.ArgumentParser(prog="python -m lab.connect.cold_start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--output", type=Path, default=BUILD)
    asked = parser.parse_args(arguments)
    pythons = {}
    for version in ("3.11", "3.12", "3.13", "3.14"):
        if program := find_python(version):
            pythons[version] = program
    if "3.13" not in pythons:
        print(
            "SKIPPED: no working Python 3.13 with PyMySQL here; `make test-3.13` makes one in "
            ".venv-3.13 where python3.13 is installed",
            file=sys.stderr,
        )
    result: dict[str, Any] = {"rounds": asked.rounds, "pythons": {}}
    for version, program in pythons.items():
        result["pythons"][version] = measure(program, asked.rounds)
    result["tables"] = {"cold-start": _table(result), "cold-start-memory": _by_memory(result)}
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "cold_start.json").write_text(json.dumps(result, indent=1) + "\n")
    from lab.connect.report import aligned

    for head, rows in result["tables"].values():
        print(aligned(head, rows), end="\n\n")
    over = [v for v, one in result["pythons"].items() if one["added_ms"] > LIMIT_MS]
    for version in over:
        added = result["pythons"][version]["added_ms"]
        print(f"Python {version}: the layer adds {added} ms to pymysql, {LIMIT_MS} are allowed")
    return 1 if over else 0


def find_python(version: str) -> list[str] | None:
    """A command that runs that Python with PyMySQL, or None."""
    home = Path.home()
    candidates: list[str] = [sys.executable, f".venv-{version}/bin/python", f"python{version}"]
    candidates += sorted(map(str, home.glob(f".pyenv/versions/{version}*/bin/python")))
    wanted = tuple(map(int, version.split(".")))
    check = f"import sys, pymysql; sys.exit(sys.version_info[:2] != {wanted})"
    for candidate in candidates:
        try:
            done = subprocess.run(
                [candidate, "-c", check],
                capture_output=True,
                check=False,
                env=environ(),
                timeout=20,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return [candidate]
    return None


def environ() -> dict[str, str]:
    """Nothing but what the layer reads, and where it is.

    PyMySQL is pure Python, so that another version may take it from this environment.
    """
    import pymysql
    import single_connection

    # Where Lambda has /opt/python: the layer, and what it brings.
    path = os.pathsep.join(
        str(Path(str(module.__file__)).parents[1]) for module in (single_connection, pymysql)
    )
    return {**ENVIRON, "PYTHONPATH": path, "PATH": os.environ.get("PATH", "")}


def measure(program: list[str], rounds: int) -> dict[str, Any]:
    """CPU milliseconds of each program's process, and what the layer must not import."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    missing = set()
    for turn in range(rounds + 1):
        for name, source in PROGRAMS.items():
            done = _python(program, source + END)
            if done is None:
                missing.add(name)  # a package that is not there for this Python
            elif turn:  # the first compiles
                times[name].append(float(done) * 1000)
    medians = {
        n: round(statistics.median(t), 2) for n, t in times.items() if t and n not in missing
    }
    paired = [a - b for a, b in zip(times["layer"], times["pymysql"], strict=True)]
    loaded = _python(program, PROGRAMS["layer"] + "\nimport sys; print(*sys.modules)") or ""
    return {
        "cpu_ms": medians,
        "added_ms": round(statistics.median(paired), 2),
        "must_not_be_imported": sorted(set(ABSENT) & set(loaded.split())),
        "modules": len(loaded.split()),
    }


def _python(program: list[str], source: str) -> str | None:
    done = subprocess.run(
        [*program, "-c", source], env=environ(), capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = ["CPU milliseconds of a new process", *(f"Python {v}" for v in result["pythons"])]
    rows = []
    for name, label in LABELS.items():
        cells = [str(one["cpu_ms"].get(name, "-")) for one in result["pythons"].values()]
        rows.append([label, *cells])
    added = [f"**{one['added_ms']:+}**" for one in result["pythons"].values()]
    return head, [*rows, ["the layer beside pymysql", *added]]


def _by_memory(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    newest = list(result["pythons"])[-1]
    one = result["pythons"][newest]
    head = [f"estimate for Lambda, Python {newest}, ms", *(f"{mb} MB" for mb in MEMORY_MB)]
    rows = []
    for label, cpu in (
        ("import pymysql", one["cpu_ms"]["pymysql"] - one["cpu_ms"]["python"]),
        ("what this layer adds", one["added_ms"]),
    ):
        rows.append([label, *(f"{cpu * FULL_CORE_MB / mb:.0f}" for mb in MEMORY_MB)])
    return head, rows


if __name__ == "__main__":
    sys.exit(main())
