"""Up to ten times more callers than connections: `python -m lab.overload`."""

import sys

from lab.overload.measure import main

sys.exit(main())
