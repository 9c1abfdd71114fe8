"""Bounds on untrusted JSON: schemas of tools and answers, and arguments of calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

MAX_BYTES = 64 * 1024
MAX_DEPTH = 24
MAX_VALUES = 4_096


def bounded_json(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` if it is small, shallow and plain JSON. Raises ValueError."""
    values, level = 0, [value]
    depth = 0
    while level:
        depth += 1
        values += len(level)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        if values > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES:,} values")
        level = [inner for each in level for inner in _inside(each)]
    try:
        size = len(json.dumps(value, allow_nan=False).encode())
    except (TypeError, ValueError):
        raise ValueError("it is not plain JSON") from None
    if size > MAX_BYTES:
        raise ValueError(f"it has {size:,} bytes; at most {MAX_BYTES:,} are accepted")
    return value


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


# Keywords of JSON Schema whose subschemas apply to the same value, where a `$ref` must not form a
# cycle (`_SAME…`), or to parts of the value (`_PARTS…`).
_SAME_IN_LISTS = ("allOf", "anyOf", "oneOf")
_SAME = ("not", "if", "then", "else")
_PARTS_BY_NAME = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_PARTS = (
    "items",
    "prefixItems",
    "contains",
    "additionalProperties",
    "additionalItems",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)


def bounded_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` if it is bounded and has no `$ref` cycle without a property or an item in
    between: validation against such a cycle would never end. Raises ValueError.
    """
    bounded_json(schema)
    ended: set[int] = set()
    # Schemas of the same value on the way from the start to the current one.
    path: dict[int, None] = {}
    pending: list[tuple[dict[str, Any], bool]] = [(each, True) for each in subschemas(schema)]
    while pending:
        each, enters = pending.pop()
        if not enters:
            del path[id(each)]
            ended.add(id(each))
        elif id(each) in path:
            raise ValueError("a $ref leads to itself, without a property or an item in between")
        elif id(each) not in ended:
            path[id(each)] = None
            pending.append((each, False))
            pending += [(other, True) for other in _same(schema, each)]
    return schema


def subschemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema and all of its subschemas."""
    pending: list[Any] = [schema]
    while pending:
        each = pending.pop()
        if isinstance(each, list):
            pending += each
        elif isinstance(each, dict):
            yield each
            pending += [each.get(name) for name in (*_SAME_IN_LISTS, *_SAME, *_PARTS)]
            for name in _PARTS_BY_NAME:
                if isinstance(named := each.get(name), dict):
                    pending += named.values()


def _same(root: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schemas that apply to the same value as `schema`."""
    schemas = [schema.get(name) for name in _SAME]
    for name in _SAME_IN_LISTS:
        if isinstance(several := schema.get(name), list):
            schemas += several
    if isinstance(reference := schema.get("$ref"), str):
        schemas.append(_referred(root, reference))
    yield from (each for each in schemas if isinstance(each, dict))


def _referred(root: dict[str, Any], reference: str) -> Any:
    """Return the part of a schema at a JSON pointer; None for any other reference."""
    if not reference.startswith("#") or reference[1:2] not in ("", "/"):
        return None
    part: Any = root
    for name in unquote(reference[1:]).split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict):
            part = part.get(name)
        elif isinstance(part, list) and name.isdecimal() and int(name[:6]) < len(part):
            part = part[int(name[:6])]
        else:
            return None
    return part
