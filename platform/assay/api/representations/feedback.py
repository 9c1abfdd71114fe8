"""Feedback on answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import PersonReference, slug


class FeedbackAnswer(serializers.Serializer[Any]):
    """Feedback on one answered request. `input` is the request's body as its sender repeated it;
    `row` is the dataset row that acceptance froze. Erased feedback has none of its content."""

    id = serializers.IntegerField()
    request_id = serializers.CharField()
    department = slug()
    deployment = serializers.CharField()
    release = serializers.IntegerField(source="release_id")
    version = serializers.IntegerField(source="version_id")
    version_name = serializers.CharField()
    task = serializers.CharField()
    rating = serializers.CharField()
    input = serializers.JSONField(allow_null=True)
    answer = serializers.CharField()
    correction = serializers.CharField()
    comment = serializers.CharField()
    row = serializers.JSONField(allow_null=True)
    state = serializers.CharField()
    sender = serializers.CharField()
    person = PersonReference(allow_null=True)
    reviewed_by = PersonReference(allow_null=True)
    reviewed_at = serializers.DateTimeField(allow_null=True)
    erased_at = serializers.DateTimeField(allow_null=True)
    answered_at = serializers.DateTimeField()
    created_at = serializers.DateTimeField()
