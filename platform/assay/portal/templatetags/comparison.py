"""Tag for lists of jobs or versions to compare."""

from __future__ import annotations

from django import template

from workers.jobs.comparison import RUNS_MAX, RUNS_MIN

register = template.Library()


@register.inclusion_tag("portal/jobs/compare_bar.html")
def compare_bar(name: str, things: str) -> dict[str, object]:
    """Return a bar with the button that compares selected rows.

    `name` is the name of their checkboxes, `things` their plural noun.
    """
    hint = f"Select {RUNS_MIN} to {RUNS_MAX} {things}."
    return {"name": name, "hint": hint, "least": RUNS_MIN, "most": RUNS_MAX}
