"""One row of everything that is a department's, for each of three departments."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Model as DjangoModel
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.credentials.models import Credential, CredentialUse
from governance.keys.models import ApiKey
from governance.people.models import Department, Person
from governance.principals import service_principal
from governance.quotas.models import QuotaLimit
from governance.request_log.models import (
    ForgottenUser,
    LoggedRequest,
    RequestLogDay,
    RequestLogKey,
    RequestLogPolicy,
)
from governance.reviews.models import ChecklistItem, Decision, Review
from governance.reviews.threads.models import ReviewThread, ThreadComment
from governance.usage.models import UsageRecord
from registry.batches.models import Batch, BatchLine
from registry.datasets.models import Dataset, DatasetVersion
from registry.evaluations.models import Evaluation, Gate, GateResult
from registry.feedback.models import Feedback
from registry.files.models import StoredFile
from registry.incidents.models import (
    Incident,
    IncidentNote,
    IncidentSuspension,
    IncidentVersion,
)
from registry.intake.models import Intake, IntakeProbe
from registry.knowledge.models import Document, DocumentVersion, KnowledgeBase
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.models import Release
from registry.responses.models import ResponseRetention, StoredResponse
from registry.versions.models import Model, ModelVersion
from tests.approvals import software_of
from workers.deployments.models import Deployment, Replica, ServingPeriod, StatedModel
from workers.jobs.models import Job, JobEvent

SLUGS = ("clinical", "engineering", "finance")
DIGEST = "d" * 64
OWNED: tuple[type[DjangoModel], ...] = (
    ApiKey,
    Credential,
    CredentialUse,
    QuotaLimit,
    UsageRecord,
    Review,
    Decision,
    ChecklistItem,
    ReviewThread,
    ThreadComment,
    Model,
    ModelVersion,
    Dataset,
    DatasetVersion,
    Intake,
    IntakeProbe,
    Gate,
    Evaluation,
    GateResult,
    Release,
    Incident,
    IncidentVersion,
    IncidentNote,
    IncidentSuspension,
    EmergencyAccess,
    Job,
    JobEvent,
    Deployment,
    Replica,
    ServingPeriod,
    StatedModel,
    Feedback,
    ResponseRetention,
    RequestLogPolicy,
    RequestLogKey,
    RequestLogDay,
    ForgottenUser,
    LoggedRequest,
    Batch,
    BatchLine,
    StoredFile,
    StoredResponse,
    KnowledgeBase,
    Document,
    DocumentVersion,
)


@dataclass
class Estate:
    """A department, somebody who made what it owns, and its rows by table."""

    department: Department
    person: Person
    rows: dict[type[DjangoModel], list[Any]] = field(default_factory=dict)

    def add(self, row: Any) -> Any:
        self.rows.setdefault(type(row), []).append(row)
        return row


def names_of(name: str) -> dict[str, Any]:
    """Return the fields of a key besides its owner."""
    return {
        "public_id": name[:16],
        "secret_hmac": name.encode().ljust(32, b"."),
        "pepper_version": 1,
        "name": name,
        "expires_at": timezone.now() + timedelta(days=1),
    }


def estates(
    department: Callable[[str], Department], person: Callable[..., Person]
) -> dict[str, Estate]:
    """The three departments' estates, by slug."""
    found = {}
    for slug in SLUGS:
        estate = Estate(department(slug), person(f"Owner {slug}", f"developer@{slug}"))
        _govern(estate, slug)
        _register(estate, slug)
        _run(estate)
        _learn(estate, slug)
        found[slug] = estate
    return found


