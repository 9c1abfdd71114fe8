"""The first page: tasks, running models, and the first steps of a new installation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from assay.portal.access import may_somewhere
from assay.portal.forms.account import AccessRequestForm
from assay.portal.home_numbers import has_numbers, numbers_of
from assay.portal.http import ActionScreen, Screen, cleaned, posted
from assay.portal.since import changed_since
from assay.portal.todo import todos_of
from assay.portal.words import described_all
from governance.audit.selectors import audit_events_visible_to
from governance.database.narrow import narrowed
from governance.people.access_requests import (
    access_request_create,
    own_access_request,
)
from governance.people.models import Department, Role, RoleAssignment
from governance.permissions import Action
from governance.principals import Principal
from governance.quotas.selectors import alerts_now
from registry.evaluations.selectors import evaluations_visible_to
from registry.incidents.selectors import incidents_pressing
from registry.intake.models import IntakeState
from registry.intake.selectors import intakes_visible_to
from registry.releases.models import ReleaseState
from registry.releases.selectors import releases_visible_to
from registry.releases.validity import releases_expiring
from registry.versions.models import Model, VersionKind
from registry.versions.selectors import versions_visible_to
from workers.deployments.models import DeploymentState
from workers.deployments.selectors import deployments_visible_to
from workers.jobs.models import JobState
from workers.jobs.selectors import jobs_visible_to

EXPIRING_SHOWN = 10
HOME_TASKS = 12
BADGE_KEPT_S = 30
LIVE = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED, JobState.FINISHING)


def running_jobs(actor: Principal) -> dict[str, Any]:
    """Return the jobs of the live fragment."""
    jobs = narrowed(
        jobs_visible_to(actor).filter(state__in=LIVE).order_by("-created_at"),
        *("title", "state", "kind", "progress", "started_at", "finished_at", "department__name"),
    )
    return {"running": jobs[:6]}


def request_access(request: HttpRequest, actor: Principal) -> dict[str, Any]:
    """Return the context for a person without any role; empty for others."""
    if actor.roles:
        return {}
    form = AccessRequestForm(posted(request, "access_request"))
    return {"access_form": form, "access_request": own_access_request(actor)}


def model_lifecycle(actor: Principal) -> list[dict[str, Any]]:
    """Return the seven stages of the model lifecycle, each with a count and what it counts."""
    versions = (
        versions_visible_to(actor)
        .order_by()
        .aggregate(
            base=Count("pk", filter=Q(kind=VersionKind.BASE)),
            adapted=Count("pk", filter=~Q(kind=VersionKind.BASE)),
        )
    )
    intakes = (
        intakes_visible_to(actor)
        .order_by()
        .aggregate(
            waiting=Count("pk", filter=~Q(state__in=(IntakeState.TRUSTED, IntakeState.REJECTED))),
            refused=Count("pk", filter=Q(state=IntakeState.REJECTED)),
        )
    )
    releases = (
        releases_visible_to(actor)
        .order_by()
        .aggregate(
            every=Count("pk", distinct=True),
            review=Count(
                "pk",
                distinct=True,
                filter=Q(state__in=(ReleaseState.IN_REVIEW, ReleaseState.CHANGES_REQUESTED)),
            ),
            approved=Count("pk", distinct=True, filter=Q(state=ReleaseState.APPROVED)),
        )
    )
    deployments = (
        deployments_visible_to(actor)
        .order_by()
        .aggregate(
            live=Count(
                "pk",
                distinct=True,
                filter=Q(state__in=(DeploymentState.PENDING, DeploymentState.SERVING)),
            ),
            serving=Count("pk", distinct=True, filter=Q(state=DeploymentState.SERVING)),
        )
    )
    measured = evaluations_visible_to(actor).order_by().count()
    refused = f", {intakes['refused']} rejected" if intakes["refused"] else ""
    requests = f"requests, {releases['approved']} approved"
    rows = (
        ("Intake", "package-import", versions["base"], f"trusted{refused}", "intakes"),
        ("Fine-tune", "adjustments", versions["adapted"], "fine-tuned versions", "models"),
        ("Evaluate", "flask", measured, "evaluations", "jobs"),
        ("Release", "git-pull-request", releases["every"], requests, "reviews"),
        ("Review", "clipboard-check", releases["review"], "open now", "reviews"),
        ("Deploy", "rocket", deployments["live"], "not stopped", "deployments"),
        ("Serve", "plug-connected", deployments["serving"], "serving", "deployments"),
    )
    keys = ("stage", "icon", "count", "hint", "url")
    return [dict(zip(keys, row, strict=True)) for row in rows]


class Overview(ActionScreen):
    """The first page."""

    template_name = "portal/overview.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        actor = self.actor
        tasks = todos_of(actor)
        sees_audit = may_somewhere(actor, Action.AUDIT_VIEW, kind="audit")
        events = audit_events_visible_to(actor)[:8] if sees_audit else []
        deployments = narrowed(
            deployments_visible_to(actor).exclude(state=DeploymentState.STOPPED),
            *("name", "state", "message", "release__environment", "release__version__number"),
            "release__version__model__name",
        )
        incidents = narrowed(incidents_pressing(actor), "title", "severity", "state", "opened_at")
        expiring = narrowed(
            releases_expiring(actor),
            *("environment", "deployment_name", "state", "expires_at", "grace_days", "conditions"),
            *("approved_at", "department__name", "version__number", "version__model__name"),
        )
        return {
            "first_steps": first_steps(actor),
            **request_access(self.request, actor),
            "tasks": tasks[:HOME_TASKS],
            "all_tasks": tasks,
            "alerts": alerts_now(actor),
            "incidents": list(incidents[:20]),
            "expiring": expiring[:EXPIRING_SHOWN],
            "way": model_lifecycle(actor),
            **running_jobs(actor),
            "deployments": deployments[:6],
            "sees_audit": sees_audit,
            "has_numbers": has_numbers(actor),
            "events": described_all(events),
        }


class AccessRequested(Overview):
    """Request a first role from the administrators."""

    def act(self, **kwargs: Any) -> HttpResponse:
        access_request_create(actor=self.actor, **cleaned(AccessRequestForm(self.request.POST)))
        return self.done("Your request is sent to the administrators.", "portal:overview")


class Running(Screen):
    """The live part of the first page, fetched every two seconds."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return render(request, "portal/parts/running.html", running_jobs(self.actor))


