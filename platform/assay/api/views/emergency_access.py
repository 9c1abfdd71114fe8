"""Emergency access: one person requests it, another confirms it, a third reviews it afterward."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from assay.api.representations.common import Link, PersonReference, slug
from assay.api.routes import Routes
from governance.principals import Principal
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.emergency_access.schemas import (
    AfterReview,
    EmergencyAccessFilter,
    EmergencyAccessReason,
    NewEmergencyAccess,
)
from registry.releases.emergency_access.selectors import (
    emergency_access_get,
    emergency_accesses_visible_to,
)
from registry.releases.emergency_access.services import (
    emergency_access_confirm,
    emergency_access_end,
    emergency_access_refuse,
    emergency_access_request,
    emergency_access_review,
)


class EmergencyAccessAnswer(serializers.Serializer[Any]):
    """An emergency approval by two people of exactly the dossier with `dossier_digest`. While it is
    `active` the release serves until `ends_at`. `due_at` is the deadline of the review afterward.
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
    url = Link("emergency-access/{0.id}")
    release_url = Link("releases/{0.release_id}")


routes = Routes("Emergency access", EmergencyAccessAnswer)


@routes.list(
    "emergency-access", "List uses and requests of emergency access", name="emergency_accesses_get"
)
def list_emergency_access(
    actor: Principal, query: EmergencyAccessFilter
) -> QuerySet[EmergencyAccess]:
    return query.applied(emergency_accesses_visible_to(actor))


@routes.get("emergency-access/<id:emergency_access_id>", "One use or request of emergency access")
def show(actor: Principal, emergency_access_id: int) -> EmergencyAccess:
    return emergency_access_get(actor=actor, id=emergency_access_id)


@routes.create(
    "releases/<id:release_id>/emergency-access",
    "Request that a release serve before its review has decided; nothing serves until confirmed",
)
def request(actor: Principal, release_id: int, body: NewEmergencyAccess) -> EmergencyAccess:
    return emergency_access_request(
        actor=actor, release_id=release_id, reason=body.reason, hours=body.hours
    )


@routes.post(
    "emergency-access/<id:emergency_access_id>/confirm",
    "Confirm emergency access as the second person, with a fresh second factor",
    repeatable=True,
)
def confirm(actor: Principal, emergency_access_id: int) -> EmergencyAccess:
    return emergency_access_confirm(actor=actor, emergency_access_id=emergency_access_id)


@routes.post(
    "emergency-access/<id:emergency_access_id>/refuse",
    "Refuse requested emergency access, or withdraw your own request",
    repeatable=True,
)
def refuse(
    actor: Principal, emergency_access_id: int, body: EmergencyAccessReason
) -> EmergencyAccess:
    return emergency_access_refuse(
        actor=actor, emergency_access_id=emergency_access_id, reason=body.reason
    )


@routes.post(
    "emergency-access/<id:emergency_access_id>/end",
    "End emergency access early; the release stops serving",
    repeatable=True,
)
def end(actor: Principal, emergency_access_id: int, body: EmergencyAccessReason) -> EmergencyAccess:
    return emergency_access_end(
        actor=actor, emergency_access_id=emergency_access_id, reason=body.reason
    )


@routes.post(
    "emergency-access/<id:emergency_access_id>/review",
    "Record afterward whether emergency access was justified, as a third person",
    repeatable=True,
)
def review(actor: Principal, emergency_access_id: int, body: AfterReview) -> EmergencyAccess:
    return emergency_access_review(
        actor=actor,
        emergency_access_id=emergency_access_id,
        verdict=body.verdict,
        lessons=body.lessons,
    )
