"""Header values with parameters (RFC 9110, 5.6.6), read in linear time.

`email.message`, which Django and `python_multipart` use, takes quadratic time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

# Possessive: a parameter that does not match fails at once, without backtracking.
_PARAMETER = re.compile(
    r';\s*+(?:([^\s;="]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*+)))?+\s*+', re.DOTALL
)
# Clients escape quotes in file names, but not the backslashes of Windows paths.
_ESCAPED = re.compile(r'\\(["\\])')
_CHARSETS = {"utf-8", "iso-8859-1", "us-ascii"}


@dataclass(frozen=True, slots=True)
class HeaderValue:
    """A value such as `form-data; name="file"`; names of parameters are in lower case."""

    value: str
    parameters: dict[str, str]


def header_value(text: str) -> HeaderValue | None:
    """Return a header's value and parameters; None if it is malformed or repeats a parameter.

    A parameter `name*` with its own charset (RFC 8187) is decoded, and stays under `name*`.
    """
    value, _, _ = text.partition(";")
    parameters: dict[str, str] = {}
    position = len(value)
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            return None
        position = match.end()
        name, quoted, plain = match.groups()
        if name is None:
            continue
        name = name.lower()
        raw = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
        parameter = _extended(raw) if name.endswith("*") else raw
        if parameter is None or name in parameters:
            return None
        parameters[name] = parameter
    return HeaderValue(value.strip().lower(), parameters)


def _extended(text: str) -> str | None:
    charset, _, rest = text.partition("'")
    _, separator, encoded = rest.partition("'")
    if not separator or charset.lower() not in _CHARSETS:
        return None
    return unquote(encoded, charset.lower(), "replace")
