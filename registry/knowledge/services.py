"""Services for knowledge bases: create and share."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.db.models import F

from governance.audit.services import audit_record
from governance.bounds import DESCRIPTION_MAX
from governance.errors import InvalidInput, NotFound, WrongState
from governance.notify import notify
from governance.people.models import Department
from governance.people.proof import proof_facts
from governance.permissions import Action
from governance.policy.services import SNAPSHOT_CHANNEL, authorize, authorize_binding
from governance.principals import Principal
from registry.knowledge.chunks import CHUNK_DEFAULT, CHUNK_MAX, CHUNK_MIN, OVERLAP_DEFAULT
from registry.knowledge.models import TITLE_MAX, KnowledgeBase
from registry.naming import create_named
from registry.resources import (
    acting_person,
    department_resource,
    knowledge_resource,
    knowledge_subject,
)
from registry.validation import checked_name, checked_text
from registry.versions.models import ModelVersion, VersionKind, VersionState
from registry.versions.selectors import versions_visible_to

EMBEDDINGS = "embeddings"


def knowledge_base_create(
    *,
    actor: Principal,
    name: str,
    department: Department,
    title: str,
    embedding_version: ModelVersion,
    description: str = "",
    chunk_characters: int = CHUNK_DEFAULT,
    overlap_characters: int = OVERLAP_DEFAULT,
) -> KnowledgeBase:
    """Create an empty knowledge base in `department`.

    Raises:
        InvalidInput: a field is malformed, or the version does not embed texts.
        NotFound, NotPermitted: the policy denies it, or the actor may not see the version.
        WrongState: the name is taken, or the version is recalled.
    """
    checked_name(name)
    title = checked_text(title, field="title", limit=TITLE_MAX)
    description = checked_text(
        description, field="description", limit=DESCRIPTION_MAX, required=False
    )
    _check_sizes(chunk_characters, overlap_characters)
    with transaction.atomic():
        decision = authorize(
            actor=actor,
            action=Action.KNOWLEDGE_CREATE,
            resource=department_resource("knowledge", department, name),
        )
        _check_embedding(actor, embedding_version)
        base = create_named(
            KnowledgeBase,
            name,
            department=department,
            title=title,
            description=description,
            embedding_version=embedding_version,
            embedding_name=str(embedding_version),
            embedding_digest=embedding_version.digest,
            chunk_characters=chunk_characters,
            overlap_characters=overlap_characters,
            created_by=acting_person(actor),
        )
        audit_record(
            actor=actor,
            action=Action.KNOWLEDGE_CREATE,
            subject=knowledge_subject(base),
            department=department.slug,
            data={
                "embedding": str(embedding_version),
                "embedding_digest": embedding_version.digest,
                "chunk_characters": chunk_characters,
                "overlap_characters": overlap_characters,
            },
            decision=decision,
        )
    return base


def _check_sizes(chunk: int, overlap: int) -> None:
    if not CHUNK_MIN <= chunk <= CHUNK_MAX:
        reason = f"From {CHUNK_MIN} to {CHUNK_MAX:,} characters."
        raise InvalidInput(
            f"A chunk of {chunk} characters is not possible.", fields={"chunk_characters": [reason]}
        )
    if not 0 <= overlap < chunk // 2:
        reason = "From 0 to less than half of a chunk."
        raise InvalidInput(
            f"An overlap of {overlap} characters is not possible.",
            fields={"overlap_characters": [reason]},
        )


def _check_embedding(actor: Principal, version: ModelVersion) -> None:
    if not versions_visible_to(actor).filter(pk=version.pk).exists():
        raise NotFound(f"Version {version.pk} does not exist, or you may not see it.")
    if version.model.task != EMBEDDINGS:
        reason = f"{version} is for {version.model.task}; choose a version for {EMBEDDINGS}."
        raise InvalidInput(reason, fields={"embedding_version": [reason]})
    if version.kind == VersionKind.HOSTED:
        reason = f"{version} is run by a provider. Choose a version whose weights Assay holds."
        raise InvalidInput(reason, fields={"embedding_version": [reason]})
    if version.state != VersionState.TRUSTED:
        raise WrongState(f"{version} is {version.state}; it cannot embed documents.")


def knowledge_base_share(
    *, actor: Principal, base: KnowledgeBase, departments: Sequence[Department]
) -> KnowledgeBase:
    """Set the other departments that may search `base`, within the policy, with immediate effect.

    Raises:
        InvalidInput: the owning department is among them.
        NotFound, NotPermitted: the policy denies it, or a second factor is missing.
    """
    slugs = sorted(department.slug for department in departments)
    if base.department.slug in slugs:
        reason = f"{base.name} belongs to {base.department.slug}; name other departments."
        raise InvalidInput(reason, fields={"departments": [reason]})
    with transaction.atomic():
        decision = authorize_binding(
            actor=actor,
            action=Action.KNOWLEDGE_CREATE,
            resource=knowledge_resource(base),
            doing=f"sharing {base.name}",
        )
        KnowledgeBase.objects.select_for_update().get(pk=base.pk)
        base.departments.set(departments)
        audit_record(
            actor=actor,
            action="knowledge:share",
            subject=knowledge_subject(base),
            department=base.department.slug,
            data={"departments": slugs, **proof_facts(actor.proof)},
            decision=decision,
        )
        base_changed(base)
    return base


def base_changed(base: KnowledgeBase) -> None:
    """Make gateways reload the base. The caller has locked its row."""
    KnowledgeBase.objects.filter(pk=base.pk).update(revision=F("revision") + 1)
    transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
