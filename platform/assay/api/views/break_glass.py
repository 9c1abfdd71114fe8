"""Break-glass: one person requests it, another confirms it, a third reviews it afterward."""

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
from registry.releases.breakglass.models import (
    LESSONS_MAX,
    REASON_MAX,
    AfterVerdict,
    BreakGlassState,
)
from registry.releases.breakglass.selectors import break_glass_get, break_glasses_visible_to
from registry.releases.breakglass.services import (
    break_glass_confirm,
    break_glass_end,
    break_glass_refuse,
    break_glass_request,
    break_glass_review,
)


class BreakGlassAnswer(serializers.Serializer[Any]):
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
    url = Link("break-glass/{0.id}")
    release_url = Link("releases/{0.release_id}")


class BreakGlassQuery(StrictSerializer):
    """Filters of the list."""

    state = Choice(choices=BreakGlassState.choices, required=False)


class BreakGlassesView(Endpoint):
    """Every use and request of break-glass."""

    @operation(
        "Break-glass",
        "List uses and requests of break-glass",
        query=BreakGlassQuery,
        answer=BreakGlassAnswer,
        paged=True,
    )
    def get(self, request: Request) -> Response:
        given = self.query(BreakGlassQuery)
        return self.page(break_glasses_visible_to(self.actor).filter(**given), BreakGlassAnswer)


class BreakGlassView(Endpoint):
    """One of them."""

    @operation("Break-glass", "One use or request of break-glass", answer=BreakGlassAnswer)
    def get(self, request: Request, break_glass_id: int) -> Response:
        self.query()
        return self.answer(break_glass_get(actor=self.actor, id=break_glass_id), BreakGlassAnswer)


class BreakGlassBody(StrictSerializer):
    """Why it cannot wait for the review, and for how many hours."""

    reason = Paragraphs(max_length=REASON_MAX)
    hours = Whole(min_value=1, max_value=24)


class ReleaseBreakGlassView(Endpoint):
    """A release's break-glass."""

    @operation(
        "Break-glass",
        "Ask that a release serve before its review has decided; nothing serves until confirmed",
        body=BreakGlassBody,
        answer=BreakGlassAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request, release_id: int) -> Response:
        made = break_glass_request(
            actor=self.actor, release_id=release_id, **self.body(BreakGlassBody)
        )
        return self.answer(made, BreakGlassAnswer, status=201)


class BreakGlassConfirmView(Endpoint):
    """The second person."""

    @operation(
        "Break-glass",
        "Confirm a break-glass as the second person, with a fresh second factor",
        answer=BreakGlassAnswer,
    )
    @idempotent
    def post(self, request: Request, break_glass_id: int) -> Response:
        self.nothing()
        glass = break_glass_confirm(actor=self.actor, break_glass_id=break_glass_id)
        return self.answer(glass, BreakGlassAnswer)


class BreakGlassReasonBody(StrictSerializer):
    """Why."""

    reason = Paragraphs(max_length=REASON_MAX)


class BreakGlassRefuseView(Endpoint):
    """A request that is refused, or taken back."""

    @operation(
        "Break-glass",
        "Refuse a requested break-glass, or withdraw your own request",
        body=BreakGlassReasonBody,
        answer=BreakGlassAnswer,
    )
    @idempotent
    def post(self, request: Request, break_glass_id: int) -> Response:
        glass = break_glass_refuse(
            actor=self.actor, break_glass_id=break_glass_id, **self.body(BreakGlassReasonBody)
        )
        return self.answer(glass, BreakGlassAnswer)


class BreakGlassEndView(Endpoint):
    """The end before its time."""

    @operation(
        "Break-glass",
        "End a break-glass before its time; what serves by it stops",
        body=BreakGlassReasonBody,
        answer=BreakGlassAnswer,
    )
    @idempotent
    def post(self, request: Request, break_glass_id: int) -> Response:
        glass = break_glass_end(
            actor=self.actor, break_glass_id=break_glass_id, **self.body(BreakGlassReasonBody)
        )
        return self.answer(glass, BreakGlassAnswer)


class AfterReviewBody(StrictSerializer):
    """Verdict of the review, and the follow-up."""

    verdict = Choice(choices=AfterVerdict.choices)
    lessons = Paragraphs(max_length=LESSONS_MAX)


class BreakGlassReviewView(Endpoint):
    """The review afterward."""

    @operation(
        "Break-glass",
        "Say afterward whether a break-glass was justified, as a third person",
        body=AfterReviewBody,
        answer=BreakGlassAnswer,
    )
    @idempotent
    def post(self, request: Request, break_glass_id: int) -> Response:
        glass = break_glass_review(
            actor=self.actor, break_glass_id=break_glass_id, **self.body(AfterReviewBody)
        )
        return self.answer(glass, BreakGlassAnswer)
