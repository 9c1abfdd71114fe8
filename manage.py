#!/usr/bin/env python3
"""Django's command line. `platform/` is a source root: appended to the path, never put first."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
for root in (str(ROOT), str(ROOT / "platform")):
    if root not in sys.path:
        sys.path.append(root)

if __name__ == "__main__":
    from assay.cli.django_commands import manage

    manage(sys.argv)
