"""Imports of our own modules: without circles, and at the top unless a comment says why not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Its docstring explains the imports of all its functions.
COMMANDS = ROOT / "platform" / "assay" / "cli"
PACKAGES = ("governance", "registry", "workers", "tasks", "platform/assay")


@cache
def modules() -> dict[str, Path]:
    """Return the file of each module, by the name that it is imported by."""
    found = {}
    for package in PACKAGES:
        folder = ROOT / package
        for file in folder.rglob("*.py"):
            name = ".".join(file.relative_to(folder.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = file
    return found


def own_imports(tree: ast.AST, known: dict[str, Path]) -> Iterator[tuple[ast.stmt, str]]:
    """Return each import of our own code, with the module that it names."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in named]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from ((node, name) for name in names if name in known)


def circle(sources: dict[str, str]) -> list[str]:
    """Return modules that import one another in a circle; none if no modules do."""
    known = {name: Path(name) for name in sources}
    graph = {
        name: {each for _, each in own_imports(ast.parse(source), known) if each != name}
        for name, source in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def unexplained(source: str, known: dict[str, Path]) -> list[int]:
    """Return the lines on which a function imports our own code without a comment: on that line,
    or above it and the imports that precede it."""
    tree, lines = ast.parse(source), source.splitlines()
    functions = [
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    imports = {
        node.lineno: node
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    ends = {node.end_lineno: node.lineno for node in imports.values()}
    own = {node.lineno for function in functions for node, _ in own_imports(function, known)}

    def explained(line: int) -> bool:
        comment = lines[line - 1].partition("#")[2]
        above = lines[line - 2].strip() if line > 1 else ""
        if above.startswith("#") or (comment and not comment.strip().startswith("noqa: F401")):
            return True
        return line - 1 in ends and explained(ends[line - 1])

    return sorted(line for line in own if not explained(line))


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle({name: file.read_text() for name, file in modules().items()}) == []


def test_a_circle_is_found_wherever_its_imports_are() -> None:
    late = "def work():\n    import b"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import A"
    assert set(circle({"a": late, "b": "from c import d", "c": typed})) == {"a", "b", "c"}
    assert circle({"a": late, "b": "from c import d", "c": "import os"}) == []


def test_a_comment_explains_each_import_inside_a_function() -> None:
    assert {
        f"{file.relative_to(ROOT)}:{line}"
        for file in modules().values()
        if not file.is_relative_to(COMMANDS)
        for line in unexplained(file.read_text(), modules())
    } == set()


def test_an_import_without_a_comment_is_found() -> None:
    known = {"a": Path("a"), "b": Path("b")}
    bare = "def work():\n    import os\n    import a\n    import b  # Heavy.\n"
    assert unexplained(bare, known) == [3]
    assert unexplained(bare.replace("    import os", "    # Slow.\n    import os"), known) == []
