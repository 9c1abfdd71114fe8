"""Releases and dossiers in the portal: answers, comparisons, sections and export formats."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django import template
from django.utils import timezone

from assay.portal.templatetags.assay import sentence
from registry.releases.conditions import conditions_words as stored_conditions_words
from registry.releases.equivalence.models import EquivalenceCheck
from registry.releases.equivalence.selectors import changed_in_words
from registry.releases.exports.blocks import Section
from registry.releases.exports.sections import dossier_sections
from registry.releases.exports.services import FORMATS, Format

register = template.Library()

# Sections that start closed: they are long and also shown elsewhere.
CLOSED = frozenset({"files", "card", "rules"})
RISK_TITLES = {
    "intended_purpose": "Intended purpose",
    "affected_people": "Affected people",
    "vulnerable_groups": "Vulnerable people among them",
    "eu_ai_act_role": "EU AI Act role",
    "annex_iii": "Area of annex III",
    "data_classification": "Data classification",
    "personal_data": "Personal data",
    "special_categories": "Special categories",
    "autonomy": "Autonomy",
    "interacts_with_people": "People talk to it",
    "generates_content": "Generates content",
    "general_purpose_model": "General-purpose model",
    "notes": "Notes",
}
TITLES = {
    **RISK_TITLES,
    "lora_alpha": "LoRA alpha",
    "lora_dropout": "LoRA dropout",
    "lora_rank": "LoRA rank",
}
SOON = timedelta(days=30)
# Classes of tags in a comparison; an unchanged entry has none.
CHANGE_TAGS = {"added": "tag-info", "changed": "tag-warn", "removed": "tag-bad"}
_DIGEST = re.compile(r"[0-9a-f]{64}")


@register.filter
def section_rows(dossier: Mapping[str, Any]) -> list[tuple[Section, bool]]:
    """Return each section with true if it starts open."""
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
    """Return a title for each kind of unknown code in the model."""
    kinds = dict.fromkeys(each["kind"] for each in code or () if not each["known"])
    return [f"unknown {kind}".capitalize() for kind in kinds]


@register.filter
def code_left(code: Mapping[str, Any]) -> int:
    """Return the number of characters of the code that are not shown."""
    return max(0, int(code["characters"]) - len(code["shown"]))


@register.filter
def answer_words(value: object) -> str:
    """Return a risk answer in words."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    text = str(value)
    return sentence(text) if text.replace("_", "").isalpha() else text or "–"


@register.filter
def field_title(name: str) -> str:
    """Return the title of a field of a comparison; `library_torch` is the library's own name."""
    library = name.removeprefix("library_")
    return library if library != name else TITLES.get(name) or sentence(name)


@register.filter
def field_value(value: object) -> str:
    """Return a field's value in words; a list as its items."""
    if isinstance(value, list):
        return ", ".join(answer_words(each) for each in value) or "none"
    return "–" if value is None else answer_words(value)


@register.filter
def risk_rows(release: Any) -> list[tuple[str, object]]:
    """Return the risk answers in the order and words of the form; unknown ones come last."""
    answers = dict(release.risk_answers)
    if answers.get("intended_purpose") == release.purpose:
        del answers["intended_purpose"]  # Shown above them.
    rows = [(title, answers[name]) for name, title in RISK_TITLES.items() if name in answers]
    return rows + [(sentence(n), a) for n, a in answers.items() if n not in RISK_TITLES]


@register.filter
def conditions_words(stored: dict[str, Any]) -> list[str]:
    """Return the conditions of a decision or a release in words."""
    return stored_conditions_words(stored)


@register.filter
def ends_soon(release: Any) -> bool:
    """True if the release's approval ends within 30 days."""
    return (
        release.state == "approved"
        and release.expires_at is not None
        and release.expires_at - timezone.now() < SOON
    )


@register.filter
def changed_words(check: EquivalenceCheck) -> str:
    """Return the result of comparing a live release after an upgrade."""
    return changed_in_words(check)


@register.simple_tag
def export_formats() -> list[tuple[str, Format]]:
    """Return the export formats of a dossier."""
    return list(FORMATS.items())
