"""Submitting a release again."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import PersonReference
from assay.api.representations.conditions import CarriedAnswer
from assay.api.representations.releases import ReleaseDetail
from assay.api.routes import Routes
from assay.api.views.releases import departments_named, shown_release
from governance.principals import Principal
from registry.releases.models import Release
from registry.releases.renewal import Preview, release_renew, renewal_preview
from registry.releases.schemas import Renewal


class CarriedItemAnswer(serializers.Serializer[Any]):
    """An attestation that would be carried over: nothing changed that it rests on."""

    code = serializers.CharField()
    title = serializers.CharField()
    note = serializers.CharField()
    attested_by = PersonReference()
    attested_at = serializers.DateTimeField()
    carried_from = CarriedAnswer(
        allow_null=True, help_text="Where it was carried over once before: its first review."
    )


class DossierChangeAnswer(serializers.Serializer[Any]):
    """A section of the dossier that is not what it was; in short, empty where that is long."""

    section = serializers.CharField()
    before = serializers.CharField(allow_blank=True)
    after = serializers.CharField(allow_blank=True)


class RenewalAnswer(serializers.Serializer[Any]):
    """Items carried over if it were submitted again, unchanged. `obstacle` is the reason why that
    is impossible now; an empty sentence means that it is possible.
    """

    release = serializers.IntegerField(source="release.pk")
    obstacle = serializers.CharField(allow_blank=True)
    hint = serializers.CharField(allow_blank=True)
    carried = CarriedItemAnswer(many=True)
    anew = serializers.ListField(
        child=serializers.CharField(), help_text="What a reviewer must attest again."
    )
    changes = DossierChangeAnswer(many=True)


routes = Routes("Releases", ReleaseDetail)


@routes.get(
    "releases/<id:release_id>/renewal",
    "Preview a renewal: what would be carried over, and what has changed since",
    answer=RenewalAnswer,
    name="renewal_get",
)
def preview(actor: Principal, release_id: int) -> Preview:
    return renewal_preview(actor=actor, release_id=release_id)


@routes.create(
    "releases/<id:release_id>/renewal",
    "Submit a release again: a new, prefilled one with a review of its own",
    name="renewal_post",
)
def renew(actor: Principal, release_id: int, body: Renewal) -> Release:
    departments = departments_named(body.departments) if body.departments else None
    values = dict(body) | {"departments": departments}
    release = release_renew(actor=actor, release_id=release_id, **values)
    return shown_release(actor, release.pk)
