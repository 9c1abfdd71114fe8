"""Every module that starts a process is listed with what that process may reach."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "processes.md"
SOURCES = ("governance", "registry", "workers", "tasks", "platform", "examples/demo")
STARTS = re.compile(
    r"subprocess\.(?:Popen|run|check_output|check_call|call)\(|os\.(?:fork|posix_spawn|spawn\w*"
    r"|exec\w*|system|popen)\(|multiprocessing\.|create_subprocess_|ProcessPoolExecutor"
    r"|ProcessSource\(|(?<!def )run_bounded\(|(?<!def )output_of\("
)


def test_every_module_that_starts_a_process_is_listed() -> None:
    page = PAGE.read_text()
    starting = {
        file.relative_to(ROOT).as_posix()
        for folder in SOURCES
        for file in (ROOT / folder).rglob("*.py")
        if STARTS.search(file.read_text())
    }
    assert {name for name in starting if f"`{name}`" not in page} == set()


def test_every_module_that_is_listed_exists() -> None:
    listed = re.findall(
        r"`((?:registry|workers|tasks|platform|examples)/[\w/]+\.py)`", PAGE.read_text()
    )
    assert len(listed) > 20
    assert [name for name in listed if not (ROOT / name).is_file()] == []
