"""`python -m workers.run FOLDER [--lifeline]`: run the order in FOLDER."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from workers.run.process import end_with, run_folder


def main() -> int:
    """Parse the arguments and run; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workers.run", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lifeline", action="store_true", help="end when standard input is closed")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if given.lifeline:
        # The group that ends with this process must hold none of the supervisor's.
        with suppress(PermissionError):
            os.setsid()
        end_with(sys.stdin.fileno())
    return run_folder(given.folder)


if __name__ == "__main__":
    sys.exit(main())
