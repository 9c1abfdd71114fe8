"""A prompt as blocks, as reviewers read it on pages and in exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry.releases.exports.blocks import Block
from registry.releases.exports.words import worded


def prompt_blocks(document: Mapping[str, Any]) -> Sequence[Block]:
    """Return the whole prompt; `document` holds the fields of a `PromptDocument`."""
    blocks = []
    if system := document.get("system"):
        blocks.append(Block(title="System message", text=system, verbatim=True))
    template = document["template"]
    blocks.append(Block(title="Template of each message", text=template, verbatim=True))
    if variables := document.get("variables"):
        blocks.append(
            Block(
                title="Variables",
                heads=("Name", "Description", "Default", "Characters at most"),
                rows=tuple(variable_row(each) for each in variables),
            )
        )
    for number, example in enumerate(document.get("examples") or (), start=1):
        for role in ("user", "assistant"):
            title = f"Example {number}, {role}"
            blocks.append(Block(title=title, text=example[role], verbatim=True))
    rows = decoding_rows(document.get("decoding") or {})
    if rows:
        heads = ("Setting", "Value", "Callers")
        blocks.append(Block(title="Decoding", heads=heads, rows=rows))
    return blocks


def variable_row(variable: Mapping[str, Any]) -> tuple[str, ...]:
    """Return name, description, default and bound of a variable."""
    default = variable.get("default")
    default_text = "required" if default is None else repr(default)
    description = variable.get("description") or "–"
    return variable["name"], description, default_text, f"{variable['max_length']:,}"


def decoding_rows(decoding: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Return name and value of each setting, and whether callers may change it."""
    fixed = decoding.get("fixed") or ()
    return tuple(
        (
            worded(name),
            ", ".join(map(repr, value)) if isinstance(value, list) else worded(value),
            "cannot change it" if name in fixed else "may change it",
        )
        for name, value in decoding.items()
        if name != "fixed" and value not in (None, [])
    )


def prompt_sections(document: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return each part as text, {code: (title, text)}, for comparing two prompts line by line."""
    variables = "\n".join(" · ".join(variable_row(each)) for each in document["variables"])
    examples = "\n".join(
        f"User: {each['user']}\nAssistant: {each['assistant']}" for each in document["examples"]
    )
    decoding = "\n".join(" · ".join(row) for row in decoding_rows(document["decoding"]))
    parts = {
        "prompt-system": ("System message", document["system"]),
        "prompt-template": ("Template of each message", document["template"]),
        "prompt-variables": ("Variables", variables),
        "prompt-examples": ("Examples", examples),
        "prompt-decoding": ("Decoding", decoding),
    }
    return {code: part for code, part in parts.items() if part[1]}
