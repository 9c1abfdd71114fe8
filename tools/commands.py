"""Write `docs/reference/cli.md`, the reference of the `assay` command, by typer's own generator.

.venv/bin/python tools/commands.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "cli.md"
HEAD = """# Command line

Written by `tools/commands.py` from the commands. `assay COMMAND --help` shows the same.

"""


def page() -> str:
    """Return the page: one section for each command, one level below for those of a group."""
    sys.path.insert(0, str(ROOT / "platform"))
    import typer
    from typer.cli import get_docs_for_click

    from assay.cli.main import every_command

    command = every_command()
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="assay")
    # The list above each section repeats the headings, with truncated sentences.
    text = re.sub(r"\*\*Commands\*\*:\n\n(?:\* .+\n(?: {2,}.+\n)*)+\n*", "", text)
    text = re.sub(
        r"^\* `--(?:help|install-completion|show-completion)`: .+\n", "", text, flags=re.M
    )
    text = re.sub(r"\*\*Options\*\*:\n\n+(?=#|\Z)", "", text)
    return HEAD + re.sub(r"^# `assay`\n", "", text).strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
