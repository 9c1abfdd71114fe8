"""Bounds on texts in reviews."""

from __future__ import annotations

from governance.errors import InvalidInput


def text_checked(text: str, field: str, limit: int) -> str:
    """Return the text without surrounding space and NUL.

    Raises:
        InvalidInput: the text is empty, or longer than `limit` characters.
    """
    text = text.replace("\x00", "").strip()
    if not text or len(text) > limit:
        raise InvalidInput(
            f"A {field} of 1 to {limit} characters is needed.",
            fields={field: ["is empty" if not text else "is too long"]},
        )
    return text
