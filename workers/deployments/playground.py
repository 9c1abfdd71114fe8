"""Trying a deployment in the portal: which ones a person may use, who pays, and the token for it.

The gateway decides again at each request, by everything that a request states.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction

from governance.errors import InvalidInput, NotFound, NotPermitted
from governance.keys.models import PlaygroundToken
from governance.keys.playground import playground_token_create
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.context import probing_context
from governance.policy.engine import PolicySnapshot, Resource, decide
from governance.policy.services import active_policy, authorize
from governance.principals import Principal
from registry.releases.conditions import Conditions
from registry.versions.classification import version_classifications
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.resources import deployment_attributes, deployment_context
from workers.deployments.selectors import deployments_visible_to

SHOWN_MAX = 100


@dataclass(frozen=True, slots=True)
class Trial:
    """A serving deployment that the person may use, and the departments of theirs that may pay."""

    deployment: Deployment
    departments: tuple[str, ...]


def playground_trials(actor: Principal) -> list[Trial]:
    """Deployments that `actor` may use in the playground, by name; `SHOWN_MAX` at most."""
    rows = deployments_visible_to(actor).filter(state=DeploymentState.SERVING).order_by("name")
    return _trials(actor, list(rows[:SHOWN_MAX]))


def may_try(actor: Principal, deployment: Deployment) -> bool:
    """Return whether the playground offers a deployment, which `actor` sees, to them."""
    return deployment.state == DeploymentState.SERVING and bool(_trials(actor, [deployment]))


def _trials(actor: Principal, found: list[Deployment]) -> list[Trial]:
    policy = active_policy()
    trials = []
    for row, resource in zip(found, _resources(found), strict=True):
        asked = _context(row)
        if decide(policy, actor, Action.DEPLOYMENT_INVOKE, resource, asked).allowed and (
            paying := _paying(policy, actor, row, resource)
        ):
            trials.append(Trial(row, paying))
    return trials


@transaction.atomic
def playground_open(
    *, actor: Principal, name: str, session_key: str, department: str = ""
) -> tuple[PlaygroundToken, str]:
    """Make a token for the serving deployment of that name, and return its text once.

    `department` (a slug) pays; it may be left out where only one of the person's can.

    Raises:
        NotFound: nothing of that name serves that the actor may see.
        NotPermitted: the policy denies its use, or no department of the actor's may pay.
        InvalidInput: the department is not one that may pay, or there is more than one.
        NotAuthenticated, QuotaExceeded: as `playground_token_create`.
    """
    rows = deployments_visible_to(actor).filter(state=DeploymentState.SERVING)
    row = None if "\x00" in name else rows.filter(name=name).first()
    if row is None:
        raise NotFound(f"No deployment {name[:80]!r} serves that you may see.")
    (resource,) = _resources([row])
    decision = authorize(
        actor=actor, action=Action.DEPLOYMENT_INVOKE, resource=resource, context=_context(row)
    )
    paying = _paying(active_policy(), actor, row, resource)
    if not paying:
        raise NotPermitted(
            f"None of your departments may use deployment {row.name}, so none can pay for it.",
            hint="A release names the departments that may use its deployment.",
        )
    chosen = department or (paying[0] if len(paying) == 1 else "")
    if chosen not in paying:
        raise InvalidInput(
            "Choose the department that pays for the answers.",
            fields={"department": [f"One of {', '.join(paying)}."]},
        )
    return playground_token_create(
        actor=actor,
        session_key=session_key,
        department=Department.objects.get(slug=chosen),
        deployment=row.name,
        decision=decision,
    )


def _resources(rows: list[Deployment]) -> Iterable[Resource]:
    known = version_classifications([row.release.version_id for row in rows])
    for row in rows:
        yield Resource(
            type="deployment",
            id=str(row.pk),
            name=row.name,
            department=row.department.slug,
            attributes=deployment_attributes(
                row.release,
                name=row.name,
                departments=[department.slug for department in row.release.departments.all()],
                classification=known[row.release.version_id],
            ),
        )


def _context(row: Deployment) -> dict[str, Any]:
    return {**probing_context(Action.DEPLOYMENT_INVOKE), **deployment_context(row.release)}


def _paying(
    policy: PolicySnapshot, actor: Principal, row: Deployment, resource: Resource
) -> tuple[str, ...]:
    """The actor's departments by whose roles alone the deployment may be used, within the
    conditions of its release."""
    conditions = row.release.conditions
    only = set(Conditions.from_json(conditions).departments) if conditions else set()
    found = []
    for slug in sorted(actor.departments):
        held = frozenset(role for role in actor.roles if role.department in (None, slug))
        member = replace(actor, roles=held)
        asked = _context(row)
        if (not only or slug in only) and decide(
            policy, member, Action.DEPLOYMENT_INVOKE, resource, asked
        ).allowed:
            found.append(slug)
    return tuple(found)
