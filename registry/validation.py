"""Bounds on what people type, in one place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from governance.bounds import FILENAME_MAX, NAME_MAX, NOT_ON_A_LINE
from governance.errors import InvalidInput

NAME = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{NAME_MAX - 2}}}[a-z0-9])?")


def checked_name(value: object, *, field: str = "name") -> str:
    """`value` as a name of 1 to `NAME_MAX` lower-case letters, digits and hyphens.

    Raises:
        InvalidInput: anything else.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidInput(
            f"{str(value)[:80]!r} is not a usable {field.replace('_', ' ')}.",
            hint=f"Use 1 to {NAME_MAX} lower-case letters, digits and hyphens: docstring-writer.",
            fields={field: [f"1 to {NAME_MAX} lower-case letters, digits and hyphens."]},
        )
    return value


def schema_faults(error: ValidationError, *, whole: str) -> dict[str, list[str]]:
    """Return the sentences of a schema's error by the dotted path of their field.

    `whole` is the name under which faults of the document as a whole are listed.
    """
    faults: dict[str, list[str]] = {}
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join(str(part) for part in fault["loc"])[:80] or whole
        text = fault["msg"].removeprefix("Value error, ")
        faults.setdefault(name, []).append(f"{text[:1].upper()}{text[1:]}.")
    return faults


def checked_text(value: object, *, field: str, limit: int, required: bool = True) -> str:
    """`value` without surrounding space, at most `limit` characters, no NUL.

    Raises:
        InvalidInput: empty although required, too long, or with a NUL.
    """
    text = value.strip() if isinstance(value, str) else ""
    title = field.replace("_", " ")
    reason = ""
    if not isinstance(value, str):
        reason = f"The {title} must be text."
    elif required and not text:
        reason = f"The {title} is empty."
    elif len(text) > limit:
        reason = f"The {title} has {len(text)} characters; at most {limit} are allowed."
    elif "\0" in text:
        reason = f"The {title} holds a NUL character."
    if reason:
        raise InvalidInput(reason, fields={field: [reason]})
    return text


def checked_filename(value: object) -> str:
    """`value` without surrounding space, as one line of at most `FILENAME_MAX` characters: it
    stands in terminals, headers and logs.

    Raises:
        InvalidInput: anything else.
    """
    text = checked_text(value, field="filename", limit=FILENAME_MAX)
    if NOT_ON_A_LINE.search(text):
        reason = "The filename holds a control character."
        raise InvalidInput(
            reason,
            hint="Leave out ends of lines, and overrides of the direction of text.",
            fields={"filename": [reason]},
        )
    return text


def checked_content(value: object, *, field: str, limit: int) -> str:
    """Return `value` unchanged, or an empty text if it is blank.

    Raises:
        InvalidInput: too long, or with a NUL.
    """
    text = checked_text(value, field=field, limit=limit, required=False)
    if not text or not isinstance(value, str):
        return ""
    if len(value) > limit:
        reason = f"The {field} has {len(value)} characters; at most {limit} are allowed."
        raise InvalidInput(reason, fields={field: [reason]})
    return value


def checked_choice(value: object, choices: Mapping[str, Any] | list[str], *, field: str) -> str:
    """`value` when it is one of `choices`.

    Raises:
        InvalidInput: it is not.
    """
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(choices)
        title = field.replace("_", " ")
        raise InvalidInput(
            f"{str(value)[:60]!r} is not a {title}.",
            hint=f"Choose one of {listed}.",
            fields={field: [f"One of {listed}."]},
        )
    return value


def checked_numbers(values: Mapping[str, Any], *, field: str) -> dict[str, float]:
    """`values` as finite numbers by name.

    Raises:
        InvalidInput: NaN, infinity or something that is no number.
    """
    checked: dict[str, float] = {}
    for name, value in values.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            reason = f"{name} is {value!r}, which is not a finite number."
            raise InvalidInput(
                f"The {field} cannot be recorded: {reason}", fields={field: [reason]}
            )
        checked[str(name)] = float(value)
    return checked


def storable_json(value: Any) -> Any:
    """`value` as PostgreSQL can keep it: no NUL in text, and None for NaN and infinity."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable_json(str(key)): storable_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(item) for item in value]
    return value
