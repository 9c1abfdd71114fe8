"""A review policy in words: conditions, terms, items and their framework references."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from assay.portal.templatetags.assay import sentence
from assay.portal.templatetags.dossiers import RISK_TITLES
from governance.english import counted
from governance.reviews.policies.document import Condition, Item, Maps, ReviewPolicyDocument
from governance.reviews.policies.frameworks import ISO_42001
from governance.reviews.policies.vocabulary import registered_vocabulary


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One item; `maps` are pairs of a framework's name and the references to it."""

    item: Item
    how: str
    when: str
    maps: list[tuple[str, list[str]]]


def condition_words(condition: Condition) -> str:
    """Return a condition in words, such as "personal data: yes"."""
    answers = registered_vocabulary().questions.get(condition.answer, {})
    values = " or ".join(str(answers.get(value, value)) for value in condition.among)
    return f"{RISK_TITLES.get(condition.answer, sentence(condition.answer))}: {values}"


def when_words(conditions: Sequence[Condition]) -> str:
    """Return conditions in words; empty without any."""
    return ", or ".join(condition_words(each) for each in conditions)


def item_rows(document: ReviewPolicyDocument) -> list[ItemRow]:
    """Return every item in words, in the policy's order."""
    checks = registered_vocabulary().checks
    return [
        ItemRow(
            item=item,
            how=f"A machine checks that {checks.get(item.check, item.check)}"
            if item.check
            else "A reviewer attests it",
            when=when_words(item.when),
            maps=_maps(item.maps),
        )
        for item in document.items
    ]


def _maps(maps: Maps) -> list[tuple[str, list[str]]]:
    mapped = [
        ("EU AI Act", maps.eu_ai_act),
        ("ISO/IEC 42001", [f"{code} {ISO_42001[code].lower()}" for code in maps.iso_42001]),
        ("NIST AI RMF", maps.nist_ai_rmf),
        ("NIST AI 600-1", maps.nist_ai_600_1),
    ]
    return [(framework, references) for framework, references in mapped if references]


def approval_rows(document: ReviewPolicyDocument) -> list[dict[str, Any]]:
    """Return the required approvals, with the conditions under which each is needed."""
    return [
        {"specialty": each.specialty, "count": each.count, "when": when_words(each.when)}
        for each in document.approvals
    ]


def term_rows(document: ReviewPolicyDocument) -> list[tuple[str, str]]:
    """Return the terms as pairs of a title and words."""
    warned = ", ".join(str(days) for days in document.warn_days)
    gates = document.gates
    measurements = [
        "an evaluation on held-out data" if gates.held_out else "",
        f"at least {counted(gates.at_least, 'gate')}" if gates.at_least else "",
    ]
    return [
        ("Approval lasts", counted(document.valid_days, "day")),
        ("Grace period", counted(document.grace_days, "day") if document.grace_days else "None"),
        ("Expiry reminders", f"{warned} days before" if warned else "None"),
        ("Review is due", f"{counted(document.due_days, 'day')} after it opens"),
        ("Reviewers are reminded", f"{counted(document.escalate_days, 'day')} before it is due"),
        (
            "New and newly empowered reviewers may vote",
            f"After {counted(document.vote_after_hours, 'hour')}"
            if document.vote_after_hours
            else "At once",
        ),
        ("Required measurements", " and ".join(filter(None, measurements)) or "None"),
    ]


def text_difference(before: str, after: str) -> list[tuple[str, str]]:
    """Return the lines of a unified diff, each with `add`, `del`, `at` or nothing."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3)
    kinds = {"+": "add", "-": "del", "@": "at"}
    return [(kinds.get(line[:1], ""), line) for line in list(lines)[2:]]
