"""Keep the environments that workers report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from governance.errors import InvalidInput
from registry.catalog.engines import EngineName
from registry.releases.equivalence.models import SoftwareEnvironment
from registry.releases.equivalence.standing import fingerprint_of

# Of a worker that reported nothing, as those of the previous version of Assay.
UNKNOWN = fingerprint_of({})
VERSIONS_MAX, NAME_MAX, VERSION_MAX = 32, 40, 80
# A worker's sign of life is kept no more often.
_SEEN_EVERY = timedelta(minutes=1)
# A dossier names those that were seen so lately.
LATELY = timedelta(minutes=10)


@transaction.atomic
def environments_keep(reported: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Keep the environments of a worker's engines, by the engine's name; return their fingerprints.

    Raises:
        InvalidInput: an engine that there is not, or too many or too long versions.
    """
    now = timezone.now()
    found = {}
    for engine, versions in reported.items():
        if engine not in set(EngineName) or not _bounded(versions):
            raise InvalidInput(f"The software of the engine {engine[:40]!r} is not valid.")
        found[engine] = fingerprint = fingerprint_of(versions)
        row, made = SoftwareEnvironment.objects.get_or_create(
            fingerprint=fingerprint, defaults={"engine": engine, "versions": dict(versions)}
        )
        if not made:
            SoftwareEnvironment.objects.filter(pk=row.pk).update(seen_at=now)
    return found


def environments_seen(fingerprints: Collection[str]) -> None:
    """Note that workers with these environments are alive."""
    before = timezone.now() - _SEEN_EVERY
    rows = SoftwareEnvironment.objects.filter(pk__in=fingerprints, seen_at__lt=before)
    rows.update(seen_at=timezone.now())


def environments_of(engine: str) -> list[dict[str, str]]:
    """Return the environments in which workers offer an engine now."""
    rows = SoftwareEnvironment.objects.filter(
        engine=engine, seen_at__gte=timezone.now() - LATELY
    ).order_by("fingerprint")
    return [dict(row.versions) for row in rows]


def _bounded(versions: Mapping[str, str]) -> bool:
    return len(versions) <= VERSIONS_MAX and all(
        isinstance(name, str)
        and isinstance(version, str)
        and len(name) <= NAME_MAX
        and len(version) <= VERSION_MAX
        for name, version in versions.items()
    )
