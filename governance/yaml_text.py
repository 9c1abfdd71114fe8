"""YAML written by people, read as plain data within bounds. Does not import Django.

The core schema of YAML 1.2 applies, in which `18:00` and `on` are text. Anchors, aliases, tags
and repeated keys are errors.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import yaml

MAX_DEPTH = 24
# Ends of mappings and lists, and texts. A limit on bytes alone would bound neither time nor memory.
MAX_PARTS = 200_000
# Controls, direction marks, line separators, lone surrogates: with them, the page or terminal of
# the person who approves a policy would show other text.
_HIDING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def hides(text: str) -> bool:
    """Return whether a reader would not see all of the text."""
    return not text.isprintable() and any(unicodedata.category(sign) in _HIDING for sign in text)


class Reader(yaml.CSafeLoader):
    """Loader for plain data only."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own class attribute)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem="a mapping names a key twice, or by something other than a text",
                    problem_mark=key.start_mark,
                )
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


class Writer(yaml.CSafeDumper):
    """Writer of YAML that `Reader` reads back unchanged."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


# YAML 1.2's core schema: no sexagesimal numbers, no dates, no `yes` and `off`.
_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ("tag:yaml.org,2002:int", r"^[-+]?[1-9][0-9]*$|^[-+]?0$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(?:(?:[0-9]*\.[0-9]+|[0-9]+\.)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$",
        "-+.0123456789",
    ),
)
for _tag, _pattern, _first in _SCALARS:
    for _kind in (Reader, Writer):
        _letters = [*_first, ""] if _tag.endswith("null") else list(_first)
        _kind.add_implicit_resolver(_tag, re.compile(_pattern), _letters)


def check_events(text: str) -> None:
    """Reject tags, and anchors, which could repeat a tree a billion times, and bound the size."""
    depth = 0
    for parts, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        mark: Any = event.start_mark
        if parts > MAX_PARTS:
            problem = f"it has more than {MAX_PARTS:,} parts"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        marker = getattr(event, "anchor", None) or getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent) or marker:
            problem = "anchors, aliases and tags are not allowed"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        if depth > MAX_DEPTH:
            problem = f"it is nested more than {MAX_DEPTH} deep"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def yaml_problem(error: Exception) -> str:
    """Return the problem and its line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return f"{where}{error.problem or error.context}"[:300]
    return str(error).replace("\n", " ")[:300]
