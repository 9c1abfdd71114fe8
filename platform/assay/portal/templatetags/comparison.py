"""Tag for pages whose jobs or versions can be compared."""

from __future__ import annotations

from django import template

from workers.jobs.comparison import RUNS_MAX, RUNS_MIN

register = template.Library()


@register.inclusion_tag("portal/jobs/compare_bar.html")
def compare_bar(things: str) -> dict[str, object]:
    """Return the button that compares the selected `things`."""
    return {"things": things, "least": RUNS_MIN, "most": RUNS_MAX}
