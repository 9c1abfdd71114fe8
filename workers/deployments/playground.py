"""Playground of the portal: deployments that a person may try, the department that pays, and the
token.

The gateway decides again at each request, based on all attributes of the request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

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
    """A serving deployment that the person may use, and those of their departments that may pay."""

    deployment: Deployment
    departments: tuple[str, ...]


def playground_trials(actor: Principal) -> list[Trial]:
    """Return at most `SHOWN_MAX` deployments that `actor` may use in the playground, by name."""
    rows = _primaries(actor).order_by("name")
    return trials_of(actor, list(rows[:SHOWN_MAX]))


def _primaries(actor: Principal) -> QuerySet[Deployment]:
    rows = deployments_visible_to(actor)
    return rows.filter(state=DeploymentState.SERVING, target_of=None)


def may_try(actor: Principal, deployment: Deployment) -> bool:
    """Return whether `actor`, who sees the deployment, may use it in the playground."""
    return deployment.state == DeploymentState.SERVING and bool(trials_of(actor, [deployment]))


def trials_of(actor: Principal, rows: list[Deployment]) -> list[Trial]:
    """Return those of the serving deployments, which `actor` sees, that it may use."""
    policy = active_policy()
    trials = []
    for row, resource in zip(rows, _resources(rows), strict=True):
        context = _context(row)
        if decide(policy, actor, Action.DEPLOYMENT_INVOKE, resource, context).allowed and (
            paying := _paying(policy, actor, row, resource)
        ):
            trials.append(Trial(row, paying))
    return trials


@transaction.atomic
def playground_open(
    *, actor: Principal, name: str, session_key: str, department: str = ""
) -> tuple[PlaygroundToken, str]:
    """Create a token for the serving deployment of that name, and return its text once.

    `department` (a slug) pays; it is optional if only one of the person's departments can pay.

    Raises:
        NotFound: the actor sees no serving deployment of that name.
        NotPermitted: the policy denies its use, or none of the actor's departments may pay.
        InvalidInput: the department may not pay, or none was named and several may.
        NotAuthenticated, QuotaExceeded: see `playground_token_create`.
    """
    rows = _primaries(actor)
    row = None if "\x00" in name else rows.filter(name=name).first()
    if row is None:
        raise NotFound(f"Deployment {name[:80]!r} does not serve, or you may not see it.")
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
    classifications = version_classifications([row.release.version_id for row in rows])
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
                classification=classifications[row.release.version_id],
            ),
        )


def _context(row: Deployment) -> dict[str, Any]:
    return {**probing_context(Action.DEPLOYMENT_INVOKE), **deployment_context(row.release)}


def _paying(
    policy: PolicySnapshot, actor: Principal, row: Deployment, resource: Resource
) -> tuple[str, ...]:
    """Return the actor's departments whose roles alone allow the use of the deployment, within the
    conditions of its release."""
    conditions = row.release.conditions
    only = set(Conditions.from_json(conditions).departments) if conditions else set()
    slugs = []
    for slug in sorted(actor.departments):
        roles = frozenset(role for role in actor.roles if role.department in (None, slug))
        member = replace(actor, roles=roles)
        context = _context(row)
        if (not only or slug in only) and decide(
            policy, member, Action.DEPLOYMENT_INVOKE, resource, context
        ).allowed:
            slugs.append(slug)
    return tuple(slugs)
