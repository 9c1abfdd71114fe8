"""A dossier as one HTML page to read and to print, without external content.

Every text goes through `format_html`, which escapes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from registry.releases.exports.blocks import Block, Section
from registry.releases.exports.words import Fact

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff;max-width:60rem;
margin:2rem auto;padding:0 1rem}h1{font-size:1.6rem;margin-bottom:.2rem}
h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid #d0d7de}h3{font-size:1rem}
p{overflow-wrap:anywhere}td{white-space:pre-line}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
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
<title>{title}</title><style>{style}</style></head><body><main>
<h1>{title}</h1>
<p>{about}. Dossier <span class="mono">{digest}</span></p>
{body}</main></body></html>
"""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def dossier_html(dossier: Mapping[str, Any], sections: Iterable[Section], digest: str) -> bytes:
    """Return the page of a dossier, in UTF-8; the same bytes for the same arguments."""
    identity, release = dossier["identity"], dossier["release"]
    body = joined(
        [
            sections_html(sections),
            section_html(
                "This page",
                format_html(
                    "<p>{}</p>",
                    "It is for reading, and shows the current names of people. Approvals name the "
                    "digest above: the SHA-256 of the dossier in canonical JSON, which numbers "
                    "people and can be exported too.",
                ),
            ),
        ]
    )
    return page_html(
        title=f"Dossier: {identity['model']} v{identity['version']}",
        about=f"{release['deployment_name']} in {release['environment']}",
        digest=digest,
        body=body,
    )


def page_html(*, title: str, about: str, digest: str, body: SafeString) -> bytes:
    """Return a whole page in UTF-8."""
    style = mark_safe(_STYLE)  # noqa: S308 (the constant above)
    page = format_html(_PAGE, title=title, about=about, digest=digest, style=style, body=body)
    return page.encode("utf-8", "replace")


def sections_html(sections: Iterable[Section]) -> SafeString:
    return joined(_section(each) for each in sections)


def _section(section: Section) -> SafeString:
    return section_html(section.title, joined(_block(block) for block in section.blocks))


def _block(block: Block) -> SafeString:
    parts: list[SafeString | str] = []
    if block.title:
        parts.append(format_html("<h3>{}</h3>", block.title))
    if block.facts:
        parts.append(facts_html(block.facts))
    if block.heads:
        parts.append(table_html(block.heads, block.rows))
    if block.text:
        parts.append(format_html("<pre>{}</pre>" if block.verbatim else "<p>{}</p>", block.text))
    return joined(parts)


def section_html(title: str, body: SafeString) -> SafeString:
    return format_html("<section><h2>{}</h2>{}</section>\n", title, body)


def facts_html(facts: Iterable[Fact]) -> SafeString:
    """Return a table of names and values."""
    rows = format_html_join(
        "",
        '<tr><th scope="row">{}</th><td>{}</td></tr>',
        ((name, _cell(value)) for name, value in facts),
    )
    return format_html('<table class="facts"><tbody>{}</tbody></table>', rows)


def table_html(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> SafeString:
    head = format_html_join("", '<th scope="col">{}</th>', ((each,) for each in heads))
    body = format_html_join(
        "",
        "<tr>{}</tr>",
        ((format_html_join("", "<td>{}</td>", ((_cell(cell),) for cell in row)),) for row in rows),
    )
    return format_html(
        '<div class="wide"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>',
        head,
        body,
    )


def joined(parts: Iterable[SafeString | str]) -> SafeString:
    return format_html_join("", "{}", ((part,) for part in parts))


def _cell(value: Any) -> SafeString | str:
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return format_html('<span class="mono">{}</span>', value)
    return format_html("{}", value)
