"""One version of a document: its text, opened at a passage, and the answers that used it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse

from assay.portal.access import may
from assay.portal.forms.knowledge import DocumentForm, DocumentRecallForm
from assay.portal.http import ActionScreen, Screen, cleaned, number_in
from assay.portal.views.knowledge import index_outlook
from governance.errors import NotFound
from governance.permissions import Action
from governance.principals import Principal
from governance.usage.selectors import answers_from_source
from registry.knowledge.documents import document_draft_delete, document_version_recall
from registry.knowledge.models import DocumentState, DocumentVersion
from registry.knowledge.selectors import (
    document_read,
    document_version_get,
    document_versions_visible_to,
    may_read,
    same_text,
)
from workers.jobs.knowledge import current_index_job, document_publish_request

WINDOW = 12_000
_BEFORE = 2_000
ANSWERS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class TextWindow:
    """A window of a text: a marked passage, and the text before and after it. `earlier` and `later`
    are the offsets of the neighboring windows, None at an end."""

    before: str
    marked: str
    after: str
    start: int
    end: int
    earlier: int | None
    later: int | None


def version_of(actor: Principal, name: str, id: int) -> DocumentVersion:  # noqa: A002
    """Return the document version, which must be of the knowledge base `name`. Raises NotFound."""
    version = document_version_get(actor=actor, id=id)
    if version.document.base.name != name:
        raise NotFound(f"{name[:80]} has no document version {id}.")
    return version


def text_window(actor: Principal, version: DocumentVersion, start: int, end: int) -> TextWindow:
    """Return the text around the characters from `start` to `end`, with these marked."""
    begin = max(0, start - _BEFORE) if end > start else start
    read = document_read(actor=actor, version=version, start=begin, end=begin + WINDOW)
    first = max(0, min(start, read.end) - read.start)
    last = max(first, min(end, read.end) - read.start)
    return TextWindow(
        before=read.text[:first],
        marked=read.text[first:last],
        after=read.text[last:],
        start=read.start,
        end=read.end,
        earlier=max(0, read.start - WINDOW) if read.start > 0 else None,
        later=read.end if read.end < version.characters else None,
    )


class DocumentPage(Screen):
    """One version: `?start=&end=` opens it at a passage."""

    template_name = "portal/knowledge/document.html"

    def context(self, *, name: str, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        version = version_of(self.actor, name, id)
        base = version.document.base
        readable = may_read(self.actor, version)
        scope = {"kind": "document", "department": base.department.slug}
        attributes = {"classification": version.classification}
        answers, rows = answers_from_source(self.actor, version.pk)
        may_recall = may(self.actor, Action.KNOWLEDGE_RECALL, attributes=attributes, **scope)
        in_force = version.state in (DocumentState.CURRENT, DocumentState.SUPERSEDED)
        return {
            "version": version,
            "base": base,
            "versions": document_versions_visible_to(self.actor).filter(document=version.document),
            "shown": self.text_window(version) if readable else None,
            "answers": answers,
            "records": rows[:ANSWERS_SHOWN],
            "may_change": may(
                self.actor, Action.KNOWLEDGE_CREATE, kind="knowledge",
                department=base.department.slug,
            ),
            "may_recall": may_recall and in_force,
            "form": DocumentForm(initial={"classification": version.classification}),
        }  # fmt: skip

    def text_window(self, version: DocumentVersion) -> TextWindow:
        start, end = (number_in(self.request.GET, name) or 0 for name in ("start", "end"))
        return text_window(self.actor, version, start, end)


class DocumentPublish(DocumentPage, ActionScreen):
    """Publish a draft."""

    def act(self, *, name: str, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        version_of(self.actor, name, id)
        version = document_publish_request(actor=self.actor, version_id=id)
        outlook = index_outlook(current_index_job(version.document.base_id))
        return self.done(
            f"{version} is in force; the index {outlook}.", "portal:knowledge_base", name=name
        )


class DocumentDelete(DocumentPage, ActionScreen):
    """Delete a draft."""

    def act(self, *, name: str, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        version_of(self.actor, name, id)
        document_draft_delete(actor=self.actor, version_id=id)
        return self.done("The draft is deleted.", "portal:knowledge_base", name=name)


class DocumentRecall(ActionScreen):
    """Recall a version permanently, after showing how many answers used it."""

    template_name = "portal/knowledge/recall.html"

    def form(self) -> DocumentRecallForm:
        return DocumentRecallForm(self.request.POST or None)

    def context(self, *, name: str, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        version = version_of(self.actor, name, id)
        answers, _ = answers_from_source(self.actor, version.pk)
        return {
            "version": version,
            "base": version.document.base,
            "answers": answers,
            "same": same_text(self.actor, version),
            "form": self.form(),
        }

    def act(self, *, name: str, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        version_of(self.actor, name, id)
        values = cleaned(self.form())
        version = document_version_recall(actor=self.actor, version_id=id, reason=values["reason"])
        return self.done(
            f"{version} is recalled; searches no longer find it.",
            "portal:knowledge_document",
            name=name,
            id=id,
        )
