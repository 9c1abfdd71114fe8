"""Conditions and end of an approval."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from registry.releases.conditions import conditions_words


class ConditionsAnswer(serializers.Serializer[Any]):
    """Conditions of one approval, or of several combined. Unset conditions are empty or null; with
    empty `departments` all departments of the release may use it. `words` describes the conditions.
    """

    departments = serializers.SerializerMethodField()
    until = serializers.SerializerMethodField()
    requests_per_minute = serializers.SerializerMethodField()
    requests_per_minute_of = serializers.SerializerMethodField()
    obligations = serializers.SerializerMethodField()
    shadow_only = serializers.SerializerMethodField()
    reviewers_read_content = serializers.SerializerMethodField()
    suspend_on_difference = serializers.SerializerMethodField()
    words = serializers.SerializerMethodField()

    def get_departments(self, stored: dict[str, Any]) -> list[str]:
        return list(stored.get("departments", []))

    def get_until(self, stored: dict[str, Any]) -> str | None:
        return stored.get("until")

    def get_requests_per_minute(self, stored: dict[str, Any]) -> int | None:
        return stored.get("requests_per_minute")

    def get_requests_per_minute_of(self, stored: dict[str, Any]) -> dict[str, int]:
        return dict(stored.get("requests_per_minute_of", {}))

    def get_obligations(self, stored: dict[str, Any]) -> list[str]:
        return list(stored.get("obligations", []))

    def get_shadow_only(self, stored: dict[str, Any]) -> bool:
        return stored.get("shadow_only") is True

    def get_reviewers_read_content(self, stored: dict[str, Any]) -> bool:
        return stored.get("reviewers_read_content") is True

    def get_suspend_on_difference(self, stored: dict[str, Any]) -> bool:
        return stored.get("suspend_on_difference") is True

    def get_words(self, stored: dict[str, Any]) -> list[str]:
        return conditions_words(stored)


class ValidityAnswer(serializers.Serializer[Any]):
    """Validity of an approved release: it may serve from `approved_at` to `serves_until`. After
    `expires_at`, the end of its approval, it is in its grace.
    """

    approved_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    grace_days = serializers.IntegerField()
    serves_until = serializers.DateTimeField(allow_null=True)
    in_grace = serializers.BooleanField()
    conditions = ConditionsAnswer()


class CarriedAnswer(serializers.Serializer[Any]):
    """The review in which an item was attested before the release was submitted again."""

    review = serializers.IntegerField(source="pk")
    release = serializers.SerializerMethodField()

    def get_release(self, review: Any) -> int | None:
        return int(review.subject_id) if review.subject_type == "release" else None
