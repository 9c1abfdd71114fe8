"""Tags for the building blocks of pages: cards, tables, notices, fields, scripts."""

from __future__ import annotations

from collections.abc import Iterable

from django import template
from django.forms import BoundField
from django.template import Context
from django.template.base import render_value_in_context
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from assay.portal.templatetags.assay import field
from assay.portal.templatetags.assay import icon as draw_icon

register = template.Library()

_NOTICE_ICONS = {
    "ok": "circle-check",
    "info": "info-circle",
    "warn": "alert-triangle",
    "bad": "ban",
}
_WRAPS = {
    "": "{}",
    "body": '<div class="card-body">{}</div>',
    "facts": '<div class="card-body"><dl class="facts">{}</dl></div>',
}
_ACTIONS = mark_safe('<span class="visually-hidden">Actions</span>')


@register.simple_block_tag
def capture(content: str) -> SafeString:
    """Return the content without spaces around it, for `{% endcapture as name %}`."""
    return mark_safe(content.strip())  # noqa: S308 (the block was rendered with escaping)


@register.simple_block_tag
def card(
    content: str,
    title: str,
    id: str = "",  # noqa: A002
    end: object = "",
    more: str = "",
    wrap: str = "",
) -> SafeString:
    """Return a card with a title, which labels it under `id`.

    `end` is shown to the right of the title, as a link if `more` names a page. `wrap` is the kind
    of content: `body` for text, `facts` for entries of a `<dl>`; other content fills the card from
    edge to edge.
    """
    labelled = format_html(' aria-labelledby="{}"', id) if id else ""
    heading = format_html(' id="{}"', id) if id else ""
    aside = "" if end == "" else format_html('<span class="end">{}</span>', end)
    if more:
        aside = format_html('<a class="end" href="{}">{}</a>', reverse(more), end)
    return format_html(
        '<section class="card"{}><div class="card-header"><h2{}>{}</h2>{}</div>{}</section>',
        labelled,
        heading,
        title,
        aside,
        format_html(_WRAPS[wrap], content),
    )


@register.simple_block_tag
def notice(content: str, tone: str, icon: str = "", role: str = "note") -> SafeString:
    """Return a notice in the color of `tone`: `ok`, `info`, `warn` or `bad`."""
    return format_html(
        '<div class="alert alert-{}" role="{}">{}<div>{}</div></div>',
        tone,
        role,
        draw_icon(icon or _NOTICE_ICONS[tone]),
        content,
    )


@register.simple_tag(takes_context=True)
def fact(context: Context, name: str, value: object) -> SafeString:
    """Return one entry of a `<dl class="facts">`."""
    html = render_value_in_context(value, context)
    return format_html("<dt>{}</dt><dd>{}</dd>", name, mark_safe(html))  # noqa: S308 (escaped)


@register.simple_tag
def fields(bounds: Iterable[BoundField]) -> SafeString:
    """Return the fields of a form, one below the other."""
    rows = ((render_to_string("portal/parts/field.html", field(bound)),) for bound in bounds)
    return format_html_join("\n", "{}", rows)


@register.simple_tag
def scripts(*files: str) -> SafeString:
    """Return the elements that load static scripts in their order."""
    addresses = ((static(file),) for file in files)
    return format_html_join("\n", '<script src="{}" defer></script>', addresses)


@register.simple_block_tag
def table(content: str, label: str, columns: str, css: str = "") -> SafeString:
    """Return a table that scrolls on narrow screens. `content` are its rows.

    `columns` are the headings, separated by ` | `. `# ` before a heading marks a column of
    numbers; `…` is the heading of a column of buttons.
    """
    headings = format_html_join(
        "",
        '<th scope="col"{}>{}</th>',
        (
            (
                mark_safe(' class="num"') if each.startswith("# ") else "",
                _ACTIONS if each == "…" else each.removeprefix("# "),
            )
            for each in columns.split(" | ")
        ),
    )
    return format_html(
        '<div class="table-responsive" tabindex="0" role="group" aria-label="Table of {}">'
        '<table class="{}"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>',
        label,
        f"table {css}".rstrip(),
        headings,
        content,
    )
