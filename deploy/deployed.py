"""A stack that is deployed, asked from outside: signed requests to its API, and its census."""

import argparse
import json
import time
from typing import Any, NamedTuple

import boto3
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError

from deploy.settings import read_environment
from deploy.template import ROOT

# API Gateway's quota: an HTTP API waits 30 seconds for a function.
TIMEOUT = urllib3.Timeout(connect=10, read=31)
# A session that is just being ended is on the server's list for a moment.
PATIENCE_SECONDS = 10


class FailedError(Exception):
    """What was asked cannot be answered, or the answer is bad; the sentence says what to do."""


class Answer(NamedTuple):
    """What a request got, and after how many seconds; status 0 where nothing answered."""

    status: int
    body: bytes
    seconds: float


class Deployed:
    """A stack's API and census, with the caller's own credentials."""

    def __init__(self, stack: str, region: str | None, profile: str | None) -> None:
        """Read where they are.

        Raises:
            FailedError: There is no such stack, no credentials, or it has no API or no census.
        """
        self.stack = stack
        try:
            session = boto3.Session(region_name=region, profile_name=profile)
            credentials = session.get_credentials()
            if credentials is None:
                raise FailedError("No AWS credentials were found: `aws configure`, or `aws login`.")
            self._credentials = credentials
            self.region = session.region_name
            described = session.client("cloudformation").describe_stacks(StackName=stack)
            self._lambda = session.client("lambda")
        except (BotoCoreError, ClientError) as error:
            raise FailedError(f"The stack {stack} cannot be read: {error}") from error
        [found] = described["Stacks"]
        outputs = {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", ())}
        missing = {"ApiUrl", "CensusFunction"} - outputs.keys()
        if missing:
            raise FailedError(
                f"The stack {stack} has no output {' and no '.join(sorted(missing))}: name the "
                "stack of the functions, deployed from this template."
            )
        self.url = outputs["ApiUrl"].rstrip("/")
        self._census = outputs["CensusFunction"]
        self._pool = urllib3.PoolManager(maxsize=1000, timeout=TIMEOUT, retries=False)

    def get(self, path: str, *, signed: bool = True) -> Answer:
        """GET, signed as IAM asks for (SigV4)."""
        request = AWSRequest("GET", self.url + path)
        if signed:
            SigV4Auth(self._credentials, "execute-api", self.region).add_auth(request)
        began = time.monotonic()
        try:
            got = self._pool.request("GET", str(request.url), headers=dict(request.headers.items()))
        except urllib3.exceptions.HTTPError as error:
            return Answer(0, type(error).__name__.encode(), time.monotonic() - began)
        return Answer(got.status, got.data, time.monotonic() - began)

    def paths(self) -> list[str]:
        """What can be read without knowing anything: the GETs of its OpenAPI without parameters.

        Raises:
            FailedError: It has no /openapi.json.
        """
        answer = self.get("/openapi.json")
        if answer.status != 200:
            raise FailedError(
                f"GET {self.url}/openapi.json was answered {said(answer)}: name what to read "
                "with --path."
            )
        described = json.loads(answer.body)["paths"]
        return [path for path, operations in described.items() if _is_plain(path, operations)]

    def census(self) -> dict[str, Any]:
        """The connections, as ConnectionCensus counts them; it ends none.

        Raises:
            FailedError: It could not be invoked, or failed.
        """
        try:
            invoked = self._lambda.invoke(FunctionName=self._census, Payload=b'{"dry_run": true}')
        except (BotoCoreError, ClientError) as error:
            raise FailedError(f"{self._census} cannot be invoked: {error}") from error
        answer: dict[str, Any] = json.loads(invoked["Payload"].read())
        if "FunctionError" in invoked:
            raise FailedError(f"{self._census} failed: {answer.get('errorType')}; see its log.")
        return answer

    def nothing_is_left(self, *, busy: bool) -> str:
        """The census's word that no connection was left open.

        Args:
            busy: Others are at work on the stack, or it has a proxy, which keeps connections:
                only what outlived any invocation counts then.

        Raises:
            FailedError: Something was left.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            counted = self.census()
            open_ = sum(counted["application"].values())
            if counted["outlived"]:
                raise FailedError(
                    f"Connections outlived any invocation: {counted['outlived']}. See the log of "
                    "ConnectionCensus, which ends them within the minute."
                )
            if not open_ or busy:
                break
            if time.monotonic() > until:
                raise FailedError(
                    f"{open_} connections of the functions are still open after "
                    f"{PATIENCE_SECONDS} s: {counted['application']}. Where others are at work, "
                    "or a proxy keeps them, say BUSY=1."
                )
            time.sleep(0.5)
        return (
            f"census: {open_} connections of the functions open, none outlived its invocation; "
            f"{counted['connections']} of {counted['limit']} in all"
        )


def _is_plain(path: str, operations: dict[str, Any]) -> bool:
    asked = operations.get("get")
    if asked is None or "{" in path:
        return False
    return not any(one.get("required") for one in asked.get("parameters", ()))


def said(answer: Answer) -> str:
    """An answer in words."""
    text = answer.body[:200].decode(errors="replace")
    return f"{answer.status or 'not at all'} ({text})"


def parser(program: str, what: str | None) -> argparse.ArgumentParser:
    """Which stack, for the commands that ask one."""
    made = argparse.ArgumentParser(
        prog=f"python -m deploy.{program}",
        description=what,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--stack", help="its name")
    made.add_argument("--environment", default="default", help="or a section of samconfig.toml")
    made.add_argument("--region", help="default: what samconfig.toml or the profile says")
    made.add_argument("--profile", help="a profile of ~/.aws/config")
    made.add_argument("--path", action="append", help="what to GET; default: what OpenAPI lists")
    made.add_argument("--busy", action="store_true", help="others are at work on it")
    return made


def connect(given: argparse.Namespace) -> Deployed:
    """The stack that was named.

    Raises:
        FailedError: It cannot be read.
        SettingsError: samconfig.toml has no such section.
    """
    if given.stack:
        return Deployed(given.stack, given.region, given.profile)
    wanted = read_environment(ROOT, given.environment)
    return Deployed(wanted.stack, given.region or wanted.region, given.profile or wanted.profile)
