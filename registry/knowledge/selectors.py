"""Queries for knowledge bases, their documents and texts."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery

from governance.errors import NotFound, Unavailable
from governance.permissions import Action
from governance.policy.context import with_base
from governance.policy.engine import decide
from governance.policy.selectors import visible_to
from governance.policy.services import active_policy, authorize
from governance.principals import Principal
from registry.knowledge.models import DocumentState, DocumentVersion, KnowledgeBase
from registry.manifests import ManifestMismatch
from registry.resources import document_resource, knowledge_resource
from registry.storage import store


def knowledge_bases_visible_to(actor: Principal) -> QuerySet[KnowledgeBase]:
    """Return the bases that `actor` may see, with `current_count`, their current documents."""
    rows = KnowledgeBase.objects.select_related("department", "created_by", "index")
    rows = rows.prefetch_related("departments")
    current = Count(
        "documents", filter=Q(documents__versions__state=DocumentState.CURRENT), distinct=True
    )
    return visible_to(actor, Action.KNOWLEDGE_VIEW, rows, resource_type="knowledge").annotate(
        current_count=current
    )


def knowledge_base_get(*, actor: Principal, name: str) -> KnowledgeBase:
    """Return a base. Raises NotFound if it does not exist, or `actor` may not see it."""
    rows = knowledge_bases_visible_to(actor)
    base = None if "\x00" in name else rows.filter(name=name).first()
    if base is None:
        raise NotFound(f"Knowledge base {name[:80]!r} does not exist, or you may not see it.")
    return base


def document_versions_visible_to(actor: Principal) -> QuerySet[DocumentVersion]:
    """Return the document versions whose existence `actor` may know; see `may_read` for their
    texts.

    Drafts are visible only to people who may add documents to the base, and publish them.
    """
    rows = DocumentVersion.objects.select_related(
        "document__base__department", "document__owner", "created_by", "recalled_by"
    ).prefetch_related("document__base__departments")
    seen = visible_to(actor, Action.KNOWLEDGE_VIEW, rows, resource_type="document")
    bases = KnowledgeBase.objects.all()
    own = visible_to(actor, Action.KNOWLEDGE_CREATE, bases, resource_type="knowledge")
    return seen.filter(~Q(state=DocumentState.DRAFT) | Q(document__base__in=own.values("pk")))


def newest_versions(actor: Principal, base: KnowledgeBase) -> QuerySet[DocumentVersion]:
    """Return each document's newest version that `actor` may know of, in order of title."""
    mine = document_versions_visible_to(actor).filter(document__base=base)
    newest = mine.filter(document=OuterRef("document")).order_by("-number").values("pk")[:1]
    return mine.filter(pk=Subquery(newest)).order_by("document__title", "document_id")


def document_version_get(*, actor: Principal, id: int) -> DocumentVersion:  # noqa: A002
    """Return a version. Raises NotFound if it does not exist, or `actor` may not know of it."""
    version = document_versions_visible_to(actor).filter(pk=id).first()
    if version is None:
        raise _no_version(id)
    return version


def _no_version(id: int) -> NotFound:  # noqa: A002
    return NotFound(f"Document version {id} does not exist, or you may not see it.")


def may_read(actor: Principal, version: DocumentVersion) -> bool:
    """Return whether `actor` may read the text. Reading a recalled version requires the permission
    to recall documents; reading a draft requires the permission to publish it."""
    policy, resource, context = active_policy(), document_resource(version), with_base(None)
    if not decide(policy, actor, Action.KNOWLEDGE_SEARCH, resource, context).allowed:
        return False
    if version.state == DocumentState.DRAFT:
        base = knowledge_resource(version.document.base)
        return decide(policy, actor, Action.KNOWLEDGE_CREATE, base, context).allowed
    recalled = version.state == DocumentState.RECALLED
    return not recalled or decide(policy, actor, Action.KNOWLEDGE_RECALL, resource, context).allowed


@dataclass(frozen=True, slots=True)
class Reading:
    """A window of a version's text, from character `start` to `end` of the whole."""

    version: DocumentVersion
    text: str
    start: int
    end: int


def document_read(*, actor: Principal, version: DocumentVersion, start: int, end: int) -> Reading:
    """Return the text from `start` to `end`.

    Raises:
        NotFound, NotPermitted: the policy denies reading it, also because it is recalled or a
        draft.
        Unavailable: the text is missing from the store, or was changed there.
    """
    resource = document_resource(version)
    authorize(actor=actor, action=Action.KNOWLEDGE_SEARCH, resource=resource)
    if version.state == DocumentState.DRAFT and not may_read(actor, version):
        raise _no_version(version.pk)
    if version.state == DocumentState.RECALLED:
        authorize(actor=actor, action=Action.KNOWLEDGE_RECALL, resource=resource)
    text = stored_text(version.text_sha256)
    start, end = max(0, min(start, len(text))), max(0, min(end, len(text)))
    return Reading(version, text[start:end], start, end)


def stored_text(text_sha256: str) -> str:
    """Return the text with this SHA-256 after checking it.

    Raises:
        Unavailable: the text is missing from the store, or was changed there.
    """
    hint = store.RESTORE
    try:
        return store.file_bytes(text_sha256).decode()
    except OSError as error:
        raise Unavailable("The document's text is not in the artifact store.", hint=hint) from error
    except ManifestMismatch as error:
        raise Unavailable("The document's text in the store has other bytes.", hint=hint) from error


def same_text(actor: Principal, version: DocumentVersion) -> QuerySet[DocumentVersion]:
    """Return the other current versions with exactly the text of `version`, in all knowledge bases
    that `actor` may see. A recall of one does not affect the others."""
    rows = document_versions_visible_to(actor).filter(text_sha256=version.text_sha256)
    return rows.filter(state=DocumentState.CURRENT).exclude(pk=version.pk).order_by("pk")


def current_versions(base: KnowledgeBase) -> QuerySet[DocumentVersion]:
    """Return the current version of each document of `base`, which an index contains, by ID."""
    rows = DocumentVersion.objects.filter(document__base=base, state=DocumentState.CURRENT)
    return rows.order_by("pk")


def index_is_stale(base: KnowledgeBase) -> bool:
    """Return whether the index lacks current documents, or contains others."""
    indexed = set() if base.index is None else set(base.index.versions)
    return indexed != set(current_versions(base).values_list("pk", flat=True))
