"""Break-glass: one person requests it, another confirms it, a third reviews it afterward."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from assay.api.representations.common import Link, PersonReference, slug
from assay.api.routes import Routes
from governance.principals import Principal
from registry.releases.breakglass.models import BreakGlass
from registry.releases.breakglass.schemas import (
    AfterReview,
    BreakGlassFilter,
    BreakGlassReason,
    NewBreakGlass,
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


routes = Routes("Break-glass", BreakGlassAnswer)


@routes.list("break-glass", "List uses and requests of emergency access", name="break_glasses_get")
def listed(actor: Principal, query: BreakGlassFilter) -> QuerySet[BreakGlass]:
    return query.applied(break_glasses_visible_to(actor))


@routes.get("break-glass/<id:break_glass_id>", "One use or request of emergency access")
def show(actor: Principal, break_glass_id: int) -> BreakGlass:
    return break_glass_get(actor=actor, id=break_glass_id)


@routes.create(
    "releases/<id:release_id>/break-glass",
    "Request that a release serve before its review has decided; nothing serves until confirmed",
)
def request(actor: Principal, release_id: int, body: NewBreakGlass) -> BreakGlass:
    return break_glass_request(
        actor=actor, release_id=release_id, reason=body.reason, hours=body.hours
    )


@routes.post(
    "break-glass/<id:break_glass_id>/confirm",
    "Confirm emergency access as the second person, with a fresh second factor",
    repeatable=True,
)
def confirm(actor: Principal, break_glass_id: int) -> BreakGlass:
    return break_glass_confirm(actor=actor, break_glass_id=break_glass_id)


@routes.post(
    "break-glass/<id:break_glass_id>/refuse",
    "Refuse requested emergency access, or withdraw your own request",
    repeatable=True,
)
def refuse(actor: Principal, break_glass_id: int, body: BreakGlassReason) -> BreakGlass:
    return break_glass_refuse(actor=actor, break_glass_id=break_glass_id, reason=body.reason)


@routes.post(
    "break-glass/<id:break_glass_id>/end",
    "End emergency access before its time; what serves by it stops",
    repeatable=True,
)
def end(actor: Principal, break_glass_id: int, body: BreakGlassReason) -> BreakGlass:
    return break_glass_end(actor=actor, break_glass_id=break_glass_id, reason=body.reason)


@routes.post(
    "break-glass/<id:break_glass_id>/review",
    "Record afterward whether emergency access was justified, as a third person",
    repeatable=True,
)
def review(actor: Principal, break_glass_id: int, body: AfterReview) -> BreakGlass:
    return break_glass_review(
        actor=actor, break_glass_id=break_glass_id, verdict=body.verdict, lessons=body.lessons
    )
