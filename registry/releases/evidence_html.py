"""The dossier and its decisions as one page to read and to print: no script, nothing from outside.

Every text goes through `format_html`, which escapes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from registry.releases.evidence_events import Record
from registry.releases.models import Release

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff;max-width:60rem;
margin:2rem auto;padding:0 1rem}h1{font-size:1.6rem;margin-bottom:.2rem}
h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid #d0d7de}h3{font-size:1rem}
p{overflow-wrap:anywhere}table{border-collapse:collapse;width:100%;margin:.5rem 0}
th,td{text-align:left;padding:.35rem .75rem .35rem 0;border-bottom:1px solid #e4e8ec;
vertical-align:top;overflow-wrap:break-word}th{font-weight:600;color:#424a53}
.facts>tbody>tr>th{width:11rem}.facts td{overflow-wrap:anywhere}
td table{margin:0}td tr:last-child>*{border-bottom:0}
.mono,pre{font-family:ui-monospace,monospace;font-size:.85em;overflow-wrap:anywhere}
pre{white-space:pre-wrap;background:#f6f8fa;padding:.75rem}.wide{overflow-x:auto}
.wide td{min-width:4.5rem}.when{white-space:nowrap}
@media(max-width:40rem){.facts>tbody>tr>th{width:7rem}}
@media print{body{margin:0;max-width:none;font-size:11px}h2{break-after:avoid}
tr{break-inside:avoid}.when{white-space:normal}}
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Release {number}: {version}</title><style>{style}</style></head><body><main>
<h1>Release {number}: {version}</h1>
<p>{name} in {environment}, {state}. Dossier <span class="mono">{digest}</span></p>
{body}</main></body></html>
"""
_DIGEST = re.compile(r"[0-9a-f]{64}")
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
    people: Sequence[tuple[int, str]],
    *,
    made_at: str,
    made_by: str,
) -> bytes:
    """The page, as UTF-8."""
    dossier = release.dossier
    sections = [
        _section("What is asked", _facts(_asked(release, decisions))),
        _section("Risk", _facts(dossier["risk"]["answers"].items())),
        *(_review(review) for review in decisions["reviews"]),
        *(_evaluation(each) for each in dossier["evaluations"]),
        _section("Trained on", _facts_or("No data of ours.", dossier["data"])),
        _section("Training", _facts(dossier["training"].items())),
        _section("What it replaces", _facts_or("Nothing.", dossier["replaces"])),
        _section("Files", _files(dossier["identity"])),
        _section("Model card", format_html("<pre>{}</pre>", dossier["card"] or "none")),
        _section("People", _table(("Person", "Name"), people)),
        _section("In the audit log", _events(record)),
        _section(
            "This page",
            format_html(
                "<p>Made on {} for {}. It is for reading: what counts is dossier.json, whose "
                "SHA-256 is the digest above, and verify.py, which checks all of the pack.</p>",
                made_at,
                made_by,
            ),
        ),
    ]
    page = format_html(
        _PAGE,
        number=release.pk,
        version=str(release.version),
        name=release.deployment_name,
        environment=release.environment,
        state=release.get_state_display().lower(),
        digest=release.dossier_digest,
        style=mark_safe(_STYLE),  # noqa: S308 (the constant above)
        body=_joined(sections),
    )
    return page.encode("utf-8", "replace")


def _asked(release: Release, decisions: Mapping[str, Any]) -> list[tuple[str, Any]]:
    dossier = release.dossier
    identity = dossier["identity"]
    return [
        ("Purpose", dossier["purpose"]),
        ("Submitted by", decisions["submitted_by"]["name"]),
        ("Department", dossier["release"]["department"]),
        ("For", ", ".join(dossier["release"]["departments"])),
        ("Visible to", dossier["release"]["visibility"]),
        ("Risk tier", dossier["risk"]["tier"]),
        ("Task", identity["task"]),
        ("Version digest", identity["digest"]),
        ("Licence", identity["licence"] or "not recorded"),
        *(("Stands on", f"{b['model']} v{b['version']}, {b['digest']}") for b in identity["bases"]),
        ("Approved", _moment(release.approved_at) if release.approved_at else "no"),
        ("Until", _moment(release.expires_at) if release.expires_at else "–"),
    ]


