"""Values of a dossier as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

NOTHING = "–"
# Limit of facts in one table; only the JSON has the rest.
MAX_FACTS = 200
_CODE = re.compile(r"[a-z]+(?:_[a-z]+)+")
_NAMES = {
    "eu ai act": "EU AI Act",
    "annex iii": "annex III",
    "mlflow": "MLflow",
    "id": "Id",
}

Fact = tuple[str, str]


def titled(name: str) -> str:
    """Return a member's name as a heading: `eu_ai_act_role` as "EU AI Act role"."""
    text = name.replace("_", " ").strip()
    for raw, written in _NAMES.items():
        text = re.sub(rf"\b{raw}\b", written, text)
    return text[:1].upper() + text[1:]


def worded(value: Any) -> str:
    """Return any value of a dossier as text, with one line for each item of a list."""
    if value is None or value in ("", [], {}):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "\n".join(worded(each) for each in value[:MAX_FACTS])
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {text}" for name, text in facts(value))
    text = str(value)
    return titled(text) if _CODE.fullmatch(text) else text


def moment(at: Any) -> str:
    """Format an ISO time to the second, in UTC; other texts stay unchanged."""
    try:
        time = datetime.fromisoformat(at)
    except (TypeError, ValueError):
        return worded(at)
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def facts(
    value: Mapping[str, Any], *, first: Iterable[str] = (), without: Iterable[str] = ()
) -> tuple[Fact, ...]:
    """Return the members of an object and of the objects in it: those in `first`, then the others
    by name, since PostgreSQL does not keep their order.
    """
    named = [name for name in first if name in value]
    rest = sorted(set(value) - set(named) - set(without))
    pairs = list(_walked({name: value[name] for name in (*named, *rest)}, ""))
    rows = [(name, worded(each)) for name, each in pairs[:MAX_FACTS]]
    if len(pairs) > MAX_FACTS:
        rows.append(("And", f"{len(pairs) - MAX_FACTS} more, in the dossier's JSON"))
    return tuple(rows)


def _walked(value: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, each in value.items():
        title = f"{above}{titled(str(name))}"
        if isinstance(each, Mapping) and each:
            yield from _walked(dict(sorted(each.items())), f"{title} · ")
        else:
            yield title, each