def _govern(estate: Estate, slug: str) -> None:
    now = timezone.now()
    key = estate.add(ApiKey.objects.create(**names_of(slug), department=estate.department))
    credential = estate.add(
        Credential.objects.create(
            department=estate.department,
            name="provider",
            kind="header",
            hosts=["api.example.com"],
            sealed=b"sealed",
            created_by=estate.person,
        )
    )
    estate.add(CredentialUse.objects.create(credential=credential, deployment="d", used_at=now))
    kind = {"kind": "tokens_per_day", "limit": 1}
    estate.add(QuotaLimit.objects.create(api_key=key, **kind))
    estate.add(QuotaLimit.objects.create(department=estate.department, **kind))
    estate.add(
        UsageRecord.objects.create(
            request_id=uuid.uuid4().hex,
            occurred_at=now,
            department=slug,
            key_public_id="k",
            deployment="d",
            version_digest="d",
            endpoint="e",
            outcome="ok",
        )
    )
    review = estate.add(
        Review.objects.create(
            subject_type="thing",
            subject_id=slug,
            subject_name="thing",
            department=estate.department,
            digest=DIGEST,
            required_approvals={"compliance": 1},
            policy_version=1,
            opened_by=estate.person,
            due_at=now,
        )
    )
    estate.add(
        Decision.objects.create(
            review=review,
            submitter=estate.person,
            person=estate.person,
            verdict="comment",
            reason="r",
            digest=DIGEST,
            round=1,
        )
    )
    estate.add(ChecklistItem.objects.create(review=review, code="c", title="t"))
    on = {"digest": DIGEST, "round": 1}
    thread = estate.add(
        ReviewThread.objects.create(
            review=review, anchor_kind="general", opened_by=estate.person, **on
        )
    )
    estate.add(ThreadComment.objects.create(thread=thread, person=estate.person, text="t", **on))


def _register(estate: Estate, slug: str) -> None:
    mine = {"created_by": estate.person}
    model = estate.add(
        Model.objects.create(name=slug, department=estate.department, task="embeddings", **mine)
    )
    version = estate.add(
        ModelVersion.objects.create(
            model=model, number=1, kind="base", digest=DIGEST, manifest={}, size_bytes=1, **mine
        )
    )
    dataset = estate.add(
        Dataset.objects.create(
            name=slug,
            department=estate.department,
            task="embeddings",
            classification="public",
            license="MIT",
            **mine,
        )
    )
    data = estate.add(
        DatasetVersion.objects.create(
            dataset=dataset, number=1, digest=DIGEST, rows=1, size_bytes=1, schema={}, **mine
        )
    )
    intake = estate.add(
        Intake.objects.create(model=model, source="s", license="l", submitted_by=estate.person)
    )
    estate.add(IntakeProbe.objects.create(intake=intake))
    gate = estate.add(
        Gate.objects.create(
            model=model, dataset=dataset, metric="m", comparator=">=", threshold=1, **mine
        )
    )
    evaluation = estate.add(
        Evaluation.objects.create(
            version=version,
            dataset_version=data,
            metrics={},
            sample_size=1,
            digest=DIGEST,
            job_id=uuid.uuid4(),
            started_at=timezone.now(),
            **mine,
        )
    )
    estate.add(
        GateResult.objects.create(evaluation=evaluation, gate=gate, threshold=1, passed=True)
    )
    estate.add(
        Release.objects.create(
            version=version,
            department=estate.department,
            environment="staging",
            deployment_name=slug,
            purpose="p",
            dossier={"software": software_of("text-generation")},
            dossier_digest=DIGEST,
            submitted_by=estate.person,
        )
    )
    _break(estate, version)


def _break(estate: Estate, version: ModelVersion) -> None:
    incident = estate.add(
        Incident.objects.create(
            title="t",
            happened="h",
            severity="low",
            aware_at=timezone.now(),
            department=estate.department,
            reporter=estate.person,
        )
    )
    incident.departments.add(estate.department)
    on = {"incident": incident}
    estate.add(IncidentVersion.objects.create(**on, version=version, added_by=estate.person))
    estate.add(IncidentNote.objects.create(**on, kind="note", text="t", person=estate.person))
    estate.add(IncidentSuspension.objects.create(**on, excluded_people=[estate.person.pk]))
    release = estate.rows[Release][0]
    estate.add(
        EmergencyAccess.objects.create(
            release=release,
            department=estate.department,
            dossier_digest=DIGEST,
            reason="r",
            hours=1,
            excluded_people=[],
            asked_by=estate.person,
            asked_at=timezone.now(),
        )
    )


