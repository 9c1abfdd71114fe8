"""Feedback on answers: read it, review it, erase it, and make data of it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import (
    Choice,
    Identifier,
    Line,
    Paragraphs,
    Several,
    StrictSerializer,
    Truth,
)
from assay.api.idempotency import idempotent
from assay.api.representations.common import PersonReference, slug
from assay.api.representations.registry import DatasetVersionAnswer
from governance.bounds import NAME_MAX
from registry.datasets.selectors import dataset_get, dataset_version_get
from registry.feedback.datasets import feedback_dataset_version
from registry.feedback.models import FeedbackState
from registry.feedback.selectors import feedback_get, feedback_visible_to
from registry.feedback.services import (
    REASON_MAX,
    TEXT_MAX,
    feedback_erase,
    feedback_review,
)

NAMED_MAX = 1_000


class FeedbackAnswer(serializers.Serializer[Any]):
    """Feedback on one answered request. `input` is the request's body as its sender repeated it;
    `row` is the dataset row that acceptance froze. Erased feedback has none of its content."""

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


class FeedbackQuery(StrictSerializer):
    """Filters of the list."""

    state = Choice(choices=FeedbackState.choices, required=False)
    deployment = Line(max_length=NAME_MAX, required=False)


class FeedbackListView(Endpoint):
    """Feedback of the caller's departments."""

    @operation("Feedback", "List feedback", query=FeedbackQuery, answer=FeedbackAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(FeedbackQuery)
        return self.page(feedback_visible_to(self.actor).filter(**given), FeedbackAnswer)


class FeedbackView(Endpoint):
    """One piece of feedback."""

    @operation("Feedback", "One piece of feedback", answer=FeedbackAnswer)
    def get(self, request: Request, feedback_id: int) -> Response:
        self.query()
        return self.answer(feedback_get(actor=self.actor, id=feedback_id), FeedbackAnswer)


class FeedbackReviewBody(StrictSerializer):
    """Accept it, or reject it; with the reviewer's own right answer, where the sender has none."""

    accept = Truth()
    correction = Paragraphs(
        max_length=TEXT_MAX, required=False, allow_blank=True, trim_whitespace=False
    )


class FeedbackReviewView(Endpoint):
    """The decision on one piece of feedback.

    Takes no `Idempotency-Key`: a kept answer would hold content that an erasure has to remove.
    """

    @operation(
        "Feedback",
        "Accept or reject feedback; acceptance freezes its dataset row",
        body=FeedbackReviewBody,
        answer=FeedbackAnswer,
    )
    def post(self, request: Request, feedback_id: int) -> Response:
        given = self.body(FeedbackReviewBody)
        feedback_review(actor=self.actor, feedback_ids=[feedback_id], **given)
        return self.answer(feedback_get(actor=self.actor, id=feedback_id), FeedbackAnswer)


class FeedbackEraseBody(StrictSerializer):
    """The reason of an erasure, which the audit log keeps."""

    reason = Line(max_length=REASON_MAX)


class FeedbackEraseView(Endpoint):
    """The content of one piece of feedback. Takes no `Idempotency-Key`, as the review."""

    @operation(
        "Feedback",
        "Erase the content of feedback for good; its record stays",
        body=FeedbackEraseBody,
        answer=FeedbackAnswer,
    )
    def post(self, request: Request, feedback_id: int) -> Response:
        given = self.body(FeedbackEraseBody)
        feedback_erase(actor=self.actor, feedback_id=feedback_id, **given)
        return self.answer(feedback_get(actor=self.actor, id=feedback_id), FeedbackAnswer)


class FeedbackVersionBody(StrictSerializer):
    """Accepted feedback, by id, and the dataset version whose rows come first."""

    feedback = Several(child=Identifier(), min_length=1, max_length=NAMED_MAX)
    base = Identifier(required=False)

    def validate_feedback(self, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise serializers.ValidationError("One is named twice.")
        return value


class FeedbackVersionView(Endpoint):
    """Versions of a dataset that are made of feedback."""

    @operation(
        "Feedback",
        "Make a dataset version of accepted feedback",
        body=FeedbackVersionBody,
        answer=DatasetVersionAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request, name: str) -> Response:
        given = self.body(FeedbackVersionBody)
        base = given.get("base")
        made = feedback_dataset_version(
            actor=self.actor,
            dataset=dataset_get(actor=self.actor, name=name),
            feedback_ids=given["feedback"],
            base=None if base is None else dataset_version_get(actor=self.actor, id=base),
        )
        return self.answer(made, DatasetVersionAnswer, status=201)
