"""Uploads."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class UploadAnswer(serializers.Serializer[Any]):
    """One upload. It is complete, and can be used, once `completed_at` is set; `sha256` is then
    that of the whole."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    department = serializers.CharField(source="department.slug")
    filename = serializers.CharField()
    size = serializers.IntegerField()
    received = serializers.IntegerField()
    sha256 = serializers.CharField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    completed_at = serializers.DateTimeField(allow_null=True)
