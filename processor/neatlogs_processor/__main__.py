"""`python -m neatlogs_processor`: the same as the console script."""

from __future__ import annotations

import sys

from neatlogs_processor.cli import main

if __name__ == "__main__":
    sys.exit(main())
