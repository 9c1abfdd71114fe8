"""The retention of the responses of a department's applications."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import StrictSerializer, Whole
from governance.people.selectors import department_get
from registry.responses.models import RETENTION_MAX_DAYS
from registry.responses.selectors import retention_days
from registry.responses.services import retention_set


class RetentionBody(StrictSerializer):
    """Days for which responses are kept; 0 deletes all of them and stores no more."""

    days = Whole(max_value=RETENTION_MAX_DAYS)


class RetentionAnswer(serializers.Serializer[Any]):
    """Days for which a department keeps responses; 0: it stores none."""

    department = serializers.CharField()
    days = serializers.IntegerField()


class ResponseRetentionView(Endpoint):
    """Retention of the responses that /v1/responses stores."""

    @operation("People", "Get how long a department keeps responses", answer=RetentionAnswer)
    def get(self, request: Request, slug: str) -> Response:
        self.query()
        department = department_get(actor=self.actor, slug=slug)
        found = {"department": department.slug, "days": retention_days(department)}
        return self.answer(found, RetentionAnswer)

    @operation(
        "People",
        "Set how long a department keeps responses",
        body=RetentionBody,
        answer=RetentionAnswer,
    )
    def post(self, request: Request, slug: str) -> Response:
        given = self.body(RetentionBody)
        department = department_get(actor=self.actor, slug=slug)
        kept = retention_set(actor=self.actor, department=department, days=given["days"])
        return self.answer({"department": department.slug, "days": kept.days}, RetentionAnswer)
