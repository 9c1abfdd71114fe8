"""Knowledge bases: the list, one with its documents, index and sharing."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse

from assay.portal.access import departments_where, may
from assay.portal.forms.knowledge import DocumentForm, KnowledgeBaseForm, ShareForm
from assay.portal.http import ActionScreen, cleaned, page_of, posted
from assay.portal.lists import ListScreen
from governance.english import counted
from governance.people.models import Department
from governance.permissions import Action
from registry.knowledge.documents import document_version_add, document_version_allow
from registry.knowledge.models import KnowledgeBase
from registry.knowledge.selectors import (
    index_is_stale,
    knowledge_base_get,
    knowledge_bases_visible_to,
    newest_versions,
)
from registry.knowledge.services import (
    EMBEDDINGS,
    knowledge_base_create,
    knowledge_base_share,
)
from registry.versions.models import VersionKind, VersionState
from registry.versions.selectors import versions_visible_to
from workers.deployments.playground import playground_trials
from workers.jobs.knowledge import current_index_job, index_request
from workers.jobs.models import Job, JobState

LIVE = (JobState.QUEUED, JobState.RUNNING, JobState.FINISHING)


class KnowledgeBases(ListScreen):
    """Every knowledge base that the person may see."""

    template_name = "portal/knowledge/bases.html"
    title = "Knowledge bases"
    lead = "Documents that applications search, and answer from with citations."
    columns = "Knowledge base | Department | Embedding version | # Documents | # Passages | Indexed"
    creates = (Action.KNOWLEDGE_CREATE, "knowledge")

    def rows(self) -> QuerySet[KnowledgeBase]:
        return knowledge_bases_visible_to(self.actor).order_by("name")


class KnowledgeBaseNew(ActionScreen):
    """The form for a new knowledge base."""

    template_name = "portal/form.html"

    def form(self) -> KnowledgeBaseForm:
        embeddings = (
            versions_visible_to(self.actor)
            .filter(model__task=EMBEDDINGS, state=VersionState.TRUSTED)
            .exclude(kind=VersionKind.HOSTED)
        )
        return KnowledgeBaseForm(
            self.request.POST or None,
            departments=departments_where(self.actor, Action.KNOWLEDGE_CREATE, kind="knowledge"),
            embeddings=embeddings.order_by("-pk"),
        )

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {
            "form": self.form(),
            "title": "New knowledge base",
            "lead": "Documents that applications search, and answer from with citations.",
            "submit": "Create knowledge base",
            "back": ("portal:knowledge_bases", "Knowledge bases"),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        base = knowledge_base_create(actor=self.actor, **cleaned(self.form()))
        return self.done(
            f"{base.name} is created; add its first document.",
            "portal:knowledge_base",
            name=base.name,
        )


class KnowledgeBasePage(ActionScreen):
    """One knowledge base: its documents, the state of its index, and a question to try."""

    upload_limit: str | None = "DOCUMENT_MAX_BYTES"
    template_name = "portal/knowledge/base.html"

    def allow_body(self, *, name: str, **kwargs: Any) -> None:
        document_version_allow(
            actor=self.actor, base=knowledge_base_get(actor=self.actor, name=name)
        )

    def form(self) -> DocumentForm:
        if self.request.method == "POST":
            return DocumentForm(self.request.POST, self.request.FILES)
        return DocumentForm()

    def context(self, *, name: str, **kwargs: Any) -> dict[str, Any]:
        base = knowledge_base_get(actor=self.actor, name=name)
        owner = base.department.slug
        job = current_index_job(base.pk)
        may_change = may(self.actor, Action.KNOWLEDGE_CREATE, kind="knowledge", department=owner)
        return {
            "base": base,
            "page": page_of(self.request, newest_versions(self.actor, base)),
            "form": self.form(),
            "stale": index_is_stale(base),
            "job": job if may_change else None,
            "live": job is not None and job.state in LIVE,
            "paused": job is not None and job.state == JobState.PAUSED,
            "may_change": may_change,
            "share": self.share_form(base) if may_change else None,
            "trial": self.trial(base),
        }

    def share_form(self, base: KnowledgeBase) -> ShareForm:
        others = Department.objects.exclude(pk=base.department_id).order_by("name")
        chosen = [department.pk for department in base.departments.all()]
        return ShareForm(
            posted(self.request, "knowledge_share"),
            departments=others,
            initial={"departments": chosen},
        )

    def trial(self, base: KnowledgeBase) -> Any:
        """Return a deployment that embeds questions for the base, if the person may use one."""
        if base.index is None:
            return None
        digest = base.index.embedding_digest
        trials = playground_trials(self.actor)
        matches = (e for e in trials if e.deployment.release.version.digest == digest)
        return next(matches, None)

    def act(self, *, name: str, **kwargs: Any) -> HttpResponse:
        base = knowledge_base_get(actor=self.actor, name=name)
        version = document_version_add(actor=self.actor, base=base, **cleaned(self.form()))
        return self.done(
            f"{version} is a draft: check its text, then publish it.",
            "portal:knowledge_document",
            name=name,
            id=version.pk,
        )


def index_outlook(job: Job | None) -> str:
    """Return the end of a sentence that says when an index is built."""
    if job is not None and job.state == JobState.PAUSED:
        return "is built after its paused job is resumed"
    return "is being built"


class KnowledgeIndexBuild(KnowledgeBasePage):
    """Queue a job that builds the index."""

    upload_limit = None

    def form(self) -> DocumentForm:
        return DocumentForm()

    def act(self, *, name: str, **kwargs: Any) -> HttpResponse:
        base = knowledge_base_get(actor=self.actor, name=name)
        job = index_request(actor=self.actor, base=base)
        return self.done(f"The index {index_outlook(job)}.", "portal:knowledge_base", name=name)


class KnowledgeBaseShare(KnowledgeBasePage):
    """Set the other departments that may search a knowledge base."""

    upload_limit = None

    def form(self) -> DocumentForm:
        return DocumentForm()

    def act(self, *, name: str, **kwargs: Any) -> HttpResponse:
        base = knowledge_base_get(actor=self.actor, name=name)
        form = ShareForm(self.request.POST, departments=Department.objects.all())
        chosen = cleaned(form)["departments"]
        knowledge_base_share(actor=self.actor, base=base, departments=list(chosen))
        return self.done(
            f"{base.name} is shared with {counted(len(chosen), 'department')}.",
            "portal:knowledge_base",
            name=name,
        )
