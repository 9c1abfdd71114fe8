"""Translate the words of a question to the policy into the API's format."""

from __future__ import annotations

import json
from typing import Any

from assay.cli.output import CliError


def asked_principal(text: str) -> dict[str, Any]:
    """Return the principal of a question, in the API's format.

    Raises:
        CliError: the text names neither a person, a key nor roles.
    """
    kind, slash, number = text.partition("/")
    if slash and kind in {"person", "key"} and number.isdigit():
        return {kind: int(number)}
    if slash:
        raise CliError(
            f"{text!r} does not name a person, a key or roles.",
            "Write person/3, key/5, or roles: lead@clinical.",
        )
    return {"roles": [role.strip() for role in text.split(",") if role.strip()]}


def asked_question(
    action: str,
    thing: str,
    department: str | None,
    attribute: list[str] | None,
    context: list[str] | None,
    policy: int | None,
) -> dict[str, Any]:
    """Return the resource and context of a question, in the API's format.

    Raises:
        CliError: an attribute or a circumstance is not NAME=VALUE.
    """
    kind, slash, reference = thing.partition("/")
    resource: dict[str, Any] = {"type": kind}
    if slash:
        resource["reference"] = reference
    if department is not None:
        resource["department"] = department
    if attribute:
        resource["attributes"] = dict(_pair(text) for text in attribute)
    question: dict[str, Any] = {"action": action, "resource": resource}
    if context:
        question["context"] = dict(_pair(text) for text in context)
    return question if policy is None else question | {"policy": policy}


def _pair(text: str) -> tuple[str, Any]:
    """`tokens=5` is a number, `shared=true` a truth value, `tags=["a"]` a list; else a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise CliError(f"{text!r} is not NAME=VALUE.", "For example visibility=organization.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
