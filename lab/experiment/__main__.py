"""200 warm environments against 65 connections: `python -m lab.experiment`."""

import sys

from lab.experiment.measure import main

sys.exit(main())
