"""Queue jobs that index a knowledge base, and register the indexes that workers built."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F, QuerySet

from governance.audit.services import audit_record
from governance.errors import WrongState
from governance.notify import notify
from governance.permissions import Action
from governance.policy.services import SNAPSHOT_CHANNEL, authorize
from governance.principals import Principal, background, service_principal
from registry.knowledge.documents import document_version_publish
from registry.knowledge.models import DocumentVersion, KnowledgeBase, KnowledgeIndex
from registry.manifests import Manifest
from registry.resources import knowledge_resource, knowledge_subject
from registry.storage.store import has_version
from registry.versions.models import VersionState
from workers.jobs.models import Job, JobKind, JobState
from workers.jobs.services import job_add
from workers.jobs.states import TERMINAL

_CONTROLLER = service_principal("controller")


@transaction.atomic
def document_publish_request(*, actor: Principal, version_id: int) -> DocumentVersion:
    """Publish a draft and queue the index that includes it.

    Raises:
        DomainError: see `document_version_publish` and `index_request`.
    """
    version = document_version_publish(actor=actor, version_id=version_id)
    index_request(actor=actor, base=version.document.base)
    return version


@transaction.atomic
def index_request(*, actor: Principal, base: KnowledgeBase) -> Job:
    """Queue an index build, or return the queued or paused job that will serve this request too.

    Workers cannot claim that job before the caller's transaction ends, so it reads the changes. A
    paused job stays paused.

    Raises:
        NotFound, NotPermitted: the policy denies it, or the actor is not a person.
        WrongState: the embedding version is recalled.
        QuotaExceeded: a budget of the department has no room left.
    """
    decision = authorize(
        actor=actor, action=Action.KNOWLEDGE_CREATE, resource=knowledge_resource(base)
    )
    locked = KnowledgeBase.objects.select_for_update(of=("self",)).get(pk=base.pk)
    state = locked.embedding_version.state
    if state != VersionState.TRUSTED:
        raise WrongState(
            f"{base.embedding_name}, which embeds {base.name}, is {state}.",
            hint="Create a knowledge base with another embedding version.",
        )
    # Queued and paused jobs read the documents at their next claim. Prefer a queued one.
    unclaimed = index_jobs(base.pk).filter(state__in=(JobState.QUEUED, JobState.PAUSED))
    ordered = unclaimed.order_by("-state", "-created_at")
    waiting = ordered.select_for_update(of=("self",)).first()
    if waiting is not None:
        return waiting
    return job_add(
        actor=actor,
        kind=JobKind.INDEX,
        department=base.department,
        title=f"Index {base.name}",
        spec={
            "base": base.pk,
            "base_name": base.name,
            "embedding": base.embedding_version_id,
            "embedding_name": base.embedding_name,
            "embedding_digest": base.embedding_digest,
            "task": locked.embedding_version.model.task,
        },
        decision=decision,
    )


def current_index_job(base_id: int) -> Job | None:
    """Return the newest unfinished index job of the base, or else the newest one."""
    jobs = index_jobs(base_id)
    return jobs.exclude(state__in=TERMINAL).first() or jobs.first()


def index_jobs(base_id: int) -> QuerySet[Job]:
    """Return the index jobs of the base, newest first."""
    return Job.objects.filter(kind=JobKind.INDEX, spec__base=base_id).order_by("-created_at")


def index_register(job: Job) -> str:
    """Make the stored output of a worker the base's index, unless a newer one is in use.

    Return the reason of a refusal, or an empty string, for `job_finish`.
    """
    result = job.result or {}
    manifest = Manifest.from_json(result["manifest"])
    base = (
        KnowledgeBase.objects.select_for_update(of=("self",))
        .select_related("department", "embedding_version", "index")
        .get(pk=job.spec["base"])
    )
    # A job that ran before revisions were recorded has revision 0.
    revision = int(result.get("revision", 0))
    if not 0 <= revision <= base.revision:
        return f"The worker states revision {revision} of {base.name}, which it never had."
    if base.embedding_version.state != VersionState.TRUSTED:
        return f"{base.embedding_name} was recalled meanwhile; the index is not used."
    if base.index is not None and revision < base.index.revision:
        return f"{base.name} has a newer index in use; this one is not used."
    documents = DocumentVersion.objects.filter(document__base=base, pk__in=result["versions"])
    if documents.count() != len(result["versions"]):
        return f"The worker states documents of {job.title} that {base.name} does not have."
    if not has_version(manifest.digest):
        return f"The artifact store does not have the files of {job.title}."
    index = KnowledgeIndex.objects.create(
        base=base,
        digest=manifest.digest,
        manifest=manifest.to_json(),
        embedding_version=base.embedding_version,
        embedding_digest=base.embedding_digest,
        dimensions=result["dimensions"],
        chunks=result["chunks"],
        reused=result["reused"],
        size_bytes=manifest.size_bytes,
        versions=result["versions"],
        revision=revision,
        job_id=job.pk,
    )
    KnowledgeBase.objects.filter(pk=base.pk).update(index=index, revision=F("revision") + 1)
    with background(f"job-{job.pk}", _CONTROLLER):
        audit_record(
            actor=_CONTROLLER,
            action="knowledge:index",
            subject=knowledge_subject(base),
            department=base.department.slug,
            data={
                "digest": index.digest,
                "embedding_digest": index.embedding_digest,
                "chunks": index.chunks,
                "reused": index.reused,
                "documents": index.versions,
            },
        )
    transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    job.result = {**result, "index": index.pk, "digest": index.digest}
    return ""
