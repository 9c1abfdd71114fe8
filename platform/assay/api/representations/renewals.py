"""Preview of submitting a release again."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import PersonReference
from assay.api.representations.conditions import CarriedAnswer


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
