"""Write every reference page that is generated from code: endpoints, settings, commands, the
interface of plug-ins, training methods and metrics.

ASSAY_ENV=test .venv/bin/python tools/references.py
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A script's path does not include the packages of the repository.
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "platform")]
TOOLS = ("endpoints", "settings", "commands", "plug_ins", "training_methods", "metrics")

if __name__ == "__main__":
    for name in TOOLS:
        written = runpy.run_path(str(HERE / f"{name}.py"))
        written["PAGE"].write_text(written["page"](), encoding="utf-8")
