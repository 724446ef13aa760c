"""What the layer brings into a cold start."""

import subprocess
import sys

# Each costs milliseconds, or brings in what does.
DEAR = {
    *("inspect", "dataclasses", "pathlib", "ipaddress", "random", "urllib", "json", "logging"),
    *("http", "email", "uuid", "asyncio", "concurrent", "multiprocessing", "unittest"),
    *("boto3", "botocore", "aws_lambda_powertools", "pydantic"),
}
# As in the artifact: without what a development environment has beside it.
ALONE = "import sys; sys.modules['cryptography'] = None"
SETTINGS = {
    "DATABASE_HOST": "db",
    "DATABASE_NAME": "shop",
    "DATABASE_SECRET_ARN": "arn",
    "AWS_REGION": "eu-west-1",
}


def loaded(program: str) -> set[str]:
    """The modules of a new process."""
    done = subprocess.run(
        [sys.executable, "-c", f"{ALONE}\n{program}\nprint(*sys.modules)"],
        env=SETTINGS,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_import_brings_in_nothing_dear() -> None:
    ours = loaded("from single_connection import Database\nDatabase.from_environment().settings")
    assert "single_connection._secretsmanager" in ours
    assert not {name.partition(".")[0] for name in ours - loaded("import pymysql")} & DEAR
