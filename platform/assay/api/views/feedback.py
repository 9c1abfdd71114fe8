"""Feedback on answers: listing, review, erasure, and dataset versions from it."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from assay.api.representations.common import PersonReference, slug
from assay.api.representations.registry import DatasetVersionAnswer
from assay.api.routes import Routes
from governance.principals import Principal
from registry.datasets.models import DatasetVersion
from registry.datasets.selectors import dataset_get, dataset_version_get
from registry.feedback.datasets import feedback_dataset_version
from registry.feedback.models import Feedback
from registry.feedback.schemas import (
    FeedbackErasure,
    FeedbackFilter,
    FeedbackReview,
    FeedbackVersion,
)
from registry.feedback.selectors import feedback_get, feedback_visible_to
from registry.feedback.services import feedback_erase, feedback_review


class FeedbackAnswer(serializers.Serializer[Any]):
    """Feedback on one answered request. `input` is the request's body, sent again with the
    feedback; `row` is the dataset row that acceptance froze. Erased feedback has no content."""

    id = serializers.IntegerField()
    request_id = serializers.CharField()
    department = slug()
    deployment = serializers.CharField()
    release = serializers.IntegerField(source="release_id")
    version = serializers.IntegerField(source="version_id")
    version_name = serializers.CharField()
    task = serializers.CharField()
    rating = serializers.CharField()
    input = serializers.JSONField(allow_null=True)
    answer = serializers.CharField()
    correction = serializers.CharField()
    comment = serializers.CharField()
    row = serializers.JSONField(allow_null=True)
    state = serializers.CharField()
    sender = serializers.CharField()
    person = PersonReference(allow_null=True)
    reviewed_by = PersonReference(allow_null=True)
    reviewed_at = serializers.DateTimeField(allow_null=True)
    erased_at = serializers.DateTimeField(allow_null=True)
    answered_at = serializers.DateTimeField()
    created_at = serializers.DateTimeField()


routes = Routes("Feedback", FeedbackAnswer)


@routes.list("feedback", "List feedback", name="feedback_list_get")
def list_feedback(actor: Principal, query: FeedbackFilter) -> QuerySet[Feedback]:
    return query.applied(feedback_visible_to(actor))


@routes.get("feedback/<id:feedback_id>", "One piece of feedback")
def show(actor: Principal, feedback_id: int) -> Feedback:
    return feedback_get(actor=actor, id=feedback_id)


# The next two do not accept an `Idempotency-Key`: a stored answer would have content that an
# erasure must remove.
@routes.post(
    "feedback/<id:feedback_id>/review",
    "Accept or reject feedback; acceptance freezes its dataset row",
)
def review(actor: Principal, feedback_id: int, body: FeedbackReview) -> Feedback:
    feedback_review(
        actor=actor, feedback_ids=[feedback_id], accept=body.accept, correction=body.correction
    )
    return feedback_get(actor=actor, id=feedback_id)


@routes.post(
    "feedback/<id:feedback_id>/erase",
    "Erase the content of feedback for good; its record stays",
)
def erase(actor: Principal, feedback_id: int, body: FeedbackErasure) -> Feedback:
    feedback_erase(actor=actor, feedback_id=feedback_id, reason=body.reason)
    return feedback_get(actor=actor, id=feedback_id)


@routes.create(
    "datasets/<slug:name>/feedback-versions",
    "Create a dataset version from accepted feedback",
    answer=DatasetVersionAnswer,
    name="feedback_version_post",
)
def version(actor: Principal, name: str, body: FeedbackVersion) -> DatasetVersion:
    return feedback_dataset_version(
        actor=actor,
        dataset=dataset_get(actor=actor, name=name),
        feedback_ids=body.feedback,
        base=dataset_version_get(actor=actor, id=body.base) if body.base else None,
    )
