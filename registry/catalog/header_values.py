"""Header values with parameters (RFC 9110, 5.6.6), read in linear time.

`email.message`, which Django and `python_multipart` use, takes time with the square of the length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

# Possessive: what cannot be read is given up at once, and not tried in shorter pieces.
_PARAMETER = re.compile(
    r';\s*+(?:([^\s;="]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*+)))?+\s*+', re.DOTALL
)
# Clients escape quotes in names of files, but not the backslashes of Windows' paths.
_ESCAPED = re.compile(r'\\(["\\])')
_CHARSETS = {"utf-8", "iso-8859-1", "us-ascii"}


@dataclass(frozen=True, slots=True)
class HeaderValue:
    """A value such as `form-data; name="file"`; names of parameters are in lower case."""

    value: str
    parameters: dict[str, str]


def header_value(text: str) -> HeaderValue | None:
    """Return a header's value and parameters; None where it cannot be read, or repeats one.

    A parameter `name*` that states its own charset (RFC 8187) is returned under `name*`, decoded.
    """
    value, _, _ = text.partition(";")
    parameters: dict[str, str] = {}
    position = len(value)
    while position < len(text):
        found = _PARAMETER.match(text, position)
        if found is None:
            return None
        position = found.end()
        name, quoted, plain = found.groups()
        if name is None:
            continue
        name = name.lower()
        given = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
        read = _extended(given) if name.endswith("*") else given
        if read is None or name in parameters:
            return None
        parameters[name] = read
    return HeaderValue(value.strip().lower(), parameters)


def _extended(text: str) -> str | None:
    charset, _, rest = text.partition("'")
    _, found, encoded = rest.partition("'")
    if not found or charset.lower() not in _CHARSETS:
        return None
    return unquote(encoded, charset.lower(), "replace")
