"""Deployments that served a department at a given time, their approvers, and the evidence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import PAGE, operation
from assay.api.endpoint import Endpoint
from assay.api.representations.common import Link, PersonReference, slug
from assay.api.representations.conditions import ConditionsAnswer, ValidityAnswer
from assay.api.representations.registry import VersionReference
from assay.api.representations.releases import ChecklistItemAnswer
from workers.deployments.models import ServingPeriod
from workers.deployments.served import (
    Question,
    ServedFilter,
    empty_answer_sentence,
    served_question,
)
from workers.deployments.served_evidence import Served, served_answers


class LogReference(serializers.Serializer[Any]):
    """An event of the audit log; `sequence` is its place in the log, null until it is sealed."""

    id = serializers.IntegerField()
    sequence = serializers.IntegerField(allow_null=True)
    action = serializers.CharField()
    occurred_at = serializers.DateTimeField()
    url = Link("audit/events/{0.id}")
    proof_url = Link("audit/events/{0.id}/proof")


class VoteAnswer(serializers.Serializer[Any]):
    """One person's vote on exactly this dossier."""

    verdict = serializers.CharField()
    specialty = serializers.CharField()
    reason = serializers.CharField()
    conditions = ConditionsAnswer()
    person = PersonReference()
    in_place_of = PersonReference(
        allow_null=True, help_text="The absent reviewer whose deputy the person voted as."
    )
    created_at = serializers.DateTimeField()


class ApprovingReview(serializers.Serializer[Any]):
    """The review that decided, with its checklist."""

    id = serializers.IntegerField()
    state = serializers.CharField()
    round = serializers.IntegerField()
    required_approvals = serializers.DictField(child=serializers.IntegerField())
    policy_version = serializers.IntegerField()
    opened_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)
    checklist = ChecklistItemAnswer(many=True)


class MeasuredAnswer(serializers.Serializer[Any]):
    """An evaluation in the dossier; `digest` is that of its results."""

    id = serializers.SerializerMethodField()
    digest = serializers.SerializerMethodField()
    dataset = serializers.SerializerMethodField()
    dataset_digest = serializers.SerializerMethodField()
    sample_size = serializers.SerializerMethodField()
    on_training_data = serializers.SerializerMethodField(
        help_text="The version or its base was trained on this data."
    )
    rows_cut = serializers.SerializerMethodField(help_text="Rows that were too long for the model.")
    metrics = serializers.SerializerMethodField()
    gates_failed = serializers.SerializerMethodField()

    def get_id(self, measured: dict[str, Any]) -> int | None:
        return measured.get("id")

    def get_digest(self, measured: dict[str, Any]) -> str:
        return str(measured.get("digest", ""))

    def get_dataset(self, measured: dict[str, Any]) -> str:
        return f"{measured.get('dataset', '')} v{measured.get('dataset_version', '')}"

    def get_dataset_digest(self, measured: dict[str, Any]) -> str:
        return str(measured.get("dataset_digest", ""))

    def get_sample_size(self, measured: dict[str, Any]) -> int | None:
        return measured.get("sample_size")

    def get_on_training_data(self, measured: dict[str, Any]) -> bool:
        return bool(measured.get("on_training_data"))

    def get_rows_cut(self, measured: dict[str, Any]) -> int:
        return int(measured.get("rows_cut") or 0)

    def get_metrics(self, measured: dict[str, Any]) -> dict[str, float]:
        return dict(measured.get("metrics") or {})

    def get_gates_failed(self, measured: dict[str, Any]) -> list[str]:
        gates = measured.get("gates") or []
        return [str(gate.get("metric")) for gate in gates if not gate.get("passed")]


class ApprovalAnswer(serializers.Serializer[Any]):
    """Approvers, and the basis of the approval. `events` are those of the decision; their proofs
    show that they are in the log.
    """

    review = ApprovingReview(allow_null=True)
    votes = VoteAnswer(many=True)
    evaluations = MeasuredAnswer(many=True)
    events = LogReference(many=True)
    events_left_out = serializers.BooleanField(
        help_text="There were more events than an answer can have."
    )


