"""Tags for the building blocks of pages. The HTML of each is below `portal/parts/`."""

from __future__ import annotations

from django import template
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

register = template.Library()
_ICONS = {"ok": "circle-check", "info": "info-circle", "warn": "alert-triangle", "bad": "ban"}


@register.simple_block_tag
def capture(content: str) -> SafeString:
    """Return the content without spaces around it, for `{% capture as name %}`."""
    return mark_safe(content.strip())  # noqa: S308 (the block was rendered with escaping)


@register.simple_block_tag
def card(
    content: str, title: str, anchor: str = "", end: object = "", more: str = "", wrap: str = ""
) -> SafeString:
    """Return a card with a title, which labels it under the ID `anchor`.

    `end` is shown to the right of the title, as a link if `more` names a page. `wrap` is `body` for
    text, `facts` for entries of a `<dl>`, and empty for content that fills the card.
    """
    if wrap not in {"", "body", "facts"}:
        raise ValueError(wrap)
    context = {"title": title, "anchor": anchor, "end": end, "more": more, "wrap": wrap}
    return render_to_string("portal/parts/card.html", {"content": content, **context})


@register.simple_block_tag
def notice(content: str, tone: str, icon: str = "", role: str = "note") -> SafeString:
    """Return a notice in the color of `tone`: `ok`, `info`, `warn` or `bad`."""
    context = {"content": content, "tone": tone, "icon": icon or _ICONS[tone], "role": role}
    return render_to_string("portal/parts/notice.html", context)


@register.simple_block_tag
def table(content: str, label: str, columns: str, css: str = "") -> SafeString:
    """Return a table that scrolls on narrow screens. `content` are its rows.

    `columns` are the headings, separated by ` | `. `# ` before a heading marks a column of
    numbers, `…` one of buttons, `□` one of checkboxes, `□ all` one with a checkbox for all rows.
    """
    context = {"content": content, "label": label, "headings": columns.split(" | "), "css": css}
    return render_to_string("portal/parts/table.html", context)


@register.inclusion_tag("portal/parts/fact.html")
def fact(name: str, value: object) -> dict[str, object]:
    """Return one entry of a `<dl class="facts">`."""
    return {"name": name, "value": value}
