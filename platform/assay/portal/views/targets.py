"""Show and change the targets of a deployment."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from assay.portal.access import may
from assay.portal.forms.targets import TargetForm, initial_of, target_of_form
from assay.portal.http import ActionScreen, add_refusal, cleaned, number_in
from governance.errors import InvalidInput
from governance.permissions import Action
from governance.schemas import parsed
from governance.usage.selectors import may_view_usage
from registry.releases.exports.shadow import shadow_blocks
from workers.deployments.models import Deployment, TargetRole
from workers.deployments.selectors import deployment_get
from workers.deployments.states import LIVE
from workers.deployments.targets import live_targets
from workers.routing.canary import verdict_lines
from workers.routing.schemas import TargetsChange, TargetsSwitch
from workers.routing.selectors import releases_offered, targets_view, targets_visible_to
from workers.routing.services import targets_change, targets_switch


class DeploymentTargets(ActionScreen):
    """The primary and the targets of a deployment with their shares and figures."""

    template_name = "portal/deployments/targets.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        deployment = deployment_get(actor=self.actor, deployment_id=id)
        views = targets_view(self.actor, deployment)
        department = deployment.department.slug
        may_route = (
            deployment.state in LIVE
            and deployment.target_of_id is None
            and may(self.actor, Action.DEPLOYMENT_ROUTE, kind="deployment", department=department)
        )
        canary = next((each for each in views if each.deployment.canary_verdict), None)
        return {
            "deployment": deployment,
            "targets": views,
            "canary": canary,
            "shadows": shadow_blocks({"shadow": [pair for each in views for pair in each.shadow]}),
            "comparison": verdict_lines(canary.deployment.canary_verdict) if canary else [],
            "sees_health": may_view_usage(self.actor),
            "form": self.form(deployment) if may_route else None,
            "may_route": may_route,
        }

    def form(self, deployment: Deployment) -> TargetForm:
        """Return the form for a new target or, with `?release=`, for a present one."""
        targets = list(targets_visible_to(self.actor, deployment))
        chosen = number_in(self.request.GET, "release")
        initial = next((initial_of(each) for each in targets if each.release_id == chosen), {})
        offered = releases_offered(self.actor, deployment)
        if isinstance(self, TargetSave) and self.request.method == "POST":
            form = TargetForm(self.request.POST, offered=offered, targets=targets)
            add_refusal(form, self.acted)
            return form
        return TargetForm(initial=initial, offered=offered, targets=targets)

    def change(
        self, deployment: Deployment, release: int, target: dict[str, Any] | None, reason: str
    ) -> Deployment:
        """Replace, add or, with None, remove the target with this release."""
        targets = [
            {
                "release": each.release_id,
                "role": each.role,
                "weight": each.weight,
                "conditions": each.routing_conditions,
            }
            for each in live_targets(deployment.pk)
        ]
        places = [each["release"] for each in targets]
        if release in places:
            targets[places.index(release) : places.index(release) + 1] = [target] if target else []
        elif target is not None:
            targets.append(target)
        change = parsed(
            TargetsChange, {"targets": targets, "revision": self.revision(), "reason": reason}
        )
        return targets_change(actor=self.actor, deployment_id=deployment.pk, change=change)

    def revision(self) -> int:
        """Return the revision that the page showed."""
        revision = number_in(self.request.POST, "revision")
        if revision is None:
            raise InvalidInput("The form does not name the revision of the targets.")
        return revision


class TargetSave(DeploymentTargets):
    """Add a target, or change one."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        deployment = deployment_get(actor=self.actor, deployment_id=id)
        values = cleaned(self.form(deployment))
        target = target_of_form(values)
        self.change(deployment, values["release"], target, values["reason"])
        role = TargetRole(values["role"]).label.lower()
        return self.done(
            f"Release {values['release']} is a target of {deployment.name} ({role}).",
            "portal:deployment_targets",
            id=id,
        )


class TargetRemove(DeploymentTargets):
    """Stop a target."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        deployment = deployment_get(actor=self.actor, deployment_id=id)
        release = number_in(self.request.POST, "release")
        if release is None:
            raise InvalidInput("The form does not name the release of the target to remove.")
        self.change(deployment, release, None, self.request.POST.get("reason", ""))
        return self.done(
            f"Release {release} is no longer a target of {deployment.name}.",
            "portal:deployment_targets",
            id=id,
        )


class TargetSwitch(DeploymentTargets):
    """Make a target the primary."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        switch = parsed(
            TargetsSwitch,
            {
                "target": number_in(self.request.POST, "target"),
                "revision": self.revision(),
                "reason": self.request.POST.get("reason", ""),
            },
        )
        primary = targets_switch(actor=self.actor, deployment_id=id, switch=switch)
        return self.done(
            f"{primary.release.version} now answers requests to {primary.name}.",
            "portal:deployment_targets",
            id=primary.pk,
        )