class Numbers(Screen):
    """Numbers of the first page, which loads them afterward."""

    template_name = "portal/parts/numbers.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {"numbers": numbers_of(self.actor)}


class ChangedSince(Screen):
    """Objects that changed since the person last looked; the first page loads them afterward."""

    template_name = "portal/parts/changed.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {"changed": changed_since(self.actor)}


class Tasks(Screen):
    """All tasks of the person: the notification center."""

    template_name = "portal/tasks.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        tasks = todos_of(self.actor)
        return {"tasks": tasks, "all_tasks": tasks}


class TaskBadge(Screen):
    """Number of the person's tasks, fetched after loading by every page that does not list them.

    Browsers keep it briefly: it costs more than most pages.
    """

    template_name = "portal/parts/task_badge.html"

    def page(self, **kwargs: Any) -> HttpResponse:
        response = super().page(**kwargs)
        response.headers["Cache-Control"] = f"private, max-age={BADGE_KEPT_S}"
        return response

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {"tasks": todos_of(self.actor)}


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its purpose, its page, and whether it is done."""

    title: str
    why: str
    url: str
    done: bool


def first_steps(actor: Principal) -> list[Step]:
    """Return the steps for administrators while any is not done; otherwise none."""
    if not any(role.role == Role.ADMIN for role in actor.roles):
        return []
    holders = RoleAssignment.objects.aggregate(
        admins=Count("person", Q(role=Role.ADMIN, person__is_active=True), distinct=True),
        leads=Count("pk", Q(role=Role.LEAD)),
        reviewers=Count("pk", Q(role=Role.REVIEWER)),
    )
    steps = [
        Step(
            "Add a second administrator",
            "Two people can then approve each other's changes. A command on the server sets the "
            "account up with you. With a third administrator, two can recover the third's account.",
            "portal:people",
            holders["admins"] > 1,
        ),
        Step(
            "Create a department",
            "Departments own models, datasets, keys and budgets.",
            "portal:departments",
            holders["leads"] > 0 or Department.objects.exists(),
        ),
        Step(
            "Give the department a lead",
            "Invite a person, then grant the role on their page.",
            "portal:people",
            holders["leads"] > 0,
        ),
        Step(
            "Appoint a reviewer",
            "Nothing serves before reviewers have approved its release.",
            "portal:people",
            holders["reviewers"] > 0,
        ),
        Step(
            "Register a base model",
            "Upload its files: they are checked before anyone can use them.",
            "portal:models",
            Model.objects.exists(),
        ),
    ]
    return [] if all(step.done for step in steps) else steps