def _run(estate: Estate) -> None:
    mine = {"department": estate.department, "created_by": estate.person}
    job = estate.add(Job.objects.create(kind="evaluate", title="t", spec={}, **mine))
    estate.add(JobEvent.objects.create(job=job, attempt=1, message="m"))
    release = estate.rows[Release][0]
    deployment = estate.add(
        Deployment.objects.create(name=release.deployment_name, release=release, **mine)
    )
    estate.add(
        Replica.objects.create(
            deployment=deployment, worker="w", state="ready", heartbeat_at=timezone.now()
        )
    )
    now = timezone.now()
    estate.add(
        StatedModel.objects.create(deployment=deployment, model="m", first_at=now, seen_at=now)
    )
    with transaction.atomic():
        began = audit_record(
            actor=service_principal("engine-worker"),
            action="deployment:serve",
            subject=Subject("deployment", str(deployment.pk), deployment.name),
        )
        estate.add(
            ServingPeriod.objects.create(
                deployment=deployment,
                digest=DIGEST,
                serving_from=began.occurred_at,
                began_event=began,
            )
        )


def _learn(estate: Estate, slug: str) -> None:
    mine = {"created_by": estate.person}
    version = estate.rows[ModelVersion][0]
    estate.add(
        Feedback.objects.create(
            request_id=uuid.uuid4().hex,
            department=estate.department,
            deployment=slug,
            endpoint="e",
            task="embeddings",
            release=estate.rows[Release][0],
            version=version,
            version_name="v",
            rating="up",
            sender="k",
            answered_at=timezone.now(),
        )
    )
    estate.add(ResponseRetention.objects.create(department=estate.department, days=1))
    _log_requests(estate, slug)
    estate.add(
        StoredResponse.objects.create(
            id=f"resp_{slug}",
            department=estate.department,
            deployment=slug,
            sender="k",
            items=[],
            response={},
            size=1,
            expires_at=timezone.now() + timedelta(days=1),
        )
    )
    estate.add(
        StoredFile.objects.create(
            id=f"file-{slug}",
            department=estate.department,
            sender="k",
            filename="f",
            purpose="batch",
            size=1,
            sha256="0" * 64,
            expires_at=timezone.now() + timedelta(days=1),
        )
    )
    batch = estate.add(
        Batch.objects.create(
            id=f"batch_{slug}",
            department=estate.department,
            sender="k",
            key_name="k",
            classification="internal",
            endpoint="/v1/completions",
            input_file=f"file-{slug}",
            expires_at=timezone.now() + timedelta(days=1),
        )
    )
    estate.add(BatchLine.objects.create(batch=batch, number=1, custom_id="a", offset=0, size=1))
    base = estate.add(
        KnowledgeBase.objects.create(
            name=slug,
            department=estate.department,
            title="t",
            embedding_version=version,
            embedding_name="e",
            embedding_digest=DIGEST,
            chunk_characters=2,
            overlap_characters=1,
            **mine,
        )
    )
    document = estate.add(Document.objects.create(base=base, title="t", owner=estate.person))
    estate.add(
        DocumentVersion.objects.create(
            document=document,
            number=1,
            filename="f",
            sha256=DIGEST,
            size_bytes=1,
            text_sha256=DIGEST,
            characters=1,
            classification="public",
            **mine,
        )
    )


def _log_requests(estate: Estate, slug: str) -> None:
    department, now = estate.department, timezone.now()
    estate.add(RequestLogPolicy.objects.create(department=department))
    estate.add(RequestLogDay.objects.create(department=department, day=now.date()))
    estate.add(ForgottenUser.objects.create(department=department, user_tag=b"t"))
    key = estate.add(
        RequestLogKey.objects.create(department=department, number=1, wrapped=b"w", wrapped_by=1)
    )
    estate.add(
        LoggedRequest.objects.create(
            request_id=f"req_{slug}",
            occurred_at=now,
            department=department,
            key=key,
            content=b"c",
            size=1,
            cut=False,
        )
    )
