"""Exports of selected audit events."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class AuditExportAnswer(serializers.Serializer[Any]):
    """An export of selected events. `percent` and `rows` grow while it runs; `sha256` and `size`
    are of the file, which is there while it is done and until `expires_at`."""

    id = serializers.IntegerField()
    format = serializers.CharField()
    filter = serializers.JSONField(source="filters")
    state = serializers.CharField()
    percent = serializers.IntegerField()
    rows = serializers.IntegerField()
    searched = serializers.IntegerField()
    tree_size = serializers.IntegerField(allow_null=True)
    size = serializers.IntegerField()
    sha256 = serializers.CharField()
    error = serializers.CharField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
