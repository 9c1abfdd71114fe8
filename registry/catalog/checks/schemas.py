"""Checks of a declaration's pydantic schemas: their base class, and bounds on their fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from governance.faults import field_sentences
from registry.catalog.checks.faults import Fault, guarded, quoted
from registry.catalog.columns import COLUMN

# Package of Assay's own schemas, which other checks cover.
_OWN = "registry."
_LEAST, _MOST = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
_CHOICES = ("anyOf", "oneOf", "allOf")


def schema_faults(
    where: str, schema: Any, base: type[BaseModel] = BaseModel, *, numbers: bool = False
) -> Iterator[Fault]:
    """Yield faults unless a schema derives from `base` and bounds every text, list and mapping, and
    with `numbers` every number."""
    if not (isinstance(schema, type) and issubclass(schema, base)):
        yield Fault(
            where,
            f"{quoted(schema)} does not derive from {base.__name__}.",
            f"Derive a class from {base.__name__}.",
        )
        return
    if schema.model_config.get("regex_engine") == "python-re":
        yield Fault(
            where,
            "Its patterns are matched by Python's `re`, which can take hours for a short text.",
            "Leave `regex_engine` out; pydantic's own engine takes linear time.",
        )
    if schema.__module__.startswith(_OWN):
        return
    yield from guarded(
        where,
        "Use types that pydantic can describe in JSON Schema.",
        lambda: _bounds(where, schema.model_json_schema(), numbers),
    )


def default_faults(where: str, schema: type[BaseModel]) -> Iterator[Fault]:
    """Yield a fault for each field without a default."""
    try:
        schema()
    except ValidationError as error:
        for name, sentences in field_sentences(error, whole=schema.__name__).items():
            yield Fault(f"{where}.{name}", f"Without a value: {sentences[0]}", "Give it a default.")


def _bounds(where: str, schema: Mapping[str, Any], numbers: bool) -> list[Fault]:
    faults: dict[str, Fault] = {}
    _walk(where, schema, schema.get("$defs", {}), frozenset(), faults, numbers)
    return list(faults.values())


def _walk(
    where: str,
    part: Mapping[str, Any],
    named: Mapping[str, Any],
    within: frozenset[str],
    faults: dict[str, Fault],
    numbers: bool,
) -> None:
    if reference := part.get("$ref"):
        name = str(reference).rpartition("/")[2]
        if name not in within:
            _walk(where, named[name], named, within | {name}, faults, numbers)
        return
    for each in (option for choice in _CHOICES for option in part.get(choice, ())):
        _walk(where, each, named, within, faults, numbers)
    # The registry's own column types check their own bounds.
    if "enum" in part or "const" in part or COLUMN in part:
        return
    inner: list[tuple[str, Any]] = []
    lacks = ""
    match part.get("type"):
        case "string" if not {"maxLength", "pattern", "format"} & part.keys():
            lacks = "A text has no maximum length. Set `max_length`."
        case "array":
            lacks = "" if "maxItems" in part else "A list has no maximum length. Set `max_length`."
            inner = [(f"{where}[]", part.get("items"))]
        case "object":
            inner = [(f"{where}.{name}", each) for name, each in part.get("properties", {}).items()]
            values = part.get("additionalProperties", False)
            if values is not False and "maxProperties" not in part:
                lacks = "A mapping has no maximum length. Set `max_length`."
            inner.append((f"{where}{{}}", values))
        case "integer" | "number" if numbers and not (_LEAST & part.keys() and _MOST & part.keys()):
            lacks = "A number has no bounds. Set `ge` and `le`."
    if lacks:
        what, _, fix = lacks.partition(". ")
        faults.setdefault(where, Fault(where, f"{what}.", fix))
    for place, each in inner:
        if isinstance(each, Mapping):
            _walk(place, each, named, within, faults, numbers)
