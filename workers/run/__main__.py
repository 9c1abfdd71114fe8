"""`python -m workers.run FOLDER`: run the order in FOLDER."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from workers.run.process import end_process, run_folder


def main() -> None:
    """Parse the arguments and run; end the process with the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workers.run", description=__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    status = 1
    try:
        status = run_folder(arguments.folder)
    finally:
        end_process(status)


if __name__ == "__main__":
    main()
