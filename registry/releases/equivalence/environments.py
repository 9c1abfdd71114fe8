"""Record the environments that workers report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Annotated

from django.db import transaction
from django.utils import timezone
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from governance.errors import InvalidInput
from registry.catalog.engines import EngineName
from registry.releases.equivalence.models import SoftwareEnvironment
from registry.releases.equivalence.standing import fingerprint_of

# Environment of a worker that reported none.
UNKNOWN = fingerprint_of({})
_Name = Annotated[str, Field(max_length=40)]
_Version = Annotated[str, Field(max_length=80)]
_REPORTED: TypeAdapter[dict[str, dict[str, str]]] = TypeAdapter(
    dict[
        Annotated[str, AfterValidator(lambda name: EngineName(name).value)],
        Annotated[dict[_Name, _Version], Field(max_length=32)],
    ],
    config=ConfigDict(strict=True),
)
# Minimum interval between updates of `seen_at`.
_SEEN_EVERY = timedelta(minutes=1)
# Dossiers name environments that were seen within this time.
LATELY = timedelta(minutes=10)


@transaction.atomic
def environments_keep(reported: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Record the environments of a worker's engines, by engine; return their fingerprints.

    Raises:
        InvalidInput: an unknown engine, or versions that are too many or too long.
    """
    try:
        environments = _REPORTED.validate_python(reported)
    except ValidationError as error:
        raise InvalidInput(
            "The software that the worker reports is not valid.",
            fields={"environments": ["Versions by name, for each known engine."]},
        ) from error
    now = timezone.now()
    fingerprints = {}
    for engine, versions in environments.items():
        fingerprints[engine] = fingerprint = fingerprint_of(versions)
        row, created = SoftwareEnvironment.objects.get_or_create(
            fingerprint=fingerprint, defaults={"engine": engine, "versions": dict(versions)}
        )
        if not created:
            SoftwareEnvironment.objects.filter(pk=row.pk).update(seen_at=now)
    return fingerprints


def environments_seen(fingerprints: Collection[str]) -> None:
    """Record that workers with these environments are alive."""
    before = timezone.now() - _SEEN_EVERY
    rows = SoftwareEnvironment.objects.filter(pk__in=fingerprints, seen_at__lt=before)
    rows.update(seen_at=timezone.now())


def environments_of(engine: str) -> list[dict[str, str]]:
    """Return the environments in which workers offer an engine now."""
    rows = SoftwareEnvironment.objects.filter(
        engine=engine, seen_at__gte=timezone.now() - LATELY
    ).order_by("fingerprint")
    return [dict(row.versions) for row in rows]
