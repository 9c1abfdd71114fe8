"""Build the documentation site, and check that it needs no other server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Builds 100 pages in a process of its own: too slow for the inner loop.
pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]


def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    built = subprocess.run(
        [*command, "--site-dir", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr

    pages = list(tmp_path.rglob("*.html"))
    for page in (
        "reference/settings", "reference/cli", "reference/api/releases", "explanation/architecture"
    ):  # fmt: skip
        assert tmp_path / f"{page}.html" in pages
    # Links to other sites are for people to follow; a browser loads what these elements name.
    loads = re.compile(
        r"<(?:script|img|iframe|link(?! rel=\"?(?:canonical|prev|next)))\b[^>]*?"
        r"\b(?:src|href)=\"?(?:https?:)?//[^\"> ]+"
    )
    for page in pages:
        assert loads.findall(page.read_text()) == [], page.name
