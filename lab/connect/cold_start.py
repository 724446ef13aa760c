"""CPU until the first answer of a new process: this layer beside what is documented.

`make bench-cold` measures the artifacts that `sam build` makes, on Lambda's Python, with the secret
read from a stand-in for Secrets Manager and a real MySQL behind TLS. Sides take turns. CPU (user
and system), not wall time: Lambda gives a share of a core, and CPU scales with it.

The interpreter runs without `site` (-S), whose .pth files may import half of what is measured
before it is, and writes no byte code (-B), as in Lambda, whose disk is read-only.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.connect import cold_report
from local.certificates import write_certificates
from local.database import LocalDatabase
from local.environment import ROOT, run
from local.facts import facts
from local.migration import migrate
from local.secrets_manager import SecretsManager
from local.servers import any_server, find_servers
from local.template import find_function

OUTPUT = ROOT / "build" / "bench"
ARTIFACTS = ROOT / ".aws-sam" / "build"
LAYER = ARTIFACTS / "SingleConnectionLayer" / "python"
HANDLERS = Path(__file__).parent / "cold"
# What Lambda's runtime brings itself, with its byte code.
RUNTIME = ("boto3", "botocore", "s3transfer", "urllib3", "jmespath", "dateutil", "six.py")

PROGRAM = """
import time
from {module} import lambda_handler
imported = time.process_time()
{between}
class Context:
    function_name = "cold"
    function_version = "$LATEST"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:cold"
    aws_request_id = "00000000-0000-4000-8000-000000000000"
    log_group_name = log_stream_name = "cold"
    def get_remaining_time_in_millis(self):
        return 20000
answer = lambda_handler({event!r}, Context())
done = time.process_time()
assert answer is not None and answer.get("statusCode", 200) < 300, answer
print(imported, done)
"""
# In place of a function: what is imported, and nothing called.
IMPORTS = {
    "python": "",
    "pymysql": "import pymysql",
    "layer": "from single_connection import Database\nDatabase.from_environment().settings",
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, report; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m lab.connect.cold_start")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--python", default=os.environ.get("PYTHON_313") or "python3.13")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args(arguments)
    if not shutil.which(asked.python):
        print("SKIPPED: no working Python 3.13 here, which is Lambda's", file=sys.stderr)
        return 2
    if not LAYER.is_dir():
        print(f"{LAYER} is not there: run `make build`", file=sys.stderr)
        return 2
    # MySQL where it is there: its passwords and its TLS are what RDS for MySQL has.
    server = next((s for s in find_servers() if s.flavor == "mysql"), None) or any_server()
    with tempfile.TemporaryDirectory() as directory:
        runtime = lay_out_runtime(Path(directory) / "runtime", asked.python)
        with LocalDatabase(server, Path(directory) / "data") as database:
            run(migrate(database))
            result = measure(database, runtime, asked.python, asked.rounds, Path(directory))
    result["facts"] = facts(server)
    return cold_report.write(result, asked.output)


def lay_out_runtime(folder: Path, python: str) -> Path:
    """boto3 as Lambda's runtime has it: by itself, and compiled."""
    import botocore

    installed = Path(botocore.__file__).parents[1]
    folder.mkdir(parents=True)
    for name in RUNTIME:
        if (installed / name).is_dir():
            leave = shutil.ignore_patterns("__pycache__")
            shutil.copytree(installed / name, folder / name, ignore=leave)
        else:
            shutil.copy(installed / name, folder / name)
    compiling = (python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
    subprocess.run([*compiling, str(folder)], check=True)
    return folder


def measure(
    database: LocalDatabase, runtime: Path, python: str, rounds: int, directory: Path
) -> dict[str, Any]:
    """Medians of each side, in milliseconds of CPU."""
    given = database.application_environ()
    pair = {"username": given["DATABASE_USER"], "password": given["DATABASE_PASSWORD"]}
    certificates = write_certificates(directory / "secrets")
    with SecretsManager() as plain, SecretsManager(certificates) as secured:
        plain.secret = secured.secret = json.dumps(pair)
        everywhere = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            **{name: value for name, value in given.items() if name not in PASSWORD},
        }
        by_secret = everywhere | plain.environ()
        sides = dict(_sides(everywhere | given, by_secret))
        sides |= _secured(everywhere | secured.environ(), certificates.ca_file, directory)
        times: dict[str, list[list[float]]] = {name: [] for name in sides}
        for turn in range(rounds + 1):
            for name, (source, environ) in sides.items():
                path = os.pathsep.join([environ["PYTHONPATH"], str(LAYER), str(runtime)])
                took = _run(python, source, {**environ, "PYTHONPATH": path})
                if turn:  # the first fills the disk's cache
                    times[name].append(took)
    medians = {name: _medians(taken) for name, taken in times.items()}
    # Round by round: what else the machine does moves both alike.
    pairs = zip(times["layer"], times["pymysql"], strict=True)
    medians["layer"]["added"] = round(statistics.median(a[-1] - b[-1] for a, b in pairs), 1)
    return {"rounds": rounds, "sides": medians}


