"""A line of the log that names a request also carries its ID, by which all logs are searched."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("governance", "registry", "workers", "platform/assay")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


def lines(source: str) -> list[ast.Call]:
    """The calls of the module's logger."""
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "logger"
    ]


def without_id(call: ast.Call) -> bool:
    """Return whether a line names a request in its text alone."""
    names = any("request_id" in ast.unparse(argument) for argument in call.args)
    return names and not any(keyword.arg == "extra" for keyword in call.keywords)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_line_that_names_a_request_carries_its_id(folder: str) -> None:
    files = [file for file in FILES if file.is_relative_to(ROOT / folder)]
    assert [
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for file in files
        for call in lines(file.read_text())
        if without_id(call)
    ] == []


def test_the_check_finds_a_line_without_its_id() -> None:
    bad, good = lines(
        'logger.warning("%s died", each.request_id)\n'
        'logger.warning("%s died", each.request_id, extra=about(each.request_id))'
    )
    assert without_id(bad)
    assert not without_id(good)
    assert sum(len(lines(file.read_text())) for file in FILES) > 200
