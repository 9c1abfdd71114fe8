"""Tag for lists of jobs or versions to compare."""

from __future__ import annotations

from django import template

from workers.jobs.comparison import RUNS_MAX, RUNS_MIN

register = template.Library()


@register.inclusion_tag("portal/jobs/compare_bar.html")
def compare_bar(things: str) -> dict[str, object]:
    """Return a bar with the button that compares selected rows; `things` are their plural noun."""
    return {"things": things, "least": RUNS_MIN, "most": RUNS_MAX}