def _review(review: Mapping[str, Any]) -> SafeString:
    votes = [
        (
            each["round"],
            each["person"]["name"],
            _VERDICTS[each["verdict"]],
            each["speciality"],
            each["reason"],
            _moment(each["at"]),
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
            else (item["attested_by"] or {"name": "nobody yet"})["name"],
            item["note"],
        )
        for item in review["checklist"]
    ]
    needed = ", ".join(f"{count} × {name}" for name, count in review["required_approvals"].items())
    return _section(
        f"Review {review['id']}: {review['state'].replace('_', ' ')}",
        _joined(
            [
                format_html("<p>Approvals needed: {}. Round {}.</p>", needed, review["round"]),
                _table(("Round", "Who", "Said", "For", "Reason", "When", "On dossier"), votes),
                format_html("<h3>{}</h3>", "Checklist"),
                _table(("Item", "State", "Checked", "Note"), checked),
            ]
        ),
    )


def _evaluation(each: Mapping[str, Any]) -> SafeString:
    rows = [
        (name, value, each["baseline"].get(name, "–")) for name, value in each["metrics"].items()
    ]
    gates = [
        (
            f"{gate['metric']} {gate['comparator']} {gate['threshold']}",
            "not measured" if gate["value"] is None else gate["value"],
            "passed" if gate["passed"] else "failed",
            gate["why"],
        )
        for gate in each["gates"]
    ]
    return _section(
        f"Measured on {each['dataset']} v{each['dataset_version']}",
        _joined(
            [
                format_html(
                    "<p>{} rows measured of {}; {} of them stand in the training data. Started by "
                    "{} at {}.</p>",
                    each["sample_size"],
                    each["rows"],
                    each["rows_in_training_data"],
                    each["started_by"],
                    _moment(each["started_at"]),
                ),
                _table(("Metric", "Value", each["baseline_name"] or "Baseline"), rows),
                _table(("Gate, set before", "Value", "Result", "Why"), gates) if gates else "",
            ]
        ),
    )


def _files(identity: Mapping[str, Any]) -> SafeString:
    rows = [(file["path"], f"{file['size']:,}", file["sha256"]) for file in identity["files"]]
    return _table(("Path", "Bytes", "SHA-256"), rows)


def _events(record: Record) -> SafeString:
    rows = [
        (
            event.sequence,
            _moment(body["occurred_at"]),
            body["actor_name"] or f"erased {event.actor_kind} {event.actor_id}",
            body["action"],
            f"{body['subject_type']} {body['subject_id']}",
            body["outcome"],
        )
        for event, body in zip(record.events, record.bodies, strict=True)
    ]
    return _table(("Position", "When", "Who", "What", "On", "Outcome"), rows)


def _section(title: str, body: SafeString) -> SafeString:
    return format_html("<section><h2>{}</h2>{}</section>\n", title, body)


def _facts(pairs: Iterable[tuple[str, Any]]) -> SafeString:
    rows = format_html_join(
        "",
        '<tr><th scope="row">{}</th><td>{}</td></tr>',
        ((_sentence(str(name)), _value(value)) for name, value in pairs),
    )
    return format_html('<table class="facts"><tbody>{}</tbody></table>', rows)


def _facts_or(otherwise: str, facts: Mapping[str, Any] | None) -> SafeString:
    return _facts(facts.items()) if facts else format_html("<p>{}</p>", otherwise)


def _sentence(name: str) -> str:
    text = name.replace("_", " ").replace("eu ai act", "EU AI Act")
    return text[:1].upper() + text[1:]


def _moment(at: datetime | str) -> SafeString:
    """To the second, in UTC."""
    time = datetime.fromisoformat(at) if isinstance(at, str) else at
    text = time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return format_html('<span class="when">{} UTC</span>', text)


def _value(value: Any) -> SafeString | str:
    """A nested object as a table of its own, a list a line each."""
    if isinstance(value, Mapping):
        return _facts(value.items()) if value else "none"
    if isinstance(value, list):
        return format_html_join("", "<div>{}</div>", ((_value(each),) for each in value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return format_html('<span class="mono">{}</span>', value)
    return "–" if value is None or value == "" else conditional_escape(value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> SafeString:
    head = format_html_join("", '<th scope="col">{}</th>', ((each,) for each in heads))
    body = format_html_join(
        "",
        "<tr>{}</tr>",
        ((format_html_join("", "<td>{}</td>", ((_value(cell),) for cell in row)),) for row in rows),
    )
    return format_html(
        '<div class="wide"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>',
        head,
        body,
    )


def _joined(parts: Iterable[SafeString | str]) -> SafeString:
    return format_html_join("", "{}", ((part,) for part in parts))
