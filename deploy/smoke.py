"""Whether a deployed stack works: signed requests to what its API lists, and the census's word.

    python -m deploy.smoke --stack single-connection-dev

Reads only. Each GET without parameters must succeed, a request that is not signed must be refused,
and ConnectionCensus must say that nothing was left open. Ends with 1 where one of them is not so.
"""

import sys
import time

from deploy.deployed import Answer, Deployed, FailedError, connect, parser, said
from deploy.settings import SettingsError

SUCCESS = range(200, 300)
FORBIDDEN = 403
# A new stack's first request meets a cold start, and may meet a database that is waking up.
PATIENCE_SECONDS = 60
PAUSE_SECONDS = 2
PASSING = frozenset({0, 429, 503, 504})


def main(arguments: list[str] | None = None) -> int:
    """Print one line for each question."""
    given = parser("smoke", __doc__).parse_args(arguments)
    try:
        deployed = connect(given)
        print(f"{deployed.stack}: {deployed.url}")
        check(deployed, given.path, busy=given.busy)
    except (FailedError, SettingsError) as error:
        print(f"It does not work. {error}", file=sys.stderr)
        return 1
    print("It works.")
    return 0


def check(deployed: Deployed, paths: list[str] | None, *, busy: bool) -> None:
    """Ask everything.

    Raises:
        FailedError: One of the answers is bad.
    """
    for path in paths or deployed.paths():
        answer = patiently(deployed, path)
        print(f"GET {path}  {answer.status}  {answer.seconds * 1000:.0f} ms")
        if answer.status not in SUCCESS:
            raise FailedError(
                f"GET {path} was answered {said(answer)}. 403: your role lacks execute-api:Invoke "
                "on this API; 5xx: the function's log has the error by its class."
            )
    unsigned = deployed.get((paths or ["/openapi.json"])[0], signed=False)
    print(f"unsigned  {unsigned.status}")
    if unsigned.status != FORBIDDEN:
        raise FailedError(
            f"A request that nobody signed was answered {said(unsigned)} and not refused: the API "
            "is open to everybody (Auth of HttpApi in template.yaml)."
        )
    print(deployed.nothing_is_left(busy=busy))


def patiently(deployed: Deployed, path: str) -> Answer:
    """The answer, asked for again where what came passes by itself."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = deployed.get(path)
        if answer.status not in PASSING or time.monotonic() > until:
            return answer
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
