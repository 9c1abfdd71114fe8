"""Comparison of a version with the releases whose requests it answered as a shadow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from governance.quotas.kinds import MICRO
from governance.usage.models import ShadowTotal
from governance.usage.shadows import shadow_evidence
from registry.releases.exports.blocks import Block
from registry.releases.exports.words import NOTHING, Fact, moment
from registry.releases.models import Release
from registry.versions.models import ModelVersion

# Newest pairs of releases in a dossier.
_PAIRS_MAX = 20


def shadow_section(version: ModelVersion) -> list[dict[str, Any]]:
    """Return the sums of the copies that earlier releases of `version` answered as shadows."""
    releases = Release.objects.filter(version=version).order_by().values_list("pk", flat=True)
    rows = list(ShadowTotal.objects.filter(release__in=[*releases]).order_by("-pk")[:_PAIRS_MAX])
    names = {
        each.pk: str(each.version)
        for each in Release.objects.filter(pk__in={row.against for row in rows}).select_related(
            "version__model"
        )
    }
    return [{**shadow_evidence(row), "against_version": names.get(row.against, "")} for row in rows]


def shadow_blocks(dossier: Mapping[str, Any]) -> Sequence[Block]:
    """Return one block for each pair of releases."""
    return [
        Block(
            title=f"Release {each['release']} against release {each['against']}"
            + (f" ({each['against_version']})" if each.get("against_version") else "")
            + f" as {each['deployment']}",
            facts=tuple(shadow_facts(each)),
        )
        for each in dossier["shadow"]
    ]


def shadow_facts(each: Mapping[str, Any]) -> Iterable[Fact]:
    """Return one comparison, with the shadow's figures first."""
    yield "Period", f"{moment(each['first_at'])} to {moment(each['last_at'])}"
    yield "Copies", f"{each['copies']:,}"
    for title, name in (("Failed", "failed"), ("Failed by the other release", "against_failed")):
        yield title, f"{each[name]:,} ({each[name] / max(1, each['copies']):.1%})"
    yield "Answered by both", f"{each['answered']:,}"
    yield "Mean time", _pair(each["mean_ms"], each["against_mean_ms"], " ms")
    yield each["unit"].replace("_", " ").capitalize(), _pair(each["units"], each["against_units"])
    yield "Cost", _pair(each["cost_micro"] / MICRO, each["against_cost_micro"] / MICRO)
    if each["agreement"] is None:
        yield "Agreement of answers", "cannot be computed for these answers"
    else:
        agreement = f"{each['agreement']:.1%} ({each['measure']}, {each['compared']:,} answers)"
        yield "Agreement of answers", agreement


def _pair(own: float | None, other: float | None, unit: str = "") -> str:
    if own is None or other is None:
        return NOTHING
    return f"{own:,}{unit}, the other release {other:,}{unit}"
