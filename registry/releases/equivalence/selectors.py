"""Reads of comparisons."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from registry.releases.equivalence.environments import LATELY
from registry.releases.equivalence.models import EQUIVALENT, EquivalenceCheck
from registry.releases.equivalence.services import check_in_words, versions_in_words
from registry.releases.equivalence.standing import Standing, named_in, standing_in
from registry.releases.models import Release

CHECKS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class ShownCheck:
    """A comparison, its result in words, and the resulting standing of the release. `used`: a
    worker has this software now."""

    check: EquivalenceCheck
    words: str
    versions: str
    standing: Standing
    used: bool


def release_checks(release: Release) -> list[ShownCheck]:
    """Return the comparisons of a release that the caller may see, newest first."""
    named = named_in(release.dossier)
    rows = EquivalenceCheck.objects.filter(release=release).select_related("environment")
    since = timezone.now() - LATELY
    return [
        ShownCheck(
            check=check,
            words=check_in_words(check, named),
            versions=versions_in_words(check.environment.versions),
            standing=standing_in(named, check.environment_id, [check.outcome]),
            used=check.environment.seen_at >= since,
        )
        for check in rows.order_by("-pk")[:CHECKS_SHOWN]
    ]


def checks_changed(release_ids: Collection[int]) -> list[EquivalenceCheck]:
    """Return the comparisons of these releases that found other answers, or nothing to compare
    with, with software that a worker has now; oldest first. For the platform's own use."""
    rows = EquivalenceCheck.objects.exclude(outcome__in=EQUIVALENT).filter(
        release__in=release_ids, environment__seen_at__gte=timezone.now() - LATELY
    )
    return list(rows.select_related("environment", "release").order_by("pk"))


def changed_in_words(check: EquivalenceCheck) -> str:
    """Return the result in words, after the name of the deployment."""
    dossier: Mapping[str, Any] = check.release.dossier
    return f"{check.release.deployment_name}: {check_in_words(check, named_in(dossier))}"
