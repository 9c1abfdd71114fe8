"""One version: origin, measurements, readiness for release, and recall."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from assay.portal.access import may
from assay.portal.canaries import watched
from assay.portal.dataset_media import media_answer
from assay.portal.evidence import drawn
from assay.portal.forms.models import EvaluateForm, RecallForm
from assay.portal.http import ActionScreen, Screen, cleaned, number_in
from assay.portal.lineage import drawing
from assay.portal.readiness import may_see_readiness, readiness_panel
from assay.portal.series import curves
from governance.database.narrow import narrowed
from governance.english import counted
from governance.permissions import Action
from governance.principals import Principal
from registry.catalog import TASKS, unavailable_reason
from registry.datasets.selectors import dataset_versions_visible_to
from registry.evaluations.recordings import sample_recording_open
from registry.evaluations.selectors import evaluations_to_compare
from registry.incidents.selectors import incidents_of, reporting_resource
from registry.releases.comparison.build import evaluation_compare
from registry.releases.comparison.files import manifest_files
from registry.releases.drafts.models import ReleaseDraft
from registry.releases.drafts.selectors import release_drafts_visible_to
from registry.releases.exports.hosted import NOT_PINNED, hosted_blocks
from registry.releases.exports.prompts import prompt_blocks
from registry.releases.selectors import release_to_repeat, releases_visible_to
from registry.versions.features import version_features
from registry.versions.hosted import can_be_evaluated, hosted_served
from registry.versions.models import ModelVersion, VersionKind, VersionState
from registry.versions.recall import version_recall
from registry.versions.selectors import training_data, version_get, versions_visible_to
from workers.deployments.radius import blast_radius
from workers.jobs.models import JobPriority
from workers.jobs.requests import evaluate_request
from workers.jobs.selectors import job_events, jobs_visible_to
from workers.schedules.watching import version_watch

EVALUATIONS_SHOWN = 6


def recall_of(actor: Principal, version: ModelVersion) -> ModelVersion | None:
    """Return the version whose recall included this one, if the actor may see it."""
    if version.recalled_with_id in (None, version.pk):
        return None
    return versions_visible_to(actor).filter(pk=version.recalled_with_id).first()


def may_report(actor: Principal, version: ModelVersion) -> bool:
    """Return true if the actor may report an incident of the version."""
    resource = reporting_resource(version)
    return may(
        actor,
        Action.INCIDENT_OPEN,
        kind="incident",
        department=resource.department,
        attributes=resource.attributes,
    )


class VersionPage(Screen):
    """One version with its origin, evidence and releases."""

    template_name = "portal/models/version.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        version = version_get(actor=self.actor, id=id)
        department = version.model.department.slug
        evaluations = evaluations_to_compare(self.actor).filter(version=version)
        measured = list(evaluations[:EVALUATIONS_SHOWN])
        job = (
            narrowed(jobs_visible_to(self.actor).filter(pk=version.job_id), "pk").first()
            if version.job_id
            else None
        )
        releases = narrowed(
            releases_visible_to(self.actor).filter(version=version),
            *("deployment_name", "environment", "state", "created_at"),
        )
        trusted = version.state == VersionState.TRUSTED
        task = TASKS.get(version.model.task)
        return {
            "version": version,
            "task": task,
            "prompt": prompt_blocks(version.parameters)
            if version.kind == VersionKind.PROMPT
            else None,
            "hosted": hosted_blocks(version.parameters)
            if version.kind == VersionKind.HOSTED
            else None,
            "not_pinned": NOT_PINNED,
            "watched": watched(self.actor, version) if hosted_served(version) else None,
            "may_describe": version.kind == VersionKind.HOSTED
            and may(self.actor, Action.INTAKE_CREATE, kind="intake", department=department),
            "may_prompt": may(self.actor, Action.JOB_CREATE, kind="job", department=department),
            "unavailable": unavailable_reason(version.model.task),
            "files": manifest_files(version),
            "features": version_features(version),
            "graph": drawing(version, self.actor),
            "job": job,
            "curves": curves(job_events(job)[:5000]) if job else None,
            "evidence": [
                drawn(evaluation_compare(evaluation, version.model.task)) for evaluation in measured
            ],
            "held_out": any(not each.on_training_data for each in measured),
            "releases": releases[:20],
            "drafts": self.drafts(version),
            "like": release_to_repeat(self.actor, version) if trusted else None,
            "may_release": trusted
            and may(self.actor, Action.RELEASE_SUBMIT, kind="release", department=department),
            "readiness": may_see_readiness(self.actor, version),
            "recalled_with": recall_of(self.actor, version),
            "may_recall": trusted
            and may(
                self.actor,
                Action.VERSION_RECALL,
                kind="version",
                department=department,
                attributes={"shared": version.model.shared},
            ),
            "incidents": incidents_of(self.actor, version.pk),
            "may_report": may_report(self.actor, version),
            "may_evaluate": trusted
            and task is not None
            and task.evaluation is not None
            and can_be_evaluated(version, task)
            and may(self.actor, Action.JOB_CREATE, kind="job", department=department),
        }

    def drafts(self, version: ModelVersion) -> list[ReleaseDraft]:
        """Return the version's release drafts, for people who may submit them."""
        department = version.model.department.slug
        if not may(self.actor, Action.RELEASE_SUBMIT, kind="release", department=department):
            return []
        return list(release_drafts_visible_to(self.actor).filter(version=version)[:20])


