"""Deployments: their approvals, bytes and replicas."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from assay.portal.access import may
from assay.portal.code_examples import CodeExample, code_examples
from assay.portal.forms.deployments import ReplicasForm
from assay.portal.http import ActionScreen, add_refusal, cleaned, number_in
from assay.portal.lists import ListScreen
from assay.portal.views.versions import may_report
from governance.database.narrow import narrowed
from governance.errors import InvalidInput
from governance.permissions import Action
from governance.reviews.models import Verdict
from governance.schemas import parsed
from governance.usage.selectors import may_view_usage
from registry.catalog import TASKS, unavailable_reason
from registry.incidents.selectors import incidents_of
from registry.releases.equivalence.selectors import release_checks
from registry.releases.renewal import release_renewal
from registry.releases.selectors import release_reviews
from registry.versions.features import version_features
from registry.versions.hosted import hosted_served
from registry.versions.prompts import prompt_served
from workers.deployments import schemas
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.playground import may_try
from workers.deployments.rollback import RollbackChoice, deployment_rollback, rollback_choices
from workers.deployments.selectors import deployment_get, deployments_visible_to
from workers.deployments.services import deployment_stop
from workers.deployments.stated_models import stated_by
from workers.placement.selectors import need_of_deployment, places_of
from workers.placement.services import deployment_place
from workers.placement.settings import ReplicaSettings


class Deployments(ListScreen):
    """Every deployment the person may see; stopped ones on request."""

    template_name = "portal/deployments/list.html"
    title = "Deployments"
    lead = "Deployed models, with the approval and the bytes of each."
    columns = "Deployment | State | Version | Digest | # Ready | For | Expires"

    def rows(self) -> QuerySet[Deployment]:
        rows = deployments_visible_to(self.actor)
        if self.request.GET.get("all") != "1":
            rows = rows.exclude(state=DeploymentState.STOPPED)
        return rows.select_related("release__version__model", "department").prefetch_related(
            "replicas", "release__departments"
        )


def examples(request: HttpRequest, deployment: Deployment) -> list[CodeExample]:
    """Return example requests, which work once a key is filled in."""
    version = deployment.release.version
    task = TASKS.get(version.model.task)
    root = f"{request.scheme}://{request.get_host()}"
    if task is None:
        return []
    features, prompt = version_features(version), prompt_served(version)
    return code_examples(task, deployment.name, root, features, prompt)


class DeploymentPage(ActionScreen):
    """One deployment with its release, replicas and example requests."""

    template_name = "portal/deployments/deployment.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        deployment = deployment_get(actor=self.actor, deployment_id=id)
        version = deployment.release.version
        reviews = narrowed(release_reviews(deployment.release), "pk")
        review = reviews.prefetch_related("decisions__person").first()
        votes = review.decisions.all() if review else []
        live = deployment.state in (DeploymentState.PENDING, DeploymentState.SERVING)
        return {
            "deployment": deployment,
            "rollback": self.rollback(deployment),
            "release": deployment.release,
            "renewal": release_renewal(actor=self.actor, release=deployment.release),
            "version": version,
            "hosted": (hosted := hosted_served(version)),
            "stated": stated_by([deployment]) if hosted else [],
            "incidents": incidents_of(self.actor, version.pk),
            "unavailable": unavailable_reason(version.model.task),
            "live": live,
            "replicas": list(deployment.replicas.all()),
            "checks": release_checks(deployment.release),
            "places": places_of(deployment) if live else [],
            "need": need_of_deployment(deployment),
            "replicas_form": self.replicas_form(deployment) if live else None,
            "review": review,
            "approvals": [vote for vote in votes if vote.verdict == Verdict.APPROVE],
            "sees_health": may_view_usage(self.actor),
            "examples": examples(self.request, deployment),
            "may_try": may_try(self.actor, deployment),
            "may_report": may_report(self.actor, version),
            "may_explain": may(self.actor, Action.POLICY_EXPLAIN, kind="policy"),
            "may_stop": live
            and may(
                self.actor,
                Action.DEPLOYMENT_STOP,
                kind="deployment",
                department=deployment.department.slug,
            ),
        }

    def rollback(self, deployment: Deployment) -> list[RollbackChoice]:
        """Return the earlier deployments to roll back to; none for people who may not deploy."""
        department = deployment.department.slug
        if not may(self.actor, Action.DEPLOYMENT_CREATE, kind="deployment", department=department):
            return []
        return rollback_choices(actor=self.actor, deployment=deployment)

    def replicas_form(self, deployment: Deployment) -> ReplicasForm | None:
        """Return the form for replicas; None for people who may not change them."""
        department = deployment.department.slug
        if not may(self.actor, Action.DEPLOYMENT_PLACE, kind="deployment", department=department):
            return None
        return ReplicasForm(
            initial={
                "replicas_min": deployment.replicas_min,
                "replicas_max": deployment.replicas_max,
                "queue_age_s": deployment.queue_age_s,
                "labels": ", ".join(deployment.required_labels),
                "device": deployment.required_device,
                "stream_total_s": deployment.stream_total_s,
                "stream_idle_s": deployment.stream_idle_s,
                "queue_weights": ", ".join(
                    f"{name}={weight}" for name, weight in deployment.queue_weights.items()
                ),
            }
        )


class DeploymentReplicas(DeploymentPage):
    """Change the number of replicas, and the workers that may hold them."""

    def replicas_form(self, deployment: Deployment) -> ReplicasForm | None:
        """Return the submitted form, with errors on its fields."""
        if super().replicas_form(deployment) is None:
            return None
        form = ReplicasForm(self.request.POST)
        add_refusal(form, self.acted)
        return form

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        values = cleaned(ReplicasForm(self.request.POST))
        deployment = deployment_place(
            actor=self.actor, deployment_id=id, settings=ReplicaSettings(**values)
        )
        return self.done(f"Replicas of {deployment.name} saved.", "portal:deployment", id=id)


class DeploymentRollback(DeploymentPage):
    """Roll back to an earlier release, with a reason."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        release_id = number_in(self.request.POST, "release")
        if release_id is None:
            raise InvalidInput(
                "Name the release to roll back to.",
                fields={"release": ["Choose one from the list."]},
            )
        again = deployment_rollback(
            actor=self.actor,
            deployment_id=id,
            release_id=release_id,
            reason=self.request.POST.get("reason", ""),
        )
        return self.done(
            f"{again.name} rolls back to {again.release.version}: workers are loading it.",
            "portal:deployment",
            id=again.pk,
        )


class DeploymentStop(DeploymentPage):
    """Stop serving, with a reason."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        body = parsed(schemas.DeploymentStop, {"reason": self.request.POST.get("reason", "")})
        deployment = deployment_stop(actor=self.actor, deployment_id=id, reason=body.reason)
        return self.done(f"{deployment.name} is stopped.", "portal:deployment", id=id)
