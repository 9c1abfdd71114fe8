"""API keys and access tokens; an answer has a secret only when the key is new."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import (
    Choice,
    Identifier,
    Line,
    Moment,
    Object,
    Several,
    Slug,
    StrictSerializer,
    Whole,
)
from assay.api.representations.common import PersonReference, slug
from assay.api.representations.quotas import QuotaAnswer
from governance import bounds
from governance.bounds import DEPARTMENT_MAX, TITLE_MAX
from governance.errors import InvalidInput
from governance.keys.changes import key_update
from governance.keys.checks import DEPLOYMENTS_MAX, MAX_LIFETIME, MAX_OVERLAP, NETWORKS_MAX
from governance.keys.leaks import TEXT_MAX, key_report_leaked
from governance.keys.models import PURPOSE_MAX, ApiKey
from governance.keys.selectors import KeyState, key_get, key_state, keys_visible_to
from governance.keys.services import OVERLAP, key_create, key_revoke, key_rotate
from governance.people.selectors import department_get, person_get
from governance.permissions import Action
from governance.principals import Principal
from governance.quotas.kinds import KINDS
from governance.quotas.selectors import limits_applying, uses_or_unknown
from governance.quotas.services import LIMIT_MAX, quota_set

# As the description of this API names them.
STATES = [(state.value, state.value) for state in KeyState]


class KeyAnswer(serializers.Serializer[Any]):
    """A department's API key, or a person's access token; never the secret.

    `owner` answers for it. Empty `allowed_deployments` and `networks` mean any. A key that was
    rotated has a `successor`; both are ids.
    """

    id = serializers.IntegerField()
    public_id = serializers.CharField()
    name = serializers.CharField()
    state = serializers.SerializerMethodField()
    department = slug(allow_null=True, default=None)
    person = PersonReference(allow_null=True)
    owner = PersonReference(allow_null=True)
    purpose = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    allowed_deployments = serializers.ListField(child=serializers.CharField())
    networks = serializers.ListField(child=serializers.CharField())
    rotated_from = serializers.IntegerField(source="rotated_from_id", allow_null=True)
    successor = serializers.SerializerMethodField()
    created_by = PersonReference(allow_null=True)
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    revoked_at = serializers.DateTimeField(allow_null=True)
    revoked_reason = serializers.CharField()
    last_used_at = serializers.DateTimeField(allow_null=True)

    def get_state(self, key: ApiKey) -> KeyState:
        return key_state(key, timezone.now())

    def get_successor(self, key: ApiKey) -> int | None:
        successor = getattr(key, "successor", None)
        return None if successor is None else successor.pk


class KeyDetailAnswer(KeyAnswer):
    """A key and every limit that binds requests with it, the widest first."""

    limits = serializers.SerializerMethodField()

    def get_limits(self, key: ApiKey) -> list[dict[str, Any]]:
        return [dict(QuotaAnswer(use).data) for use in self.context["limits"]]


class NewKeyAnswer(KeyAnswer):
    """A new key: `key` is shown only once."""

    key = serializers.CharField()


class LeakAnswer(serializers.Serializer[Any]):
    """The same whatever was found."""

    detail = serializers.CharField()


DEFAULT_LIFE = timedelta(days=90)
THANKS = "Thank you. If this is a key of ours and alive, it is revoked by now."
DEFAULT_SCOPES = [str(Action.DEPLOYMENT_INVOKE), str(Action.DEPLOYMENT_VIEW)]


class _Details(StrictSerializer):
    """Restrictions of a key, and its owner (a person's ID)."""

    owner = Identifier(required=False)
    purpose = Line(max_length=PURPOSE_MAX, required=False, allow_blank=True)
    allowed_deployments = Several(
        child=Line(max_length=bounds.NAME_MAX), required=False, max_length=DEPLOYMENTS_MAX
    )
    networks = Several(child=Line(max_length=43), required=False, max_length=NETWORKS_MAX)


class KeyBody(_Details):
    """A new key of a department. `quotas` maps a kind of quota to its limit; `networks` are CIDRs.
    Empty `allowed_deployments` and `networks` mean any.
    """

    department = Slug(max_length=DEPARTMENT_MAX)
    name = Line(max_length=TITLE_MAX)
    scopes = Several(
        child=Choice(choices=[(str(action), str(action)) for action in Action]),
        required=False,
        min_length=1,
        max_length=len(Action),
    )
    expires_at = Moment(required=False)
    expires_in_days = Whole(min_value=1, max_value=MAX_LIFETIME.days, required=False)
    quotas = Object(child=Whole(max_value=LIMIT_MAX), required=False, max_members=len(KINDS))


class KeyChangeBody(_Details):
    """Fields to change; the others stay."""

    name = Line(max_length=TITLE_MAX, required=False)


class RotationBody(StrictSerializer):
    """How long both secrets work, and how long the new one lives: as long as the old one was made
    for, unless told otherwise.
    """

    overlap_hours = Whole(max_value=MAX_OVERLAP.days * 24, required=False)
    expires_at = Moment(required=False)
    expires_in_days = Whole(min_value=1, max_value=MAX_LIFETIME.days, required=False)


class LeakBody(StrictSerializer):
    """The whole text of the key that was found."""

    token = Line(max_length=TEXT_MAX)


class KeysView(Endpoint):
    """Keys; the secret is shown when one is made, and never again."""

    @operation("Keys", "List API keys and your access tokens", answer=KeyAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(keys_visible_to(self.actor), KeyAnswer)

    @operation("Keys", "Create an API key", body=KeyBody, answer=NewKeyAnswer, status=201)
    def post(self, request: Request) -> Response:
        given = self.body(KeyBody)
        quotas: dict[str, int] = given.get("quotas", {})
        check_kinds(quotas)
        with transaction.atomic():
            key, secret = key_create(
                actor=self.actor,
                department=department_get(slug=given["department"]),
                name=given["name"],
                scopes=given.get("scopes", DEFAULT_SCOPES),
                expires_at=expiry(given) or timezone.now() + DEFAULT_LIFE,
                **details(self.actor, given),
            )
            for kind, limit in quotas.items():
                quota_set(actor=self.actor, kind=kind, limit=limit, api_key=key)
        return shown_once(key, secret)


class KeyView(Endpoint):
    """One key."""

    @operation("Keys", "A key and the limits that bind it", answer=KeyDetailAnswer)
    def get(self, request: Request, key_id: int) -> Response:
        self.query()
        return self._detailed(key_id)

    @operation(
        "Keys",
        "Change a key's name, purpose, owner, deployments or networks",
        body=KeyChangeBody,
        answer=KeyDetailAnswer,
    )
    def patch(self, request: Request, key_id: int) -> Response:
        given = self.body(KeyChangeBody)
        key_get(actor=self.actor, key_id=key_id)
        changes = details(self.actor, given)
        if "name" in given:
            changes["name"] = given["name"]
        key_update(actor=self.actor, key_id=key_id, **changes)
        return self._detailed(key_id)

    def _detailed(self, key_id: int) -> Response:
        key = key_get(actor=self.actor, key_id=key_id)
        limits = uses_or_unknown(limits_applying(key=key))
        context = {"request": self.request, "limits": limits}
        return Response(KeyDetailAnswer(key, context=context).data)


class KeyRotateView(Endpoint):
    """A new secret, while the old one goes on working for a time."""

    @operation("Keys", "Rotate a key", body=RotationBody, answer=NewKeyAnswer, status=201)
    def post(self, request: Request, key_id: int) -> Response:
        given = self.body(RotationBody)
        key_get(actor=self.actor, key_id=key_id)
        hours = given.get("overlap_hours")
        key, secret = key_rotate(
            actor=self.actor,
            key_id=key_id,
            overlap=OVERLAP if hours is None else timedelta(hours=hours),
            expires_at=expiry(given),
        )
        return shown_once(key, secret)


class KeyLeakedView(Endpoint):
    """Whoever finds a key may have it revoked, without a credential of their own."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @operation(
        "Keys",
        "Report a leaked key",
        body=LeakBody,
        answer=LeakAnswer,
        status=202,
        auth=[],
    )
    def post(self, request: Request) -> Response:
        given = self.body(LeakBody)
        key_report_leaked(token=given["token"])
        return self.answer({"detail": THANKS}, LeakAnswer, status=202)


def shown_once(key: ApiKey, secret: str) -> Response:
    """The answer that carries a new key's secret."""
    answer = KeyAnswer(key).data | {"key": secret}
    return Response(answer, status=201, headers={"Cache-Control": "no-store"})


def details(actor: Principal, given: dict[str, Any]) -> dict[str, Any]:
    """The details that were given, as the services take them. Raises NotFound for the owner."""
    names = ("purpose", "allowed_deployments", "networks")
    found = {name: given[name] for name in names if name in given}
    if "owner" in given:
        found["owner"] = person_get(actor=actor, person_id=given["owner"])
    return found


def expiry(given: dict[str, Any]) -> datetime | None:
    """When the key ends, as asked; None when nothing was.

    Raises:
        InvalidInput: both fields are given.
    """
    if "expires_at" in given and "expires_in_days" in given:
        raise InvalidInput("Give expires_at or expires_in_days: one of the two.")
    if "expires_at" in given:
        moment: datetime = given["expires_at"]
        return moment
    days = given.get("expires_in_days")
    return None if days is None else timezone.now() + timedelta(days=days)


def check_kinds(quotas: dict[str, Any]) -> None:
    """Raises InvalidInput for a kind of quota that there is not."""
    known = ", ".join(KINDS)
    if unknown := [kind for kind in quotas if kind not in KINDS]:
        raise InvalidInput(
            f"There is no quota {unknown[0][:60]!r}; there are {known}.",
            fields={f"quotas.{kind[:60]}": [f"One of {known}."] for kind in unknown},
        )


class KeyRevokeView(Endpoint):
    """Revoking is at once and for good."""

    @operation("Keys", "Revoke a key", answer=KeyAnswer)
    def post(self, request: Request, key_id: int) -> Response:
        self.nothing()
        key_get(actor=self.actor, key_id=key_id)
        key_revoke(actor=self.actor, key_id=key_id)
        return self.answer(key_get(actor=self.actor, key_id=key_id), KeyAnswer)
