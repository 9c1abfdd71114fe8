"""Write `docs/reference/plug-in-interface.md`, the public names of `assay.plugins`.

.venv/bin/python tools/plug_ins.py
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "plug-in-interface.md"
VALUE_MAX = 60
HEAD = """# The interface of plug-ins

Written by `tools/plug_ins.py` from the code. A plug-in imports only two modules of Assay:

| module | for | loads |
|---|---|---|
| `assay.plugins.declare` | declarations and endpoints, in every process | no Django, no torch |
| `assay.plugins.run` | runners, recipes and scores, in workers | each name at its first use |

[Add a task](../tutorials/add-a-task.md) introduces them.

## What stays

`Task.interface` is the number of the interface version that a plug-in was written for.
This is version {version}. While it has this number:

- every name below keeps its meaning;
- every working call and declaration keeps working. A release may add names, and arguments and
  fields with defaults.

A release that changes more has another number, and its changelog explains how to adapt. Processes
ignore tasks for another number at their start; *Health*, `assay doctor` and `assay task check`
report both numbers. All other modules of Assay can change in any release.
"""


def page() -> str:
    """Return the page: a table for each module."""
    declared = _public("declare")
    version = next(text for name, text in declared if name == "INTERFACE").strip("`= ")
    parts = [HEAD.format(version=version.partition("`")[0])]
    for module in ("declare", "run"):
        parts.append(f"\n## `assay.plugins.{module}`\n\n| name | meaning |\n|---|---|\n")
        parts += [f"| `{name}` | {text} |\n" for name, text in _public(module)]
    return "".join(parts)


def _public(module: str) -> list[tuple[str, str]]:
    """Return the public names of a module in order, each with one sentence about it."""
    tree = _parsed(ROOT / "platform" / "assay" / "plugins" / f"{module}.py")[0]
    homes = {
        each.asname or each.name: (str(node.module), each.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for each in node.names
    }
    names = next(ast.literal_eval(value) for name, value in _assigned(tree) if name == "__all__")
    return [(name, _meaning(*homes[name])) for name in names]


def _meaning(module: str, name: str) -> str:
    """Return the first sentence of a definition's docstring, or of the comment above it."""
    tree, lines = _parsed(ROOT / f"{module.replace('.', '/')}.py")
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            sentence = _sentence(ast.get_docstring(node) or "")
            if isinstance(node, ast.FunctionDef):
                result = ast.unparse(node.returns) if node.returns else "None"
                call = f"`({ast.unparse(node.args)}) -> {result}`".replace("|", "\\|")
                return f"{call} · {sentence}"
            return sentence
    node = next((value for each, value in _assigned(tree) if each == name), None)
    if node is None:  # The module imports the name from the same layer or below.
        source = next(
            str(each.module)
            for each in tree.body
            if isinstance(each, ast.ImportFrom) and name in {alias.name for alias in each.names}
        )
        return _meaning(source, name)
    above = node.lineno - 2
    comment: list[str] = []
    while above >= 0 and lines[above].startswith("# "):
        comment.insert(0, lines[above][2:])
        above -= 1
    value = ast.unparse(node).replace("|", "\\|")
    value = value if len(value) <= VALUE_MAX else f"{value[:VALUE_MAX]}…"
    return " · ".join(filter(None, (f"`= {value}`", _sentence(" ".join(comment)))))


def _assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names assigned in a module, each with its value."""
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.expr):
            yield target.id, value


def _sentence(text: str) -> str:
    """Return the first sentence of a text as one line."""
    line = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s", line)[0].replace("|", "\\|")


def _parsed(path: Path) -> tuple[ast.Module, list[str]]:
    text = path.read_text(encoding="utf-8")
    return ast.parse(text), text.splitlines()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
