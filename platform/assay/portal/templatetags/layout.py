"""Block tags for the parts that every page is built of: cards, tables, captured blocks."""

from __future__ import annotations

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

_ACTIONS = mark_safe('<span class="visually-hidden">Actions</span>')


@register.simple_block_tag
def capture(content: str) -> SafeString:
    """Return the content without spaces around it, for `{% endcapture as name %}`."""
    return mark_safe(content.strip())  # noqa: S308 (the block was rendered with escaping)


@register.simple_block_tag
def card(content: str, title: str, id: str = "", end: object = "") -> SafeString:  # noqa: A002
    """Return a card with a title, which labels it under `id`, and `end` at the title's right."""
    labelled = format_html(' aria-labelledby="{}"', id) if id else ""
    heading = format_html(' id="{}"', id) if id else ""
    aside = "" if end == "" else format_html('<span class="end">{}</span>', end)
    return format_html(
        '<section class="card"{}><div class="card-header"><h2{}>{}</h2>{}</div>{}</section>',
        labelled,
        heading,
        title,
        aside,
        content,
    )


@register.simple_block_tag
def table(content: str, label: str, columns: str) -> SafeString:
    """Return a table that scrolls on narrow screens. `content` are its rows.

    `columns` are the headings, separated by ` | `. One that begins with `# ` is of numbers, and
    `…` is the heading of a column of buttons.
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
        '<table class="table"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>',
        label,
        headings,
        content,
    )
