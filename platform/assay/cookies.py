"""Parse the `Cookie` header in linear time. `http.cookies`, which Django uses, takes quadratic
time in Python before 3.11.10 (CVE-2024-7592).
"""

from __future__ import annotations

import re

_ESCAPED = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))", re.DOTALL)


def read_cookies(text: str) -> dict[str, str]:
    """Return cookies by name. As in Django, the last one with a name counts."""
    cookies = {}
    for cookie in text.split(";"):
        name, equals, value = cookie.partition("=")
        if not equals:
            name, value = "", cookie
        name, value = name.strip(), value.strip()
        if name or value:
            cookies[name] = _unquoted(value)
    return cookies


def _unquoted(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _ESCAPED.sub(lambda part: part[2] or chr(int(part[1], 8)), value[1:-1])
