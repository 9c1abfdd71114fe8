"""Resources of policy decisions, and subjects of audit events, for the rows of this context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from governance.audit.services import Subject
from governance.errors import NotPermitted
from governance.people.models import Department, Person
from governance.policy.engine import Resource
from governance.principals import Principal

if TYPE_CHECKING:
    from registry.datasets.models import Dataset, DatasetVersion
    from registry.evaluations.models import Evaluation
    from registry.intake.models import Intake
    from registry.knowledge.models import DocumentVersion, KnowledgeBase
    from registry.releases.models import Release
    from registry.versions.models import Model, ModelVersion


def acting_person(actor: Principal) -> Person:
    """Return the person behind `actor`.

    Raises:
        NotPermitted: the actor is a department's key or a service, which cannot own anything.
    """
    person = Person.objects.filter(pk=actor.person_id).first() if actor.person_id else None
    if person is None:
        raise NotPermitted(
            f"{actor.name} is not a person; only a person may do this.",
            code="person_required",
            hint="Sign in, or use a personal access token.",
        )
    return person


def department_resource(kind: str, department: Department, name: str = "") -> Resource:
    """Return the resource for a row of `kind` that will be created in `department`."""
    return Resource(type=kind, name=name, department=department.slug)


def model_resource(model: Model) -> Resource:
    return Resource(
        type="model",
        id=str(model.pk),
        name=model.name,
        department=model.department.slug,
        attributes={"shared": model.shared, "task": model.task},
    )


def version_resource(version: ModelVersion) -> Resource:
    return Resource(
        type="version",
        id=str(version.pk),
        name=str(version),
        department=version.model.department.slug,
        attributes={"shared": version.model.shared},
    )


def dataset_resource(dataset: Dataset) -> Resource:
    return Resource(
        type="dataset",
        id=str(dataset.pk),
        name=dataset.name,
        department=dataset.department.slug,
        attributes={"classification": dataset.classification, "task": dataset.task},
    )


def knowledge_resource(base: KnowledgeBase) -> Resource:
    return Resource(
        type="knowledge",
        id=str(base.pk),
        name=base.name,
        department=base.department.slug,
        attributes={"departments": [department.slug for department in base.departments.all()]},
    )


def document_resource(version: DocumentVersion) -> Resource:
    """Return the resource for a document version, which may be unsaved."""
    base = version.document.base
    return Resource(
        type="document",
        id=str(version.pk or ""),
        name=str(version),
        department=base.department.slug,
        attributes={
            "departments": [department.slug for department in base.departments.all()],
            "classification": version.classification,
        },
    )


def intake_resource(intake: Intake) -> Resource:
    return Resource(
        type="intake",
        id=str(intake.pk),
        department=intake.model.department.slug,
        attributes={"state": intake.state},
    )


def release_resource(release: Release) -> Resource:
    return Resource(
        type="release",
        id=str(release.pk),
        department=release.department.slug,
        attributes={
            "state": release.state,
            "tier": release.tier,
            "environment": release.environment,
            "visibility": release.visibility,
            "departments": [department.slug for department in release.departments.all()],
        },
    )


def model_subject(model: Model) -> Subject:
    return Subject(type="model", id=str(model.pk), name=model.name)


def version_subject(version: ModelVersion) -> Subject:
    return Subject(type="version", id=str(version.pk), name=str(version))


def dataset_subject(dataset: Dataset) -> Subject:
    return Subject(type="dataset", id=str(dataset.pk), name=dataset.name)


def dataset_version_subject(version: DatasetVersion) -> Subject:
    return Subject(type="dataset_version", id=str(version.pk), name=str(version))


def knowledge_subject(base: KnowledgeBase) -> Subject:
    return Subject(type="knowledge", id=str(base.pk), name=base.name)


def document_subject(version: DocumentVersion) -> Subject:
    return Subject(type="document", id=str(version.pk), name=str(version))


def evaluation_subject(evaluation: Evaluation) -> Subject:
    return Subject(type="evaluation", id=str(evaluation.pk), name=str(evaluation))


def intake_subject(intake: Intake) -> Subject:
    return Subject(type="intake", id=str(intake.pk), name=str(intake))


def release_subject(release: Release) -> Subject:
    return Subject(type="release", id=str(release.pk), name=str(release))
