"""What a deployed stack bears: more and more callers at once, in the table of lab/overload.

    python -m deploy.load --stack single-connection-dev --callers 10 30 60 --seconds 10

Each caller sends its next signed request as soon as the last one is answered. Reads only, and costs
what the requests cost. `peak` is the most connections of the functions that ConnectionCensus saw
meanwhile; attempts are requests. At the end the census says whether anything was left open.
"""

import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from deploy.deployed import Deployed, FailedError, connect, parser
from deploy.settings import SettingsError
from deploy.smoke import SUCCESS

CALLERS = (10, 30, 60)
SECONDS = 10.0
# Between two looks of the census.
LOOK_SECONDS = 1.0
# After a refusal: what Retry-After and API Gateway's 429 ask for, in short.
PAUSE_SECONDS = 0.2


@dataclass
class Sample:
    """What the callers saw.

    Attributes:
        latencies: Seconds of each success, refusals before it included.
        attempts: Requests that were sent.
        refused: Those without success, by status.
        peak: The most connections of the functions.
        seconds: How long it took.
    """

    latencies: list[float] = field(default_factory=list)
    attempts: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    peak: int = 0
    seconds: float = 0.0


def main(arguments: list[str] | None = None) -> int:
    """Print the table, line by line, and the census's word."""
    made = parser("load", __doc__)
    made.add_argument("--callers", type=int, nargs="+", default=list(CALLERS), help="at once")
    made.add_argument("--seconds", type=float, default=SECONDS, help="for each of them")
    given = made.parse_args(arguments)
    try:
        deployed = connect(given)
        paths = given.path or deployed.paths()
        print(f"GET {', '.join(paths)} of {deployed.url}\n\n{HEAD}", flush=True)
        for callers in given.callers:
            sample = press(deployed, paths, callers, given.seconds)
            print(line(deployed.stack, callers, sample), flush=True)
        print(f"\n{deployed.nothing_is_left(busy=given.busy)}")
    except (FailedError, SettingsError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


def press(deployed: Deployed, paths: Sequence[str], callers: int, seconds: float) -> Sample:
    """So many callers for so long; none begins a request after that.

    Raises:
        FailedError: The census could not be asked.
    """
    sample, lock = Sample(), threading.Lock()
    began = time.monotonic()
    until = began + seconds

    def call(number: int) -> None:
        turn = number
        while (asked := time.monotonic()) < until:
            while True:
                answer = deployed.get(paths[turn % len(paths)])
                with lock:
                    sample.attempts += 1
                    if answer.status in SUCCESS:
                        sample.latencies.append(time.monotonic() - asked)
                        break
                    sample.refused[answer.status] += 1
                if time.monotonic() >= until:
                    return
                time.sleep(PAUSE_SECONDS)
            turn += 1

    threads = [threading.Thread(target=call, args=(n,), daemon=True) for n in range(callers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        counted = deployed.census()
        sample.peak = max(sample.peak, sum(counted["application"].values()))
        threads[-1].join(LOOK_SECONDS)
    for thread in threads:
        thread.join()
    sample.seconds = time.monotonic() - began
    return sample


HEAD = (
    "| callers | side | success | per second | p50 | p95 | p99 | max | "
    "attempts per success | peak |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def line(stack: str, callers: int, sample: Sample) -> str:
    """A row of the table; success is the share of requests that were answered."""
    latencies = sorted(sample.latencies)
    good = len(latencies)
    times = " | ".join(_seconds(_percentile(latencies, share)) for share in (0.5, 0.95, 0.99, 1.0))
    attempts = f"{sample.attempts / good:.2f}" if good else "-"
    refused = "".join(f", {n}x {status or 'silence'}" for status, n in sample.refused.most_common())
    share = _percent(good / sample.attempts) if sample.attempts else "-"
    return (
        f"| {callers} | {stack} | {share}{refused} | {good / sample.seconds:,.0f} | {times} | "
        f"{attempts} | {sample.peak} |"
    )


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


def _percent(share: float) -> str:
    # 100 % is said only where not one failed.
    return "100 %" if share == 1 else f"{min(share * 100, 99.9):.3g} %"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
