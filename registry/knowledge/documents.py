"""Services for document versions: add, publish, recall, and delete a draft."""

from __future__ import annotations

import hashlib
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone

from governance.audit.services import audit_record
from governance.bounds import FILENAME_MAX
from governance.errors import NotFound, TooLarge, WrongState
from governance.people.models import Person
from governance.people.proof import proof_facts
from governance.permissions import Action
from governance.policy.services import authorize, authorize_binding
from governance.principals import Principal
from governance.state_machine import StateMachine
from registry.datasets.models import Classification
from registry.datasets.services import UploadedFile
from registry.knowledge.extraction import extract_text
from registry.knowledge.models import (
    REASON_MAX,
    TITLE_MAX,
    Document,
    DocumentState,
    DocumentVersion,
    KnowledgeBase,
)
from registry.knowledge.selectors import document_versions_visible_to
from registry.knowledge.services import base_changed
from registry.knowledge.visible import visible_line
from registry.resources import (
    acting_person,
    document_resource,
    document_subject,
    knowledge_resource,
)
from registry.storage import store
from registry.validation import checked_choice, checked_text

MAX_DOCUMENTS = 5_000
ALLOWED_TRANSITIONS: dict[DocumentState, frozenset[DocumentState]] = {
    DocumentState.DRAFT: frozenset({DocumentState.CURRENT}),
    DocumentState.CURRENT: frozenset({DocumentState.SUPERSEDED, DocumentState.RECALLED}),
    DocumentState.SUPERSEDED: frozenset({DocumentState.RECALLED}),
    DocumentState.RECALLED: frozenset(),
}
DOCUMENT_STATES = StateMachine(
    model=DocumentVersion,
    noun="document",
    table=ALLOWED_TRANSITIONS,
    hint="add a corrected version",
    label=str,
)


def document_version_allow(*, actor: Principal, base: KnowledgeBase) -> Person:
    """Return the person who may add documents to the knowledge base.

    Raises:
        NotFound, NotPermitted: the policy denies it, or the actor is not a person.
    """
    resource = knowledge_resource(base)
    authorize(actor=actor, action=Action.KNOWLEDGE_CREATE, resource=resource)
    return acting_person(actor)


def document_version_add(
    *,
    actor: Principal,
    base: KnowledgeBase,
    file: UploadedFile,
    classification: str,
    title: str = "",
    replaces: int | None = None,
) -> DocumentVersion:
    """Extract the text of a file into a draft: the next version of the document of version ID
    `replaces`, or a new document called `title`, by default the file's name.

    Raises:
        InvalidInput, TooLarge: the file cannot be read, has no text, or exceeds a bound.
        NotFound, NotPermitted: the policy denies it, or the base has no version `replaces`.
        WrongState: the base is full, has such a document, or these bytes were recalled from it.
        QuotaExceeded, Unavailable: too many uploads are being read.
    """
    checked_choice(classification, list(Classification.values), field="classification")
    visible_name = visible_line(Path(file.name or "").name)
    filename = checked_text(visible_name, field="file", limit=FILENAME_MAX)
    title = visible_line(title or Path(filename).stem)
    title = checked_text(title, field="title", limit=TITLE_MAX)
    person = document_version_allow(actor=actor, base=base)
    resource = knowledge_resource(base)
    _existing(actor, base, replaces)
    with store.incoming() as scratch:
        source = scratch / "upload"
        sha256, size = _receive(file, source)
        text = extract_text(source, Path(filename).suffix.lower(), owner=str(base.department_id))
        text_file = scratch / "text"
        text_file.write_text(text, encoding="utf-8")
        text_sha256 = hashlib.sha256(text.encode()).hexdigest()
        # Store files before the database row, which must never name missing bytes.
        store.file_put(source, sha256)
        store.file_put(text_file, text_sha256)
        with transaction.atomic():
            # Check again, because reading may have taken long: permissions or the document may
            # have changed.
            decision = authorize(actor=actor, action=Action.KNOWLEDGE_CREATE, resource=resource)
            KnowledgeBase.objects.select_for_update().get(pk=base.pk)
            document = _existing(actor, base, replaces)
            _refuse_recalled(base, sha256, text_sha256)
            _refuse_known(base, document, sha256)
            if document is None:
                document = _document(base, title, person.pk)
            last = document.versions.aggregate(last=Max("number"))["last"] or 0
            version = DocumentVersion.objects.create(
                document=document,
                number=last + 1,
                filename=filename,
                sha256=sha256,
                size_bytes=size,
                text_sha256=text_sha256,
                characters=len(text),
                classification=classification,
                created_by=person,
            )
            audit_record(
                actor=actor,
                action="document:add",
                subject=document_subject(version),
                department=base.department.slug,
                data={
                    "base": base.name,
                    "sha256": sha256,
                    "text_sha256": text_sha256,
                    "classification": classification,
                },
                decision=decision,
            )
    return version


def _existing(actor: Principal, base: KnowledgeBase, version_id: int | None) -> Document | None:
    if version_id is None:
        return None
    rows = document_versions_visible_to(actor).filter(document__base=base)
    version = rows.filter(pk=version_id).first()
    if version is None:
        raise NotFound(f"{base.name} has no document version {version_id}.")
    return version.document


def _document(base: KnowledgeBase, title: str, owner: int) -> Document:
    if base.documents.count() >= MAX_DOCUMENTS:
        raise WrongState(
            f"{base.name} has {MAX_DOCUMENTS:,} documents, the maximum of a knowledge base.",
            hint="Create another knowledge base.",
        )
    document, created = Document.objects.get_or_create(
        base=base, title=title, defaults={"owner_id": owner}
    )
    if not created:
        raise WrongState(
            f"{base.name} already has a document called {title!r}.",
            code="already_exists",
            hint="Add a version to it, or choose another title.",
        )
    return document


