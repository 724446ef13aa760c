"""The clock that deadlines are measured by: the system's own, whatever a test puts in its place.

Libraries that stop the time for tests (freezegun, time-machine's older versions) replace the
functions they find in modules; they do not look into a class.
"""

import time


class clock:  # noqa: N801 - read as a thing: clock.now()
    """Seconds on a clock that only runs forward."""

    now = staticmethod(time.monotonic)
