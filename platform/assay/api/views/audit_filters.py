"""Filters of audit events that are kept under a name."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Line, Object, StrictSerializer, Truth
from assay.api.idempotency import idempotent
from governance.audit.search.filters import TEXT_MAX
from governance.audit.search.kept import (
    NAME_MAX,
    audit_filter_change,
    audit_filter_delete,
    audit_filter_save,
    audit_filters_visible_to,
)
from governance.errors import NotFound


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


class Parameters(Object):
    """Filters by name, each a text."""

    def __init__(self) -> None:
        super().__init__(max_members=20, child=Line(max_length=TEXT_MAX), required=False)


class AuditFilterNew(StrictSerializer):
    """A name, and parameters of `GET /api/v1/audit/events`; `shared` shows it to everybody who may
    read the whole log."""

    name = Line(max_length=NAME_MAX)
    parameters = Parameters()
    shared = Truth(required=False)


class AuditFilterPatch(StrictSerializer):
    """Fields to change; the others stay."""

    name = Line(max_length=NAME_MAX, required=False)
    parameters = Parameters()
    shared = Truth(required=False)


class AuditFiltersView(Endpoint):
    """Kept filters."""

    @operation("Audit", "List kept filters of events", answer=AuditFilterAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(audit_filters_visible_to(self.actor), AuditFilterAnswer)

    @operation(
        "Audit",
        "Keep a filter of events under a name",
        body=AuditFilterNew,
        answer=AuditFilterAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.body(AuditFilterNew)
        kept = audit_filter_save(
            actor=self.actor,
            name=given["name"],
            parameters=given.get("parameters", {}),
            shared=given.get("shared", False),
        )
        return self.answer(kept, AuditFilterAnswer, status=201)


class AuditFilterView(Endpoint):
    """One kept filter."""

    @operation("Audit", "One kept filter", answer=AuditFilterAnswer)
    def get(self, request: Request, filter_id: int) -> Response:
        self.query()
        kept = audit_filters_visible_to(self.actor).filter(pk=filter_id).first()
        if kept is None:
            raise NotFound(f"Filter {filter_id} does not exist, or you may not see it.")
        return self.answer(kept, AuditFilterAnswer)

    @operation(
        "Audit",
        "Rename, redefine or share a filter of your own",
        body=AuditFilterPatch,
        answer=AuditFilterAnswer,
    )
    def patch(self, request: Request, filter_id: int) -> Response:
        given = self.body(AuditFilterPatch)
        kept = audit_filter_change(actor=self.actor, filter_id=filter_id, **given)
        return self.answer(kept, AuditFilterAnswer)

    @operation("Audit", "Delete a filter of your own", answer=None, status=204)
    def delete(self, request: Request, filter_id: int) -> Response:
        audit_filter_delete(actor=self.actor, filter_id=filter_id)
        return Response(status=204)