class HourAnswer(serializers.Serializer[Any]):
    """Usage by the department in that hour, from the ledger."""

    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    requests = serializers.IntegerField()
    failed = serializers.IntegerField()
    tokens = serializers.IntegerField()


class ReleasedAnswer(ValidityAnswer):
    """Scope and end of the approval. `state` is the current one."""

    id = serializers.IntegerField()
    state = serializers.CharField()
    tier = serializers.CharField()
    purpose = serializers.CharField()
    departments = serializers.SerializerMethodField()
    visibility = serializers.CharField()
    dossier_digest = serializers.CharField()
    url = Link("releases/{0.id}")
    dossier_url = Link("releases/{0.id}/dossier")
    evidence_url = Link("releases/{0.id}/evidence")

    def get_departments(self, release: Any) -> list[str]:
        return [department.slug for department in release.departments.all()]


class EmergencyAnswer(serializers.Serializer[Any]):
    """Emergency access, by which two people permitted serving before the review had decided."""

    id = serializers.IntegerField()
    state = serializers.CharField()
    serving_from = serializers.DateTimeField(source="confirmed_at")
    serving_until = serializers.DateTimeField(source="over_at")
    reason = serializers.CharField()
    dossier_digest = serializers.CharField()
    asked_by = PersonReference()
    confirmed_by = PersonReference()


class ServedAnswer(serializers.Serializer[Any]):
    """A period in which a deployment served. `approval` is null if the caller may not see the
    release, `usage` if they may not see the department's usage."""

    id = serializers.IntegerField(source="period.id")
    name = serializers.CharField(source="deployment.name")
    deployment = serializers.IntegerField(source="deployment.id")
    department = slug("deployment.department.slug", help_text="The deployment's department.")
    environment = serializers.CharField(source="release.environment")
    version = VersionReference(source="release.version")
    digest = serializers.CharField(
        source="period.digest", help_text="Digest of the bytes, computed while they were loaded."
    )
    serving_from = serializers.DateTimeField(source="period.serving_from")
    serving_until = serializers.DateTimeField(
        source="until", allow_null=True, help_text="Null while it still serves."
    )
    ended = serializers.CharField(
        help_text="pending (its last worker was lost), refused, stopped, expired or "
        "emergency_access_over; otherwise empty."
    )
    began_event = LogReference(source="period.began_event")
    ended_event = LogReference(source="period.ended_event", allow_null=True)
    release = ReleasedAnswer()
    emergency_access = EmergencyAnswer(
        many=True, source="emergencies", help_text="Emergency access before its review decided."
    )
    approval = ApprovalAnswer(allow_null=True)
    usage = HourAnswer(allow_null=True)


class ServedPage(serializers.Serializer[Any]):
    """The matching periods, newest first. `said` explains why there are none."""

    department = slug()
    at = serializers.DateTimeField(allow_null=True)
    since = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField(allow_null=True)
    said = serializers.CharField()
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)
    results = ServedAnswer(many=True)


class ServedView(Endpoint):
    """Deployments that served."""

    @operation(
        "Deployments",
        "List deployments that served a department at a time, with approvers and evidence",
        query=ServedFilter,
        answer=ServedPage,
        parameters=PAGE,
    )
    def get(self, request: Request) -> Response:
        question = served_question(actor=self.actor, **dict(self.query_as(ServedFilter)))

        def prepared(rows: Iterable[ServingPeriod]) -> list[Served]:
            return served_answers(self.actor, question, rows)

        page = self.page(question.rows, ServedAnswer, prepared=prepared).data
        has_results = page["results"] or page["previous"]
        explanation = "" if has_results else empty_answer_sentence(self.actor, question)
        return Response({**_question(question), "said": explanation, **page})


def _question(question: Question) -> dict[str, object]:
    span = question.until is not None
    return {
        "department": question.department.slug,
        "at": question.at,
        "since": question.since if span else None,
        "until": question.until,
    }
