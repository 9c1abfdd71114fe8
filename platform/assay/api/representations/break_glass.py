"""Break-glass: who requested and confirmed it, its times, and the review by a third person."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import Link, PersonReference, slug


class BreakGlassAnswer(serializers.Serializer[Any]):
    """An emergency approval by two persons of exactly the dossier with `dossier_digest`.

    While it is `active` the release serves until `ends_at`. `due_at` is until when it must have
    been reviewed afterwards.
    """

    id = serializers.IntegerField()
    state = serializers.CharField()
    release = serializers.IntegerField(source="release_id")
    department = slug()
    dossier_digest = serializers.CharField()
    reason = serializers.CharField()
    hours = serializers.IntegerField()
    asked_by = PersonReference()
    asked_at = serializers.DateTimeField()
    confirmed_by = PersonReference(allow_null=True)
    confirmed_at = serializers.DateTimeField(allow_null=True)
    ends_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    ended_by = PersonReference(allow_null=True)
    ended_reason = serializers.CharField()
    due_at = serializers.DateTimeField(allow_null=True)
    reviewed_by = PersonReference(allow_null=True)
    reviewed_at = serializers.DateTimeField(allow_null=True)
    verdict = serializers.CharField()
    lessons = serializers.CharField()
    url = Link("break-glass/{0.id}")
    release_url = Link("releases/{0.release_id}")