class Evaluate(ActionScreen):
    """Start an evaluation."""

    template_name = "portal/form.html"

    def form(self, version: ModelVersion) -> EvaluateForm:
        data = dataset_versions_visible_to(self.actor).filter(
            dataset__task=version.model.task, dataset__row_kind=""
        )
        learned = frozenset(each.digest for each in training_data(version))
        return EvaluateForm(self.request.POST or None, dataset_versions=data, learned=learned)

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        version = version_get(actor=self.actor, id=id)
        return {
            "form": self.form(version),
            "title": f"Evaluate {version}",
            "lead": "Compares the version with its baseline. Current gates decide pass or fail.",
            "submit": "Start the evaluation",
            "back_to_version": version,
        }

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        version = version_get(actor=self.actor, id=id)
        values = cleaned(self.form(version))
        job = evaluate_request(
            actor=self.actor,
            version=version,
            dataset_version=values["dataset_version"],
            max_rows=values["max_rows"],
            priority=JobPriority.named(values["priority"] or "normal"),
        )
        return redirect("portal:job", id=job.pk)


class VersionWatch(VersionPage, ActionScreen):
    """Watch a hosted version by a daily evaluation."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        schedule = version_watch(
            actor=self.actor,
            version_id=id,
            dataset_version=number_in(self.request.POST, "dataset_version"),
        )
        return self.done(
            f"{schedule.name}: the first evaluation is queued, and repeats every day.",
            "portal:version",
            id=id,
        )


class EvaluationRecording(Screen):
    """A recording of a sample, for a player on the pages that show the evaluation."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        opened = sample_recording_open(actor=self.actor, id=kwargs["id"], sha256=kwargs["sha256"])
        return media_answer(request, opened)


class VersionReadiness(Screen):
    """Readiness of one version for release, under the tier of `?tier=`."""

    template_name = "portal/models/readiness.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        version = version_get(actor=self.actor, id=id)
        department = version.model.department.slug
        return {
            "version": version,
            "panel": readiness_panel(self.actor, version, self.request.GET.get("tier", "")[:40]),
            "beside_form": "form" in self.request.GET,
            "may_release": version.state == VersionState.TRUSTED
            and may(self.actor, Action.RELEASE_SUBMIT, kind="release", department=department),
        }


class VersionRecall(ActionScreen):
    """Recall a version permanently."""

    template_name = "portal/models/recall.html"

    def form(self, version: ModelVersion) -> RecallForm:
        return RecallForm(self.request.POST or None, version=str(version))

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        radius = blast_radius(actor=self.actor, version_id=id)
        below = radius.below
        return {
            "version": below.version,
            "radius": radius,
            "below": below,
            "recalled": below.version.state == VersionState.RECALLED,
            "more_versions": below.versions_total - len(below.versions),
            "more_releases": below.releases_total - len(below.releases),
            "more_deployments": radius.deployments_total - len(radius.deployments),
            "form": self.form(below.version),
        }

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        version = version_get(actor=self.actor, id=id)
        values = cleaned(self.form(version))
        recalled = version_recall(
            actor=self.actor,
            version_id=id,
            reason=values["reason"],
            # Identifies the list that the page showed, which may have changed since.
            confirm=self.request.POST.get("list", ""),
        )
        return self.done(
            f"{version} is recalled: {counted(recalled.versions, 'version')}, "
            f"{counted(recalled.releases, 'release')} and "
            f"{counted(recalled.reviews, 'open review')} ended.",
            "portal:version",
            id=id,
        )
