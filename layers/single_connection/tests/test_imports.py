"""What the layer brings into a cold start."""

import subprocess
import sys

# Each costs milliseconds, or brings in what does.
DEAR = {
    *("boto3", "botocore", "aws_lambda_powertools", "asyncio", "http", "email", "logging", "uuid"),
    *("urllib.request", "concurrent", "multiprocessing", "unittest", "pydantic"),
}
SETTINGS = {
    "DATABASE_HOST": "db",
    "DATABASE_NAME": "shop",
    "DATABASE_SECRET_ARN": "arn",
    "AWS_REGION": "eu-west-1",
}


def loaded(program: str) -> set[str]:
    """The modules of a new process."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        env=SETTINGS,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_import_brings_in_nothing_dear() -> None:
    ours = loaded("from single_connection import Database\nDatabase.from_environment().settings")
    assert "single_connection._secretsmanager" in ours
    assert not (ours - loaded("import pymysql")) & DEAR
