"""Checks of input from people."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from governance.bounds import FILENAME_MAX, NAME_MAX, NOT_ON_A_LINE
from governance.errors import InvalidInput

NAME = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{NAME_MAX - 2}}}[a-z0-9])?")


def checked_name(value: object, *, field: str = "name") -> str:
    """Return `value` if it is a name of 1 to `NAME_MAX` lowercase letters, digits and hyphens.

    Raises:
        InvalidInput: it is anything else.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidInput(
            f"{str(value)[:80]!r} is not a usable {field.replace('_', ' ')}.",
            hint=f"Use 1 to {NAME_MAX} lowercase letters, digits and hyphens: docstring-writer.",
            fields={field: [f"1 to {NAME_MAX} lowercase letters, digits and hyphens."]},
        )
    return value


def checked_text(value: object, *, field: str, limit: int, required: bool = True) -> str:
    """Return `value` without surrounding space, with at most `limit` characters and without NUL.

    Raises:
        InvalidInput: it is not text, empty although required, or too long, or contains a NUL.
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
    """Return `value` without surrounding space if it is one line of at most `FILENAME_MAX`
    characters, safe for terminals, headers and logs.

    Raises:
        InvalidInput: it is anything else.
    """
    text = checked_text(value, field="filename", limit=FILENAME_MAX)
    if NOT_ON_A_LINE.search(text):
        reason = "The filename holds a control character."
        raise InvalidInput(
            reason,
            hint="Remove line ends and text-direction overrides.",
            fields={"filename": [reason]},
        )
    return text


def checked_content(value: object, *, field: str, limit: int) -> str:
    """Return `value` unchanged, or an empty text if it is blank.

    Raises:
        InvalidInput: it is too long, or contains a NUL.
    """
    text = checked_text(value, field=field, limit=limit, required=False)
    if not text or not isinstance(value, str):
        return ""
    if len(value) > limit:
        reason = f"The {field} has {len(value)} characters; at most {limit} are allowed."
        raise InvalidInput(reason, fields={field: [reason]})
    return value


def checked_choice(value: object, choices: Mapping[str, Any] | list[str], *, field: str) -> str:
    """Return `value` if it is one of `choices`.

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
    """Return `values` as finite numbers by name.

    Raises:
        InvalidInput: a value is NaN, infinite or not a number.
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
    """Return `value` in a form for PostgreSQL: NUL replaced, and None for NaN and infinity."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable_json(str(key)): storable_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(item) for item in value]
    return value
