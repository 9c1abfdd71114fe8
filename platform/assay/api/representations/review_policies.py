"""Review policies."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import PersonReference
from governance.reviews.policies.selectors import policy_document


class ReviewPolicyAnswer(serializers.Serializer[Any]):
    """One version of a review policy. `based_on` is the version in force when it was drafted."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    version = serializers.IntegerField()
    state = serializers.CharField()
    title = serializers.SerializerMethodField()
    digest = serializers.CharField()
    based_on = serializers.IntegerField(allow_null=True)
    created_by = PersonReference(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    proposed_by = PersonReference(allow_null=True)
    proposed_at = serializers.DateTimeField(allow_null=True)
    decided_by = PersonReference(allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    decision_note = serializers.CharField()

    def get_title(self, policy: Any) -> str:
        return policy_document(policy).title


class ReviewPolicyDetail(ReviewPolicyAnswer):
    """With what it says: `text` is the YAML that was decided on, whose SHA-256 is `digest`, and
    `document` the same as data. `authors` are the ids of the people who wrote on it.
    """

    text = serializers.CharField()
    document = serializers.SerializerMethodField()
    authors = serializers.ListField(child=serializers.IntegerField())

    def get_document(self, policy: Any) -> dict[str, Any]:
        return policy_document(policy).model_dump(mode="json", by_alias=True)
