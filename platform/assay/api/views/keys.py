"""API keys and access tokens; only the answer for a new key has the secret."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.representations.common import PersonReference, slug
from assay.api.representations.quotas import QuotaAnswer
from assay.api.routes import Routes
from governance.errors import InvalidInput
from governance.keys.changes import key_update
from governance.keys.leaks import key_report_leaked
from governance.keys.models import ApiKey
from governance.keys.schemas import KeyChange, KeyDetails, KeyRotation, LeakedKey, NewKey
from governance.keys.selectors import KeyState, key_get, key_state, keys_visible_to
from governance.keys.services import OVERLAP, key_create, key_revoke, key_rotate
from governance.people.selectors import department_get, person_get
from governance.principals import Principal
from governance.quotas.kinds import KINDS
from governance.quotas.selectors import limits_applying, uses_or_unknown
from governance.quotas.services import quota_set

DEFAULT_LIFE = timedelta(days=90)
THANKS = "Thank you. If this is a valid key of this installation, it is now revoked."
# For the OpenAPI description.
STATES = [(state.value, state.value) for state in KeyState]


class KeyAnswer(serializers.Serializer[Any]):
    """A department's API key, or a person's access token; never the secret.

    `owner` is responsible for it. Empty `allowed_deployments` and `networks` mean any. A rotated
    key has the ID of its `successor`.
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
    """A key and every limit on requests with it, widest first."""

    limits = QuotaAnswer(many=True)


class NewKeyAnswer(KeyAnswer):
    """A new key: `key` is shown only once."""

    key = serializers.CharField()


class LeakAnswer(serializers.Serializer[Any]):
    """The same answer for any reported key."""

    detail = serializers.CharField()


routes = Routes("Keys", KeyDetailAnswer)


@routes.list("keys", "List API keys and your access tokens", answer=KeyAnswer)
def list_keys(actor: Principal) -> QuerySet[ApiKey]:
    return keys_visible_to(actor)


@routes.post("keys", "Create an API key", answer=NewKeyAnswer, status=201)
def create(actor: Principal, body: NewKey) -> ApiKey:
    check_kinds(body.quotas)
    with transaction.atomic():
        key, secret = key_create(
            actor=actor,
            department=department_get(slug=body.department),
            name=body.name,
            scopes=body.scopes,
            expires_at=body.end or timezone.now() + DEFAULT_LIFE,
            **details(actor, body),
        )
        for kind, limit in body.quotas.items():
            quota_set(actor=actor, kind=kind, limit=limit, api_key=key)
    return with_secret(key, secret)


@routes.get("keys/<id:key_id>", "A key and its limits")
def show(actor: Principal, key_id: int) -> ApiKey:
    key = key_get(actor=actor, key_id=key_id)
    detail: Any = key
    detail.limits = uses_or_unknown(limits_applying(key=key))
    return key


@routes.patch("keys/<id:key_id>", "Change a key's name, purpose, owner, deployments or networks")
def change(actor: Principal, key_id: int, body: KeyChange) -> ApiKey:
    key_get(actor=actor, key_id=key_id)
    changes = details(actor, body) | ({"name": body.name} if body.name else {})
    key_update(actor=actor, key_id=key_id, **changes)
    return show(actor, key_id)


@routes.post("keys/<id:key_id>/rotate", "Rotate a key", answer=NewKeyAnswer, status=201)
def rotate(actor: Principal, key_id: int, body: KeyRotation) -> ApiKey:
    key_get(actor=actor, key_id=key_id)
    hours = body.overlap_hours
    key, secret = key_rotate(
        actor=actor,
        key_id=key_id,
        overlap=OVERLAP if hours is None else timedelta(hours=hours),
        expires_at=body.end,
    )
    return with_secret(key, secret)


@routes.post("keys/<id:key_id>/revoke", "Revoke a key", answer=KeyAnswer)
def revoke(actor: Principal, key_id: int) -> ApiKey:
    key_get(actor=actor, key_id=key_id)
    key_revoke(actor=actor, key_id=key_id)
    return key_get(actor=actor, key_id=key_id)


class KeyLeakedView(Endpoint):
    """Anyone who finds a key can have it revoked, without a credential of their own."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @operation(
        "Keys",
        "Report a leaked key",
        body=LeakedKey,
        answer=LeakAnswer,
        status=202,
        auth=[],
    )
    def post(self, request: Request) -> Response:
        key_report_leaked(token=self.body_as(LeakedKey).token)
        return self.answer({"detail": THANKS}, LeakAnswer, status=202)


def with_secret(key: ApiKey, secret: str) -> ApiKey:
    """Return a new key with the attribute for `NewKeyAnswer`."""
    new_key: Any = key
    new_key.key = secret
    return key


def details(actor: Principal, body: KeyDetails) -> dict[str, Any]:
    """Return the details that were sent. Raises NotFound if the owner does not exist."""
    values = body.model_dump(
        include={"purpose", "allowed_deployments", "networks"}, exclude_none=True
    )
    if body.owner is not None:
        values["owner"] = person_get(actor=actor, person_id=body.owner)
    return values


def check_kinds(quotas: dict[str, int]) -> None:
    """Raise InvalidInput if a kind of quota does not exist."""
    kinds = ", ".join(KINDS)
    if unknown := [kind for kind in quotas if kind not in KINDS]:
        raise InvalidInput(
            f"There is no quota {unknown[0][:60]!r}; the kinds are {kinds}.",
            fields={f"quotas.{kind[:60]}": [f"One of {kinds}."] for kind in unknown},
        )
