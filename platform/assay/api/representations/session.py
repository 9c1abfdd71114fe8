"""Sessions of a person."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.accounts.adapters import UNKNOWN_ADDRESS
from assay.accounts.devices import device_words
from assay.api.representations.common import PersonReference


class SessionAnswer(serializers.Serializer[Any]):
    """A session of the portal; `address` is null when it is not known."""

    id = serializers.IntegerField()
    person = PersonReference(source="user")
    device = serializers.SerializerMethodField()
    user_agent = serializers.CharField()
    address = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField()

    def get_device(self, row: Any) -> str:
        return device_words(row.user_agent)

    def get_address(self, row: Any) -> str | None:
        return None if row.ip == UNKNOWN_ADDRESS else str(row.ip)


class StepUpAnswer(serializers.Serializer[Any]):
    """The proof that the access token carries now."""

    method = serializers.CharField(help_text="`totp` or `recovery_codes`.")
    proved_at = serializers.DateTimeField()
    fresh_until = serializers.DateTimeField()
