"""API keys and quotas."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from rest_framework import serializers
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
    Slug,
    StrictSerializer,
    Whole,
)
from assay.api.representations.governance import (
    KeyAnswer,
    NewKeyAnswer,
    QuotaAnswer,
)
from governance.errors import InvalidInput
from governance.keys.selectors import key_get, keys_visible_to
from governance.keys.services import key_create, key_revoke
from governance.people.selectors import department_get
from governance.permissions import Action
from governance.quotas.models import QuotaKind
from governance.quotas.selectors import quotas_visible_to
from governance.quotas.services import LIMIT_MAX, quota_set

DEFAULT_LIFE = timedelta(days=90)
DEFAULT_SCOPES = [str(Action.DEPLOYMENT_INVOKE), str(Action.DEPLOYMENT_VIEW)]


class KeyBody(StrictSerializer):
    """A new key of a department. `quotas` maps a kind of quota to its limit."""

    department = Slug(max_length=40)
    name = Line(max_length=120)
    scopes = serializers.ListField(
        child=Choice(choices=[(str(action), str(action)) for action in Action]),
        required=False,
        min_length=1,
        max_length=len(Action),
    )
    expires_at = Moment(required=False)
    expires_in_days = Whole(min_value=1, max_value=366, required=False)
    quotas = Object(
        child=Whole(max_value=LIMIT_MAX), required=False, max_members=len(QuotaKind.values)
    )


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
                expires_at=expiry(given),
            )
            for kind, limit in quotas.items():
                quota_set(actor=self.actor, kind=kind, limit=limit, api_key=key)
        answer = KeyAnswer(key).data | {"key": secret}
        return Response(answer, status=201, headers={"Cache-Control": "no-store"})


def expiry(given: dict[str, Any]) -> datetime:
    """When the key ends: as asked, or 90 days from now.

    Raises:
        InvalidInput: it is asked for in both ways.
    """
    if "expires_at" in given and "expires_in_days" in given:
        raise InvalidInput("Give expires_at or expires_in_days: one of the two.")
    if "expires_at" in given:
        moment: datetime = given["expires_at"]
        return moment
    days = given.get("expires_in_days")
    return timezone.now() + (DEFAULT_LIFE if days is None else timedelta(days=days))


def check_kinds(quotas: dict[str, Any]) -> None:
    """Raises InvalidInput for a kind of quota that there is not."""
    known = ", ".join(QuotaKind.values)
    if unknown := [kind for kind in quotas if kind not in QuotaKind.values]:
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


class QuotaBody(StrictSerializer):
    """A limit on a department or on one key; a null limit takes it away."""

    kind = Choice(choices=QuotaKind.choices)
    limit = Whole(max_value=LIMIT_MAX, allow_null=True)
    department = Slug(max_length=40, required=False)
    key = Identifier(required=False)


class QuotasView(Endpoint):
    """Limits on departments and keys."""

    @operation("Keys", "List quotas", answer=QuotaAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(quotas_visible_to(self.actor), QuotaAnswer)

    @operation(
        "Keys", "Set or take away a quota", body=QuotaBody, answer=QuotaAnswer, also={204: None}
    )
    def post(self, request: Request) -> Response:
        given = self.body(QuotaBody)
        if ("department" in given) == ("key" in given):
            raise InvalidInput("Name a department or a key: one of the two.")
        made = quota_set(
            actor=self.actor,
            kind=given["kind"],
            limit=given["limit"],
            department=(
                department_get(slug=given["department"]) if "department" in given else None
            ),
            api_key=key_get(actor=self.actor, key_id=given["key"]) if "key" in given else None,
        )
        if made is None:
            return Response(status=204)
        return self.answer(made, QuotaAnswer)
