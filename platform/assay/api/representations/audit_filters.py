"""Kept filters of the audit log."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class AuditFilterAnswer(serializers.Serializer[Any]):
    """A saved filter: the caller's own, or shared. `parameters` are those of
    `GET /api/v1/audit/events`, as text."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    parameters = serializers.DictField(child=serializers.CharField())
    shared = serializers.BooleanField()
    owner = serializers.CharField(source="person.name")
    mine = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()
    changed_at = serializers.DateTimeField()

    def get_mine(self, kept: Any) -> bool:
        principal = self.context["request"].user.principal
        return bool(kept.person_id == principal.person_id)
