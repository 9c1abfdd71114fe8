"""Schemas from outside: bounded, and with an end."""

from __future__ import annotations

from typing import Any

import pytest

from registry.catalog.json_bounds import bounded_schema

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "array", "items": [{"$ref": "#"}, {"$ref": "#/items/0"}]},
        # Data, no schemas: a value that looks like a reference, and a property of that name.
        {"const": {"$ref": "#/const"}},
        {"enum": [{"$ref": "#/enum/0"}], "default": {"$ref": "#/default"}},
        {"properties": {"$ref": {"type": "string"}, "allOf": {"type": "string"}}},
        # Two ways to one schema are no cycle.
        {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {}}},
        # Left to the grammar, which refuses what it does not know.
        {"$ref": "#anchor"},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/nowhere"},
        {"$ref": 7},
        {"$ref": "#/allOf/99999999999999999999", "allOf": [{}]},
    ],
)
def test_a_schema_with_an_end_is_kept(schema: dict[str, Any]) -> None:
    assert bounded_schema(schema) is schema


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/"} | {"": {"$ref": "#"}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"$defs": {"unused": {"$ref": "#/$defs/unused"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}},
        {"type": "array", "items": {"allOf": [{"$ref": "#/items"}]}},
        {"prefixItems": [{"$ref": "#/prefixItems/0"}]},
        {"anyOf": [{"$ref": "#"}, {"type": "string"}]},
        {"oneOf": [{"$ref": "#"}]},
        {"not": {"$ref": "#"}},
        {"if": {"$ref": "#/then"}, "then": {"$ref": "#"}},
        {"additionalProperties": {"$ref": "#/additionalProperties"}},
        {"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": {"$ref": "#"}}},
    ],
)
def test_a_schema_that_leads_to_itself_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leads to itself"):
        bounded_schema(schema)


def test_a_long_chain_costs_no_more_than_its_length() -> None:
    chain: dict[str, Any] = {
        "$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(1_200)},
        "allOf": [{"$ref": f"#/$defs/{n}"} for n in range(600)],
    }
    assert bounded_schema(chain) is chain
    chain["$defs"]["1199"] = {"$ref": "#"}
    with pytest.raises(ValueError, match="leads to itself"):
        bounded_schema(chain)
