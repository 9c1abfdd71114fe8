"""Tasks of the signed-in person, for Home and the notifications."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import CharField, Count, Exists, Max, OuterRef, Q, Subquery
from django.db.models.functions import Cast
from django.urls import reverse
from django.utils import timezone

from assay.portal.access import departments_where, may, may_somewhere
from assay.portal.reads import after_reviews
from governance.database.narrow import narrowed
from governance.people.access_requests import access_requests_open
from governance.people.recoveries.models import RecoveryState
from governance.people.recoveries.selectors import recoveries_live
from governance.permissions import Action
from governance.policy.models import PolicyState, PolicyVersion
from governance.principals import Principal
from governance.reviews.inbox import reviews_assigned, reviews_awaiting
from governance.reviews.models import Review
from governance.reviews.threads.mentions import mentions_unseen
from registry.feedback.models import FeedbackState
from registry.feedback.selectors import feedback_visible_to
from registry.incidents.selectors import incidents_pressing
from registry.intake.models import IntakeState
from registry.intake.selectors import intakes_visible_to
from registry.releases.carrying import AGAIN
from registry.releases.drafts.selectors import release_drafts_visible_to
from registry.releases.emergency_access.models import EmergencyAccessState
from registry.releases.emergency_access.selectors import emergency_accesses_visible_to
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_to_repeat, releases_visible_to
from registry.releases.serving import OTHER_CODE
from registry.versions.models import VersionState
from registry.versions.selectors import versions_visible_to
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.selectors import deployments_visible_to
from workers.deployments.states import LIVE
from workers.jobs.models import JobState
from workers.jobs.selectors import jobs_visible_to
from workers.schedules.models import ScheduleState
from workers.schedules.selectors import schedules_visible_to

# Tasks of each kind; the page of the kind lists the rest.
SHOWN = 6
RECENT = timedelta(days=7)
# Columns of a release that its tasks name.
_RELEASE = ("environment", "deployment_name", "version__number", "version__model__name")


@dataclass(frozen=True, slots=True)
class Todo:
    """One thing to do. `tone` is bad, warn or info; `at` is when it is due or happened."""

    tone: str
    icon: str
    title: str
    detail: str
    href: str
    at: datetime | None = None
    due: bool = False


def todos_of(actor: Principal) -> list[Todo]:
    """Return the tasks of `actor`, the most urgent first; at most `SHOWN` of each kind.

    A source runs no query on its rows for people whose roles give them no such tasks.
    """
    if actor.person_id is None:
        return []
    tasks = [task for source in SOURCES for task in source(actor)]
    urgency = {"bad": 0, "warn": 1, "info": 2}
    return sorted(tasks, key=lambda task: urgency[task.tone])


def _href(name: str, *args: Any) -> str:
    return reverse(f"portal:{name}", args=args)


def _leads(actor: Principal) -> list[str]:
    return [role.department for role in actor.roles if role.role == "lead" and role.department]


def _incidents(actor: Principal) -> Iterator[Todo]:
    if not may_somewhere(actor, Action.INCIDENT_UPDATE, kind="incident"):
        return
    pressing = narrowed(incidents_pressing(actor), "title", "severity", "state", "opened_at")
    for incident in pressing[:SHOWN]:
        yield Todo(
            "bad",
            "alert-circle",
            f"Handle {incident.get_severity_display().lower()} incident: {incident.title}",
            f"{incident.get_state_display()}",
            _href("incident", incident.pk),
            incident.opened_at,
        )


def _emergency_access(actor: Principal) -> Iterator[Todo]:
    for emergency in after_reviews(actor)[:SHOWN]:
        late = emergency.due_at is not None and emergency.due_at <= timezone.now()
        yield Todo(
            "bad" if late else "warn",
            "alert-triangle",
            f"Review emergency access {emergency.pk} to {emergency.release.deployment_name}",
            emergency.department.name,
            _href("emergency_access", emergency.pk),
            emergency.due_at,
            due=True,
        )
    if not may_somewhere(actor, Action.RELEASE_EMERGENCY_ACCESS_CONFIRM, kind="release"):
        return
    requested = emergency_accesses_visible_to(actor).filter(state=EmergencyAccessState.REQUESTED)
    mine = Q(asked_by_id=actor.person_id) | Q(excluded_people__contains=[actor.person_id])
    columns = ("release__deployment_name", "department__name", "asked_by__name", "asked_at")
    for emergency in narrowed(requested.exclude(mine), *columns)[:SHOWN]:
        yield Todo(
            "bad",
            "alert-triangle",
            f"Confirm emergency access {emergency.pk} to {emergency.release.deployment_name}",
            f"{emergency.department.name} · requested by {emergency.asked_by.name}",
            _href("emergency_access", emergency.pk),
            emergency.asked_at,
        )


def _deployments(actor: Principal) -> Iterator[Todo]:
    places = departments_where(actor, Action.DEPLOYMENT_CREATE, kind="deployment")
    newer = Deployment.objects.filter(
        name=OuterRef("name"),
        release__environment=OuterRef("release__environment"),
        pk__gt=OuterRef("pk"),
    )
    refused = deployments_visible_to(actor).filter(
        ~Exists(newer), state=DeploymentState.REFUSED, department__in=places
    )
    for deployment in narrowed(refused, "name", "message", "created_at")[:SHOWN]:
        yield Todo(
            "bad",
            "ban",
            f"Rejected bytes: {deployment.name}",
            deployment.message,
            _href("deployment", deployment.pk),
            deployment.created_at,
        )
    live = Deployment.objects.filter(release=OuterRef("pk"), state__in=LIVE)
    rows = releases_visible_to(actor).filter(
        ~Exists(live),
        ~Q(conditions__contains={"shadow_only": True}),
        state=ReleaseState.APPROVED,
        department__in=places,
    )
    idle = rows.filter(expires_at__gt=timezone.now())
    for release in narrowed(idle, *_RELEASE, "approved_at")[:SHOWN]:
        yield Todo(
            "info",
            "rocket",
            f"Deploy release {release.pk}: {release.version}",
            f"Approved and not deployed · {release.environment} · {release.deployment_name}",
            _href("release_deploy", release.pk),
            release.approved_at,
        )


def _other_code(actor: Principal) -> Iterator[Todo]:
    places = departments_where(actor, Action.RELEASE_SUBMIT, kind="release")
    deployments = deployments_visible_to(actor).filter(
        state__in=LIVE, department__in=places, message__contains=OTHER_CODE.partition("{}")[2]
    )
    repeated = Release.objects.filter(renews=OuterRef("release")).exclude(state__in=AGAIN)
    rows = deployments.filter(~Exists(repeated)).order_by("pk")
    for deployment in narrowed(rows, "message", "release", "created_at")[:SHOWN]:
        yield Todo(
            "bad",
            "refresh",
            f"Submit release {deployment.release_id} again: the code of its task changed",
            deployment.message,
            _href("release", deployment.release_id),
            deployment.created_at,
        )


def _reviews(actor: Principal) -> Iterator[Todo]:
    columns = ("subject_name", "department__name", "tier", "round", "due_at")
    assigned = list(narrowed(reviews_assigned(actor), *columns)[:SHOWN])
    others = reviews_awaiting(actor).exclude(pk__in=[review.pk for review in assigned])
    for review in [*assigned, *narrowed(others, *columns)[:SHOWN]]:
        mine = "assigned to you · " if review in assigned else ""
        yield Todo(
            "bad" if review.due_at <= timezone.now() else "warn",
            "clipboard-check",
            f"Review {review.subject_name}",
            f"{mine}{review.department.name} · {review.tier} risk · round {review.round}",
            _href("review", review.pk),
            review.due_at,
            due=True,
        )


def _mentions(actor: Principal) -> Iterator[Todo]:
    mentions = narrowed(
        mentions_unseen(actor),
        *("comment__created_at", "comment__person__name", "comment__thread__review__subject_name"),
    )
    for mention in mentions[:SHOWN]:
        comment = mention.comment
        review = comment.thread.review
        yield Todo(
            "info",
            "message-2",
            f"{comment.person.name} mentioned you",
            review.subject_name,
            f"{_href('review', review.pk)}#thread-{comment.thread_id}",
            comment.created_at,
        )


def _policies(actor: Principal) -> Iterator[Todo]:
    if not may(actor, Action.POLICY_DECIDE, kind="policy"):
        return
    waiting = PolicyVersion.objects.filter(state=PolicyState.PROPOSED).defer("rules", "tests")
    for version in waiting.exclude(authors__contains=[actor.person_id])[:SHOWN]:
        yield Todo(
            "warn",
            "shield-lock",
            f"Decide on policy {version.number}",
            version.note,
            _href("policy_version", version.number),
            version.proposed_at,
        )


def _requested_changes(actor: Principal) -> Iterator[Todo]:
    mine = Q(submitted_by_id=actor.person_id) | Q(department__slug__in=_leads(actor))
    rows = releases_visible_to(actor).filter(mine, state=ReleaseState.CHANGES_REQUESTED)
    release_id = Cast(OuterRef("pk"), CharField())
    reviews = Review.objects.filter(subject_type="release", subject_id=release_id).order_by("-pk")
    reviewed = rows.annotate(review=Subquery(reviews.values("pk")[:1])).filter(review__isnull=False)
    for release in narrowed(reviewed, *_RELEASE)[:SHOWN]:
        yield Todo(
            "warn",
            "message-2",
            f"Answer requested changes to {release.version}",
            f"{release.environment} · {release.deployment_name}",
            f"{_href('review', release.review)}#answer",
        )


def _recoveries(actor: Principal) -> Iterator[Todo]:
    if not may(actor, Action.ROLE_GRANT, kind="person"):
        return
    pending = recoveries_live(actor).filter(state=RecoveryState.PENDING)
    mine = Q(person_id=actor.person_id) | Q(requested_by_id=actor.person_id)
    columns = ("person__name", "requested_by__name", "reason", "requested_at")
    for recovery in narrowed(pending.exclude(mine), *columns)[:SHOWN]:
        requester = recovery.requested_by.name if recovery.requested_by else "the server"
        yield Todo(
            "warn",
            "shield-lock",
            f"Approve the recovery of the account of {recovery.person.name}",
            f"{recovery.reason} · requested by {requester}",
            _href("recoveries"),
            recovery.requested_at,
        )


def _access_requests(actor: Principal) -> Iterator[Todo]:
    requests = narrowed(access_requests_open(actor), "person__name", "text", "created_at")
    for request in requests[:SHOWN]:
        yield Todo(
            "info",
            "user",
            f"{request.person.name} requests a role",
            request.text,
            _href("person", request.person_id),
            request.created_at,
        )


def _intakes(actor: Principal) -> Iterator[Todo]:
    if not may_somewhere(actor, Action.INTAKE_SIGN_OFF, kind="intake"):
        return
    waiting = intakes_visible_to(actor).filter(state=IntakeState.AWAITING_SIGN_OFF)
    others = waiting.exclude(submitted_by_id=actor.person_id)
    for intake in narrowed(others, "model__name", "source", "created_at")[:SHOWN]:
        yield Todo(
            "info",
            "package-import",
            f"Sign off {intake.model.name}",
            f"Every check passed · {intake.source}",
            _href("intake", intake.pk),
            intake.created_at,
        )


def _failed_jobs(actor: Principal) -> Iterator[Todo]:
    mine = Q(created_by_id=actor.person_id) | Q(department__slug__in=_leads(actor))
    broken = jobs_visible_to(actor).filter(
        mine, state__in=(JobState.FAILED, JobState.DEAD), finished_at__gte=timezone.now() - RECENT
    )
    for job in narrowed(broken, "title", "error", "state", "finished_at")[:SHOWN]:
        yield Todo(
            "bad",
            "activity",
            f"Failed job: {job.title}",
            job.error or job.get_state_display(),
            _href("job", job.pk),
            job.finished_at,
        )


def _feedback(actor: Principal) -> Iterator[Todo]:
    if not may_somewhere(actor, Action.FEEDBACK_REVIEW, kind="feedback"):
        return
    pending = feedback_visible_to(actor).filter(state=FeedbackState.PENDING)
    mine = Q(person=actor.person_id)
    rows = pending.exclude(mine).order_by("deployment").values("deployment")
    for row in rows.annotate(count=Count("pk"), last=Max("created_at"))[:SHOWN]:
        yield Todo(
            "info",
            "message-2",
            f"Review feedback on {row['deployment']}",
            f"{row['count']} pending",
            f"{_href('feedback')}?{urlencode({'deployment': row['deployment']})}",
            row["last"],
        )


def _learned(actor: Principal) -> Iterator[Todo]:
    """Yield evaluated versions that were trained on feedback and have no release."""
    if not may_somewhere(actor, Action.RELEASE_SUBMIT, kind="release"):
        return
    places = departments_where(actor, Action.RELEASE_SUBMIT, kind="release")
    rows = versions_visible_to(actor).filter(
        dataset_version__feedback_count__gt=0,
        model__department__in=places,
        state=VersionState.TRUSTED,
        evaluations__isnull=False,
        releases__isnull=True,
    )
    newest = rows.order_by("-pk").distinct()
    for version in narrowed(newest, "number", "model__name", "created_at")[:SHOWN]:
        like = release_to_repeat(actor, version)
        query = "" if like is None else f"?like={like}"
        yield Todo(
            "info",
            "git-pull-request",
            f"Request release: {version}",
            "Trained on feedback and evaluated"
            + ("" if like is None else f" · draft from release {like}"),
            f"{_href('release_new', version.pk)}{query}",
            version.created_at,
        )


def _release_drafts(actor: Principal) -> Iterator[Todo]:
    if not may_somewhere(actor, Action.RELEASE_SUBMIT, kind="release"):
        return
    drafts = release_drafts_visible_to(actor).filter(
        created_by=actor.person_id, version__state=VersionState.TRUSTED
    )
    for draft in drafts[:SHOWN]:
        origin = "Made by a chain of jobs" if draft.job_id else "Not submitted"
        yield Todo(
            "info",
            "git-pull-request",
            f"Complete release draft {draft.pk}: {draft.version}",
            f"{origin} · {draft.content.get('environment', 'no environment yet')}",
            f"{_href('release_new', draft.version_id)}?draft={draft.pk}",
            draft.updated_at,
        )


def _suspended_schedules(actor: Principal) -> Iterator[Todo]:
    mine = Q(owner=actor.person_id) | Q(department__slug__in=_leads(actor))
    if not may_somewhere(actor, Action.JOB_CREATE, kind="job"):
        return
    rows = schedules_visible_to(actor).filter(mine, state=ScheduleState.SUSPENDED)
    for schedule in narrowed(rows, "name", "reason")[:SHOWN]:
        yield Todo(
            "warn",
            "calendar",
            f"Suspended schedule: {schedule.name}",
            schedule.reason,
            _href("schedule", schedule.pk),
        )


SOURCES: tuple[Callable[[Principal], Iterator[Todo]], ...] = (
    _incidents,
    _emergency_access,
    _deployments,
    _other_code,
    _reviews,
    _mentions,
    _policies,
    _requested_changes,
    _access_requests,
    _recoveries,
    _intakes,
    _failed_jobs,
    _feedback,
    _learned,
    _release_drafts,
    _suspended_schedules,
)
