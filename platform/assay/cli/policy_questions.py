"""Arguments of questions to the policy, in the API's format."""

from __future__ import annotations

from typing import Any

from assay.cli.options import json_pair
from assay.cli.output import CliError


def principal_body(text: str) -> dict[str, Any]:
    """Return the principal of a question.

    Raises:
        CliError: the text names neither a person, nor a key, nor roles.
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


def question_body(
    action: str,
    thing: str,
    department: str | None,
    attribute: list[str] | None,
    context: list[str] | None,
    policy: int | None,
) -> dict[str, Any]:
    """Return the resource and context of a question.

    Raises:
        CliError: an attribute or context is not NAME=VALUE.
    """
    kind, slash, reference = thing.partition("/")
    resource: dict[str, Any] = {"type": kind}
    if slash:
        resource["reference"] = reference
    if department is not None:
        resource["department"] = department
    if attribute:
        resource["attributes"] = dict(json_pair(text) for text in attribute)
    question: dict[str, Any] = {"action": action, "resource": resource}
    if context:
        question["context"] = dict(json_pair(text) for text in context)
    return question if policy is None else question | {"policy": policy}
