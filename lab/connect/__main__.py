"""What a connection costs, against what people use today: `python -m lab.connect`."""

import sys

from lab.connect.measure import main

sys.exit(main())
