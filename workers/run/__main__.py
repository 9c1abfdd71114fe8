"""`python -m workers.run FOLDER`: run the order in FOLDER."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from workers.run.process import run_folder


def main() -> int:
    """Parse the arguments and run; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workers.run", description=__doc__)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    return run_folder(given.folder)


if __name__ == "__main__":
    sys.exit(main())