def _refuse_recalled(base: KnowledgeBase, sha256: str, text_sha256: str) -> None:
    """Raise WrongState for recalled bytes, and for other bytes with a recalled text."""
    same = DocumentVersion.objects.filter(Q(sha256=sha256) | Q(text_sha256=text_sha256))
    recalled = same.filter(document__base=base, state=DocumentState.RECALLED)
    if version := recalled.select_related("document").first():
        raise WrongState(
            f"This is the text of {version}, which was recalled from {base.name}.",
            code="recalled_document",
            hint="Correct the document first.",
        )


def _refuse_known(base: KnowledgeBase, document: Document | None, sha256: str) -> None:
    same = DocumentVersion.objects.filter(document__base=base, sha256=sha256)
    version = same.filter(document=document).exclude(state=DocumentState.SUPERSEDED).first()
    if document is not None and version is not None:
        raise WrongState(
            f"{version} has exactly these bytes; no new version was created.",
            code="already_exists",
        )


def _receive(file: UploadedFile, target: Path) -> tuple[str, int]:
    limit: int = settings.DOCUMENT_MAX_BYTES
    size, digest = 0, hashlib.sha256()
    with target.open("wb") as output:
        for chunk in file.chunks():
            size += len(chunk)
            if size > limit:
                raise TooLarge(
                    f"The document is larger than {limit:,} bytes.",
                    hint="ASSAY_DOCUMENT_MAX_BYTES sets the limit.",
                )
            digest.update(chunk)
            output.write(chunk)
    return digest.hexdigest(), size


def document_version_publish(*, actor: Principal, version_id: int) -> DocumentVersion:
    """Publish a draft, and supersede the current version. Searches find it after the next indexing.

    Raises:
        NotFound, NotPermitted: the policy denies it.
        WrongState: the version is not a draft, or its text was recalled from the base.
    """
    with transaction.atomic():
        version = _locked(version_id)
        decision = authorize(
            actor=actor,
            action=Action.KNOWLEDGE_CREATE,
            resource=knowledge_resource(version.document.base),
        )
        DOCUMENT_STATES.require(version, DocumentState.CURRENT)
        _refuse_recalled(version.document.base, version.sha256, version.text_sha256)
        before = version.document.versions.filter(state=DocumentState.CURRENT).first()
        if before is not None:
            DOCUMENT_STATES.save_state(before, DocumentState.SUPERSEDED, [])
        version.published_at = timezone.now()
        DOCUMENT_STATES.move(
            version,
            DocumentState.CURRENT,
            fields=["published_at"],
            actor=actor,
            action="document:publish",
            subject=document_subject(version),
            department=version.document.base.department.slug,
            data={
                "base": version.document.base.name,
                "sha256": version.sha256,
                "supersedes": None if before is None else before.pk,
            },
            decision=decision,
        )
        base_changed(version.document.base)
    return version


def document_version_recall(*, actor: Principal, version_id: int, reason: str) -> DocumentVersion:
    """Recall a version permanently: searches and answers stop using it at the commit.

    Raises:
        InvalidInput: the reason is empty or over 1,000 characters.
        NotFound, NotPermitted: the policy denies it, or a second factor is missing.
        WrongState: the version is a draft, or already recalled.
    """
    with transaction.atomic():
        version = _locked(version_id)
        decision = authorize_binding(
            actor=actor,
            action=Action.KNOWLEDGE_RECALL,
            resource=document_resource(version),
            doing=f"recalling {version}",
        )
        reason = checked_text(reason, field="reason", limit=REASON_MAX)
        version.recalled_at = timezone.now()
        version.recalled_by = acting_person(actor)
        version.recall_reason = reason
        DOCUMENT_STATES.move(
            version,
            DocumentState.RECALLED,
            fields=["recalled_at", "recalled_by", "recall_reason"],
            actor=actor,
            action="document:recall",
            subject=document_subject(version),
            department=version.document.base.department.slug,
            reason=reason,
            data={
                "base": version.document.base.name,
                "sha256": version.sha256,
                **proof_facts(actor.proof),
            },
            decision=decision,
        )
        base_changed(version.document.base)
    return version


def document_draft_delete(*, actor: Principal, version_id: int) -> None:
    """Delete a version that was never published, and its document if it has no other.

    Raises:
        NotFound, NotPermitted: the policy denies it.
        WrongState: the version is not a draft.
    """
    with transaction.atomic():
        version = _locked(version_id)
        document, base = version.document, version.document.base
        decision = authorize(
            actor=actor, action=Action.KNOWLEDGE_CREATE, resource=knowledge_resource(base)
        )
        if version.state != DocumentState.DRAFT:
            raise WrongState(f"{version} is {version.state}; only a draft can be deleted.")
        audit_record(
            actor=actor,
            action="document:delete",
            subject=document_subject(version),
            department=base.department.slug,
            data={"base": base.name, "sha256": version.sha256},
            decision=decision,
        )
        version.delete()
        if not document.versions.exists():
            document.delete()


def _locked(version_id: int) -> DocumentVersion:
    """Lock the base and the version, in this order. Raises NotFound."""
    rows = DocumentVersion.objects.select_related("document__base__department")
    version = rows.filter(pk=version_id).first()
    if version is None:
        raise NotFound("There is no such document.")
    KnowledgeBase.objects.select_for_update().get(pk=version.document.base_id)
    locked = rows.select_for_update(of=("self",)).filter(pk=version_id).first()
    if locked is None:
        raise NotFound("The document was deleted meanwhile.")
    return locked
