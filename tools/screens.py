"""Take every screen of the portal at three widths, light and dark, as one page to look at.

`python tools/screens.py [FOLDER]` writes FOLDER/index.html, by default build/screens/index.html,
which git ignores. It shows the company of the tests: as usual, with long names, with no data, and
with ten thousand rows; and every form with invalid values. It needs a Chromium and takes some
minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "screens").resolve()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "live", "tests/live/contact_sheet.py"]
    environment = {**os.environ, "ASSAY_ENV": "test", "ASSAY_SCREENS": str(folder)}
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if not code:
        sys.stdout.write(f"{folder / 'index.html'}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
