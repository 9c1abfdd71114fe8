"""Keep the environments that workers report."""

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

# Of a worker that reported nothing, as those of the previous version of Assay.
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
    try:
        environments = _REPORTED.validate_python(reported)
    except ValidationError as error:
        raise InvalidInput(
            "The software that the worker reports is not valid.",
            fields={"environments": ["Versions by name, of the engines that there are."]},
        ) from error
    now = timezone.now()
    found = {}
    for engine, versions in environments.items():
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
