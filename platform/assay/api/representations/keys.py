"""API keys and access tokens; never their secrets."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from assay.api.representations.common import PersonReference, slug
from assay.api.representations.quotas import QuotaAnswer
from governance.keys.models import ApiKey
from governance.keys.selectors import KeyState, key_state

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
