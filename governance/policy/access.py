"""Lists of the principals that may do an action under a set of rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from governance.errors import WrongState
from governance.keys.models import ApiKey
from governance.people.models import Person, RoleAssignment
from governance.permissions import Action
from governance.policy.context import base_context, probing_context
from governance.policy.engine import PolicyDecision, PolicySnapshot, Resource, decide
from governance.principals import ActorRole, Principal, PrincipalKind

# Rules may forbid decisions on policies at night or on weekends. They lock people out only if
# decisions are denied now and at all of these moments.
_MOMENTS: tuple[dict[str, Any], ...] = (
    {},
    {"weekday": 3, "time": "10:30"},
    {"weekday": 3, "time": "22:30"},
    {"weekday": 7, "time": "10:30"},
)
DECIDERS_NEEDED = 2


@dataclass(frozen=True, slots=True)
class Holder:
    """A person or key that may do the action, and the decision that permits it."""

    principal: Principal
    decision: PolicyDecision


@dataclass(frozen=True, slots=True)
class Holders:
    """People and keys that may do the action (the first by name), and how many were checked."""

    people: list[Holder]
    keys: list[Holder]
    people_total: int
    keys_total: int
    people_checked: int
    keys_checked: int


def people_in_roles(among: QuerySet[Person] | None = None) -> Iterator[Principal]:
    """Yield active people with a role as actors, only those in `among` if given; one query."""
    roles = RoleAssignment.objects.filter(person__is_active=True)
    if among is not None:
        roles = roles.filter(person__in=among)
    columns = roles.order_by("person__name", "person_id", "pk").values_list(
        "person_id", "person__name", "role", "department__slug", "specialty"
    )
    for (person_id, name), rows in groupby(columns.iterator(), key=lambda row: (row[0], row[1])):
        yield Principal(
            kind=PrincipalKind.PERSON,
            id=str(person_id),
            name=name,
            roles=frozenset(
                ActorRole(role, department, specialty) for *_, role, department, specialty in rows
            ),
            person_id=person_id,
        )


def people_without_roles(among: QuerySet[Person] | None = None) -> Iterator[Principal]:
    """Yield active people without a role as actors, only those in `among` if given; one query."""
    people = Person.objects.filter(is_active=True, role_assignments__isnull=True)
    if among is not None:
        people = people.filter(pk__in=among)
    for person_id, name in people.order_by("name", "pk").values_list("pk", "name").iterator():
        yield Principal(PrincipalKind.PERSON, str(person_id), name, person_id=person_id)


def live_keys(among: QuerySet[ApiKey] | None = None) -> Iterator[Principal]:
    """Yield the live keys of departments as actors, only those in `among` if given; one query."""
    keys = (ApiKey.objects.all() if among is None else among).filter(
        revoked_at__isnull=True, expires_at__gt=timezone.now(), department__isnull=False
    )
    columns = ("pk", "name", "department__slug", "scopes")
    for pk, name, department, scopes in keys.order_by("name", "pk").values_list(*columns):
        yield Principal(
            kind=PrincipalKind.KEY,
            id=str(pk),
            name=name,
            department=department,
            scopes=frozenset(scopes),
            key_id=pk,
        )


def who_can_under(
    snapshot: PolicySnapshot,
    action: Action,
    resource: Resource,
    *,
    context: Mapping[str, Any] | None = None,
    limit: int = 200,
    people: QuerySet[Person] | None = None,
    keys: QuerySet[ApiKey] | None = None,
) -> Holders:
    """Return who may do `action` on `resource` under `snapshot`; at most `limit` of each kind.

    Access tokens are not listed: they belong to their person. `context` overrides the present
    context. `people` and `keys`, if given, restrict the check to these.
    """
    inputs = (action.value, resource, {**probing_context(action), **(context or {})})
    everyone = [*people_in_roles(people), *people_without_roles(people)]
    checked_people, checked_keys = (
        [Holder(actor, decide(snapshot, actor, *inputs)) for actor in actors]
        for actors in (everyone, live_keys(keys))
    )
    able_people, able_keys = (
        [holder for holder in checked if holder.decision.allowed]
        for checked in (checked_people, checked_keys)
    )
    return Holders(
        people=able_people[:limit],
        keys=able_keys[:limit],
        people_total=len(able_people),
        keys_total=len(able_keys),
        people_checked=len(checked_people),
        keys_checked=len(checked_keys),
    )


def require_two_deciders(snapshot: PolicySnapshot, verb: str) -> None:
    """Check that policies can still be changed under these rules.

    Raises:
        WrongState: fewer than two active people could view and decide on policies, or none could
            view and draft them.
    """
    deciders = drafters = 0
    for actor in people_in_roles():
        if not _could(snapshot, actor, Action.POLICY_VIEW):
            continue
        deciders += _could(snapshot, actor, Action.POLICY_DECIDE)
        drafters += _could(snapshot, actor, Action.POLICY_DRAFT)
        if deciders >= DECIDERS_NEEDED and drafters:
            return
    raise WrongState(
        f"Policy {snapshot.version} cannot be {verb}: under it {deciders} of the people with a "
        f"role could decide on policies and {drafters} could draft one. A mistake in it could not "
        "be corrected.",
        code="policy_locks_out",
        hint="Two active people must be able to view and decide on policies, and one to draft.",
    )


def _could(snapshot: PolicySnapshot, actor: Principal, action: Action) -> bool:
    """Return whether the actor could do it with the context that a decision on a policy states."""
    resource = Resource("policy", id="0", name="0")
    return any(
        decide(snapshot, actor, action.value, resource, {**base_context(), **moment}).allowed
        for moment in _MOMENTS
    )
