"""Turn an OpenAPI document into Markdown pages, one for each tag."""

from __future__ import annotations

import json
import re
from typing import Any

METHODS = ("get", "post", "put", "patch", "delete", "head")
# Depth of nested objects with all fields; deeper ones show only their type.
DEPTH = 3
Schema = dict[str, Any]


def pages(document: Schema, folder: str, title: str) -> list[tuple[str, str, str]]:
    """Return path, title and text of an overview and of a page for each tag, below `folder`."""
    operations: dict[str, list[tuple[str, str, Schema]]] = {}
    for path, methods in sorted(document["paths"].items()):
        for method in METHODS:
            if operation := methods.get(method):
                tag = (operation.get("tags") or ["Other"])[0]
                operations.setdefault(tag, []).append((path, method, operation))
    result = [(f"{folder}/index.md", "Overview", _overview(document, operations, title))]
    for tag, of_tag in sorted(operations.items()):
        text = f"# {title}: {tag}\n"
        for path, method, operation in of_tag:
            text += _operation(document, path, method, operation)
        result.append((f"{folder}/{_slug(tag)}.md", tag, text))
    return result


def _overview(
    document: Schema, operations: dict[str, list[tuple[str, str, Schema]]], title: str
) -> str:
    text = f"# {title}\n\n{document['info'].get('description', '')}\n"
    for tag, of_tag in sorted(operations.items()):
        text += f"\n## [{tag}]({_slug(tag)}.md)\n\n| request | does |\n|---|---|\n"
        text += "".join(
            f"| `{method.upper()} {path}` | {_cell(operation.get('summary', ''))} |\n"
            for path, method, operation in of_tag
        )
    return text


def _operation(document: Schema, path: str, method: str, operation: Schema) -> str:
    text = f"\n## {operation.get('summary') or operation['operationId']}\n\n"
    text += f"```\n{method.upper()} {path}\n```\n"
    if about := operation.get("description", ""):
        text += f"\n{about}\n"
    if parameters := operation.get("parameters"):
        text += "\n| parameter | in | type | about |\n|---|---|---|---|\n"
        for item in parameters:
            required = ", required" if item.get("required") else ""
            kind = _type(document, item.get("schema", {}))
            about = _cell(item.get("description", ""))
            text += f"| `{item['name']}` | {item['in']}{required} | {kind} | {about} |\n"
    for kind, content in (operation.get("requestBody") or {}).get("content", {}).items():
        text += _body(document, f"Body ({kind})", content)
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            for kind, content in (response.get("content") or {"": {}}).items():
                text += _body(
                    document, f"Answer {status}" + (f" ({kind})" if kind else ""), content
                )
    refused = [
        f"| {status} | {_cell(response.get('description', ''))} |\n"
        for status, response in operation["responses"].items()
        if status[0] in "45"
    ]
    if refused:
        text += '\n??? note "Errors"\n\n    | status | means |\n    |---|---|\n' + "".join(
            f"    {row}" for row in refused
        )
    return text


def _body(document: Schema, label: str, content: Schema) -> str:
    text = f"\n**{label}**\n"
    if rows := _fields(document, content.get("schema", {}), "", 0):
        text += "\n| field | type | about |\n|---|---|---|\n" + "".join(rows)
    if "example" in content:
        example = json.dumps(content["example"], indent=2, ensure_ascii=False)
        # Media in examples have thousands of characters of base64.
        example = re.sub(r"(base64,[\w+/=]{24})[\w+/=]+", r"\1…", example)
        text += f"\n```json\n{example}\n```\n"
    return text


def _fields(document: Schema, schema: Schema, prefix: str, depth: int) -> list[str]:
    schema = _resolved(document, schema)
    rows: list[str] = []
    if depth >= DEPTH:
        return rows
    for part in [*schema.get("allOf", []), *schema.get("anyOf", []), *schema.get("oneOf", [])]:
        rows += _fields(document, part, prefix, depth)
    if schema.get("type") == "array":
        return rows + _fields(document, schema.get("items", {}), f"{prefix}[].".lstrip("."), depth)
    required = set(schema.get("required", []))
    for name, field in schema.get("properties", {}).items():
        full = f"{prefix}{name}"
        marked = "" if name in required else ", optional"
        about = (
            _resolved(document, field).get("description", "")
            if "description" not in field
            else field["description"]
        )
        rows.append(f"| `{full}` | {_type(document, field)}{marked} | {_cell(about)} |\n")
        inner = _resolved(document, field)
        many = inner.get("type") == "array"
        rows += _fields(
            document,
            inner.get("items", {}) if many else inner,
            f"{full}{'[]' if many else ''}.",
            depth + 1,
        )
    return list(dict.fromkeys(rows))


def _type(document: Schema, schema: Schema) -> str:
    schema = _resolved(document, schema)
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if values := schema.get("enum"):
        listed = ", ".join(f"`{value}`" for value in values[:12])
        return listed + (", …" if len(values) > 12 else "")
    parts = [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]
    if parts:
        return " or ".join(dict.fromkeys(_type(document, part) for part in parts))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(document, schema.get('items', {}))}"
    name = " or ".join(kind) if isinstance(kind, list) else kind
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "≥"), ("maximum", "≤"),
            ("minLength", "length ≥"), ("maxLength", "length ≤"),
        )
        if key in schema
    ]  # fmt: skip
    return (
        name
        + (f" ({schema['format']})" if "format" in schema else "")
        + (f", {', '.join(bounds)}" if bounds else "")
    )


def _resolved(document: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        schema = target
    return schema


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _slug(tag: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", tag.lower()).strip("-")
