"""Saved filters of audit events."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from assay.api.routes import Routes
from governance.audit.search.models import AuditFilter
from governance.audit.search.saved_filters import (
    audit_filter_change,
    audit_filter_delete,
    audit_filter_get,
    audit_filter_save,
    audit_filters_visible_to,
)
from governance.audit.search.schemas import AuditFilterChange, NewAuditFilter
from governance.principals import Principal


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

    def get_mine(self, saved: Any) -> bool:
        principal = self.context["request"].user.principal
        return bool(saved.person_id == principal.person_id)


routes = Routes("Audit", AuditFilterAnswer)


@routes.list("audit/filters", "List saved filters of events")
def list_audit_filters(actor: Principal) -> QuerySet[AuditFilter]:
    return audit_filters_visible_to(actor)


@routes.create("audit/filters", "Save a filter of events under a name", judged=True)
def create(actor: Principal, body: NewAuditFilter) -> AuditFilter:
    return audit_filter_save(actor=actor, **dict(body))


@routes.get("audit/filters/<id:filter_id>", "One saved filter")
def show(actor: Principal, filter_id: int) -> AuditFilter:
    return audit_filter_get(actor=actor, filter_id=filter_id)


@routes.patch(
    "audit/filters/<id:filter_id>", "Rename, redefine or share a filter of your own", judged=True
)
def change(actor: Principal, filter_id: int, body: AuditFilterChange) -> AuditFilter:
    return audit_filter_change(actor=actor, filter_id=filter_id, **dict(body))


@routes.delete("audit/filters/<id:filter_id>", "Delete a filter of your own")
def delete(actor: Principal, filter_id: int) -> None:
    audit_filter_delete(actor=actor, filter_id=filter_id)