PASSWORD = ("DATABASE_USER", "DATABASE_PASSWORD")
EVENTS = {
    "orders_api": "orders_api.products",
    "stock_worker": "stock_worker.deliveries",
    "sales_report": "sales_report.nightly",
    "connection_census": "connection_census.each_minute",
}

Side = tuple[str, Mapping[str, str]]


def _sides(by_password: dict[str, str], by_secret: dict[str, str]) -> Iterator[tuple[str, Side]]:
    """Name, program and environment."""
    for name, source in IMPORTS.items():
        program = f"{source}\nimport time\nprint(time.process_time(), time.process_time())"
        yield name, (program, by_password | {"PYTHONPATH": ""})
    here = {"PYTHONPATH": str(HANDLERS)}
    yield "ours, password", (_program("ten_lines"), by_password | here)
    yield "ours", (_program("ten_lines"), by_secret | here)
    yield "documented", (_program("documented"), by_secret | here)
    for name, event in EVENTS.items():
        function = find_function(name)
        folder = ARTIFACTS / "".join(part.title() for part in name.split("_"))
        if not folder.is_dir():  # nothing to build: the sources are what is deployed
            folder = ROOT / "functions" / name
        told = json.loads((ROOT / "events" / f"{event}.json").read_text())
        environ = {**function.environ, **by_secret, "PYTHONPATH": str(folder)}
        yield name, (_program("app", told), environ)


def _secured(environ: dict[str, str], authority: Path, directory: Path) -> dict[str, Side]:
    """Secrets Manager behind TLS, each side with its own authorities and the stand-in's beside."""
    import certifi

    environ = environ | {"PYTHONPATH": str(HANDLERS)}
    amazon = LAYER / "single_connection" / "amazon_roots" / "roots.pem"
    bundles = {}
    for name, roots in (("ours", amazon), ("documented", Path(certifi.where()))):
        bundles[name] = directory / f"{name}.pem"
        bundles[name].write_text(roots.read_text() + authority.read_text())
    patched = (
        f"from single_connection import _secretsmanager\n_secretsmanager.ROOTS = "
        f"{str(bundles['ours'])!r}"
    )
    theirs = environ | {"AWS_CA_BUNDLE": str(bundles["documented"])}
    return {
        "ours, TLS": (_program("ten_lines", between=patched), environ),
        "documented, TLS": (_program("documented"), theirs),
    }


def _program(module: str, event: Any = None, between: str = "") -> str:
    return PROGRAM.format(module=module, event=event or {"id": 1}, between=between)


def _run(python: str, source: str, environ: Mapping[str, str]) -> list[float]:
    """CPU milliseconds until the import was over, of the first call, and of both."""
    command = [python, "-S", "-B", "-c", source]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{done.stdout}\n{done.stderr}")
    imported, called = map(float, done.stdout.splitlines()[-1].split())
    return [imported * 1000, (called - imported) * 1000, called * 1000]


def _medians(taken: list[list[float]]) -> dict[str, float]:
    stages = zip(*taken, strict=True)
    return {
        stage: round(statistics.median(one), 1)
        for stage, one in zip(("import", "first call", "all"), stages, strict=True)
    }


if __name__ == "__main__":
    sys.exit(main())
