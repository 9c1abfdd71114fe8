"""Emergency access: one person requests it, another confirms it, a third reviews it afterward."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Paragraphs, StrictSerializer, Whole
from assay.api.idempotency import idempotent
from assay.api.representations.common import Link, PersonReference, slug
from registry.releases.emergency_access.models import (
    LESSONS_MAX,
    REASON_MAX,
    AfterVerdict,
    EmergencyAccessState,
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
    """An emergency approval by two persons of exactly the dossier with `dossier_digest`.

    While it is `active` the release serves until `ends_at`. `due_at` is until when it must have
    been reviewed afterward.
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


class EmergencyAccessQuery(StrictSerializer):
    """Filters of the list."""

    state = Choice(choices=EmergencyAccessState.choices, required=False)


class EmergencyAccessesView(Endpoint):
    """Every use and request of emergency access."""

    @operation(
        "Emergency access",
        "List uses and requests of emergency access",
        query=EmergencyAccessQuery,
        answer=EmergencyAccessAnswer,
        paged=True,
    )
    def get(self, request: Request) -> Response:
        given = self.query(EmergencyAccessQuery)
        return self.page(
            emergency_accesses_visible_to(self.actor).filter(**given), EmergencyAccessAnswer
        )


class EmergencyAccessView(Endpoint):
    """One of them."""

    @operation(
        "Emergency access", "One use or request of emergency access", answer=EmergencyAccessAnswer
    )
    def get(self, request: Request, emergency_access_id: int) -> Response:
        self.query()
        return self.answer(
            emergency_access_get(actor=self.actor, id=emergency_access_id), EmergencyAccessAnswer
        )


class EmergencyAccessBody(StrictSerializer):
    """Why it cannot wait for the review, and for how many hours."""

    reason = Paragraphs(max_length=REASON_MAX)
    hours = Whole(min_value=1, max_value=24)


class ReleaseEmergencyAccessView(Endpoint):
    """A release's emergency access."""

    @operation(
        "Emergency access",
        "Ask that a release serve before its review has decided; nothing serves until confirmed",
        body=EmergencyAccessBody,
        answer=EmergencyAccessAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request, release_id: int) -> Response:
        made = emergency_access_request(
            actor=self.actor, release_id=release_id, **self.body(EmergencyAccessBody)
        )
        return self.answer(made, EmergencyAccessAnswer, status=201)


class EmergencyAccessConfirmView(Endpoint):
    """The second person."""

    @operation(
        "Emergency access",
        "Confirm emergency access as the second person, with a fresh second factor",
        answer=EmergencyAccessAnswer,
    )
    @idempotent
    def post(self, request: Request, emergency_access_id: int) -> Response:
        self.nothing()
        emergency = emergency_access_confirm(
            actor=self.actor, emergency_access_id=emergency_access_id
        )
        return self.answer(emergency, EmergencyAccessAnswer)


class EmergencyAccessReasonBody(StrictSerializer):
    """Why."""

    reason = Paragraphs(max_length=REASON_MAX)


class EmergencyAccessRefuseView(Endpoint):
    """A request that is refused, or taken back."""

    @operation(
        "Emergency access",
        "Refuse a requested emergency access, or withdraw your own request",
        body=EmergencyAccessReasonBody,
        answer=EmergencyAccessAnswer,
    )
    @idempotent
    def post(self, request: Request, emergency_access_id: int) -> Response:
        emergency = emergency_access_refuse(
            actor=self.actor,
            emergency_access_id=emergency_access_id,
            **self.body(EmergencyAccessReasonBody),
        )
        return self.answer(emergency, EmergencyAccessAnswer)


class EmergencyAccessEndView(Endpoint):
    """The end before its time."""

    @operation(
        "Emergency access",
        "End emergency access before its time; what serves by it stops",
        body=EmergencyAccessReasonBody,
        answer=EmergencyAccessAnswer,
    )
    @idempotent
    def post(self, request: Request, emergency_access_id: int) -> Response:
        emergency = emergency_access_end(
            actor=self.actor,
            emergency_access_id=emergency_access_id,
            **self.body(EmergencyAccessReasonBody),
        )
        return self.answer(emergency, EmergencyAccessAnswer)


class AfterReviewBody(StrictSerializer):
    """Verdict of the review, and the follow-up."""

    verdict = Choice(choices=AfterVerdict.choices)
    lessons = Paragraphs(max_length=LESSONS_MAX)


class EmergencyAccessReviewView(Endpoint):
    """The review afterward."""

    @operation(
        "Emergency access",
        "Say afterward whether emergency access was justified, as a third person",
        body=AfterReviewBody,
        answer=EmergencyAccessAnswer,
    )
    @idempotent
    def post(self, request: Request, emergency_access_id: int) -> Response:
        emergency = emergency_access_review(
            actor=self.actor, emergency_access_id=emergency_access_id, **self.body(AfterReviewBody)
        )
        return self.answer(emergency, EmergencyAccessAnswer)
