"""Renewal of releases."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import PersonReference
from assay.api.representations.conditions import CarriedAnswer
from assay.api.representations.releases import ReleaseDetail
from assay.api.routes import Routes
from assay.api.views.releases import departments_named, release_detail
from governance.principals import Principal
from registry.releases.models import Release
from registry.releases.renewal import Preview, release_renew, renewal_preview
from registry.releases.schemas import Renewal


class CarriedItemAnswer(serializers.Serializer[Any]):
    """An attestation that would be carried over, because its basis has not changed."""

    code = serializers.CharField()
    title = serializers.CharField()
    note = serializers.CharField()
    attested_by = PersonReference()
    attested_at = serializers.DateTimeField()
    carried_from = CarriedAnswer(
        allow_null=True, help_text="The original review, if it was already carried over before."
    )


class DossierChangeAnswer(serializers.Serializer[Any]):
    """A changed section of the dossier; the texts are empty if they are long."""

    section = serializers.CharField()
    before = serializers.CharField(allow_blank=True)
    after = serializers.CharField(allow_blank=True)


class RenewalAnswer(serializers.Serializer[Any]):
    """Preview of a renewal without changes: items carried over, and changes. `obstacle` is the
    reason why a renewal is impossible now; it is empty if it is possible.
    """

    release = serializers.IntegerField(source="release.pk")
    obstacle = serializers.CharField(allow_blank=True)
    hint = serializers.CharField(allow_blank=True)
    carried = CarriedItemAnswer(many=True)
    anew = serializers.ListField(
        child=serializers.CharField(), help_text="Items that a reviewer must attest again."
    )
    changes = DossierChangeAnswer(many=True)


routes = Routes("Releases", ReleaseDetail)


@routes.get(
    "releases/<id:release_id>/renewal",
    "Preview a renewal: attestations that would be carried over, and changes since",
    answer=RenewalAnswer,
    name="renewal_get",
)
def preview(actor: Principal, release_id: int) -> Preview:
    return renewal_preview(actor=actor, release_id=release_id)


@routes.create(
    "releases/<id:release_id>/renewal",
    "Renew a release: submit a new, prefilled release with its own review",
    name="renewal_post",
)
def renew(actor: Principal, release_id: int, body: Renewal) -> Release:
    departments = departments_named(body.departments) if body.departments else None
    values = dict(body) | {"departments": departments}
    release = release_renew(actor=actor, release_id=release_id, **values)
    return release_detail(actor, release.pk)
