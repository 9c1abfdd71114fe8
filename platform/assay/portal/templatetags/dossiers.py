"""A dossier in the portal: its sections, and the formats that it leaves in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django import template

from registry.releases.exports.blocks import Section
from registry.releases.exports.sections import dossier_sections
from registry.releases.exports.services import FORMATS, Format

register = template.Library()

# Long, and shown elsewhere too.
CLOSED = frozenset({"files", "card", "rules"})
# Classes of tags in a comparison; an unchanged entry has none.
CHANGE_TAGS = {"added": "tag-info", "changed": "tag-warn", "removed": "tag-bad"}
_DIGEST = re.compile(r"[0-9a-f]{64}")


@register.filter
def sections_shown(dossier: Mapping[str, Any]) -> list[tuple[Section, bool]]:
    """Each section, and whether it is open at first."""
    return [(each, each.code not in CLOSED) for each in dossier_sections(dossier)]


@register.filter
def is_digest(text: str) -> bool:
    return bool(_DIGEST.fullmatch(text))


@register.filter
def change_tag(change: str) -> str:
    """Return the class of a tag that names a change, such as `tag-bad` for `removed`."""
    return CHANGE_TAGS.get(change, "")


@register.filter
def code_unknown(code: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """A title for each kind of code in the model that is not well known."""
    kinds = dict.fromkeys(each["kind"] for each in code or () if not each["known"])
    return [f"{kind}, not a known one".capitalize() for kind in kinds]


@register.filter
def code_left(code: Mapping[str, Any]) -> int:
    """How many characters of the code are not shown."""
    return max(0, int(code["characters"]) - len(code["shown"]))


@register.simple_tag
def export_formats() -> list[tuple[str, Format]]:
    """Return the export formats of a dossier."""
    return list(FORMATS.items())
