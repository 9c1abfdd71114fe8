"""The dossier and its decisions as one HTML page of an evidence pack, without external content.

Every text goes through `format_html`, which escapes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString

from registry.releases.conditions import conditions_words
from registry.releases.evidence_events import Record
from registry.releases.exports.blocks import Section
from registry.releases.exports.page import (
    facts_html,
    joined,
    page_html,
    section_html,
    sections_html,
    table_html,
)
from registry.releases.exports.words import NOTHING, moment
from registry.releases.models import Release

_VERDICTS = {
    "comment": "commented",
    "request_changes": "requested changes",
    "approve": "approved",
    "reject": "rejected",
}


def dossier_page(
    release: Release,
    decisions: Mapping[str, Any],
    record: Record,
    sections: Iterable[Section],
    *,
    made_at: str,
    made_by: str,
) -> bytes:
    """Return the page in UTF-8."""
    parts = [
        section_html(
            "The request",
            facts_html(
                (
                    ("Submitted by", decisions["submitted_by"]["name"]),
                    ("Approved", _time(release.approved_at) if release.approved_at else "no"),
                    ("Until", _time(release.expires_at) if release.expires_at else NOTHING),
                    ("Grace", f"{release.grace_days} days" if release.grace_days else "none"),
                    ("Conditions", "; ".join(conditions_words(release.conditions)) or "none"),
                )
            ),
        ),
        *(_review(review) for review in decisions["reviews"]),
        sections_html(sections),
        section_html("In the audit log", _events(record)),
        section_html(
            "This page",
            format_html(
                "<p>Made on {} for {}. It is for reading: what counts is dossier.json, whose "
                "SHA-256 is the digest above, and verify.py, which checks all of the pack.</p>",
                made_at,
                made_by,
            ),
        ),
    ]
    return page_html(
        title=f"Release {release.pk}: {release.version}",
        about=f"{release.deployment_name} in {release.environment}, "
        f"{release.get_state_display().lower()}",
        digest=release.dossier_digest,
        body=joined(parts),
    )


def _role(decision: Mapping[str, Any]) -> str:
    absent = decision["in_place_of"]
    return str(decision["specialty"]) + (f", in the place of {absent['name']}" if absent else "")


def _statement(decision: Mapping[str, Any]) -> str:
    conditions = "; ".join(conditions_words(decision["conditions"]))
    return str(decision["reason"]) + (f" Conditions: {conditions}." if conditions else "")


def _review(review: Mapping[str, Any]) -> SafeString:
    votes = [
        (
            each["round"],
            each["person"]["name"],
            _VERDICTS[each["verdict"]],
            _role(each),
            _statement(each),
            _time(each["at"]),
            format_html('<span class="mono when">{}…</span>', each["digest"][:12]),
        )
        for each in review["decisions"]
    ]
    checked = [
        (
            item["title"],
            item["state"],
            "by machine"
            if item["automatic"]
            else (item["attested_by"] or {"name": "not attested yet"})["name"],
            item["note"],
        )
        for item in review["checklist"]
    ]
    needed = ", ".join(f"{count} × {name}" for name, count in review["required_approvals"].items())
    return section_html(
        f"Review {review['id']}: {review['state'].replace('_', ' ')}",
        joined(
            [
                format_html("<p>Approvals needed: {}. Round {}.</p>", needed, review["round"]),
                table_html(("Round", "Who", "Said", "For", "Reason", "When", "On dossier"), votes),
                format_html("<h3>{}</h3>", "Checklist"),
                table_html(("Item", "State", "Checked", "Note"), checked),
                *_waivers(review["waivers"]),
                *_threads(review["threads"]),
            ]
        ),
    )


def _waivers(waivers: Sequence[Mapping[str, Any]]) -> list[SafeString]:
    """Return the waivers' section; empty if none was requested."""
    steps = [
        (
            waiver["title"],
            step["state"],
            (step["person"] or {"name": "the platform"})["name"],
            step["reason"],
            _time(step["at"]),
            _time(waiver["expires_at"]),
        )
        for waiver in waivers
        for step in waiver["history"]
    ]
    if not steps:
        return []
    return [
        format_html("<h3>{}</h3>", "Waivers"),
        table_html(("Item", "State", "By", "Reason", "When", "Waived until"), steps),
    ]


def _threads(threads: Sequence[Mapping[str, Any]]) -> list[SafeString]:
    """Return the threads' section; empty if there are none."""
    entries = [
        (
            f"{thread['anchor']['kind']} {thread['anchor']['key']}".strip(),
            ("blocks, " if thread["blocking"] else "") + thread["state"],
            entry["person"]["name"],
            {"resolve": "Resolved. ", "reopen": "Reopened. "}.get(entry["said"], "")
            + entry["text"],
            _time(entry["at"]),
            entry["digest"][:12],
        )
        for thread in threads
        for entry in thread["entries"]
    ]
    if not entries:
        return []
    return [
        format_html("<h3>{}</h3>", "Threads"),
        table_html(("At", "Thread", "Who", "Said", "When", "On dossier"), entries),
    ]


def _events(record: Record) -> SafeString:
    rows = [
        (
            event.sequence,
            _time(body["occurred_at"]),
            body["actor_name"] or f"erased {event.actor_kind} {event.actor_id}",
            body["action"],
            f"{body['subject_type']} {body['subject_id']}",
            body["outcome"],
        )
        for event, body in zip(record.events, record.bodies, strict=True)
    ]
    return table_html(("Position", "When", "Who", "What", "On", "Outcome"), rows)


def _time(at: Any) -> SafeString:
    """Format a time to the second, in UTC."""
    text = moment(at if isinstance(at, str) else at.isoformat())
    return format_html('<span class="when">{}</span>', text)
