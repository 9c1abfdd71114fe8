"""Reads of people, and of their roles for the policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from django.db.models import Count, Q, QuerySet

from governance.errors import NotFound
from governance.people.credentials import privileged_roles
from governance.people.models import (
    Department,
    DirectoryGroup,
    GroupMapping,
    Person,
    Role,
    RoleAssignment,
)
from governance.permissions import Action
from governance.policy.engine import Resource, decide
from governance.policy.selectors import visible_to
from governance.policy.services import active_policy
from governance.principals import HeldRole, Principal, PrincipalKind, Proof

ADMINISTRATORS_MAX = 100


def principal_for_person(
    person: Person,
    *,
    scopes: frozenset[str] | None = None,
    key_id: int | None = None,
    proof: Proof | None = None,
) -> Principal:
    """The person as an actor, with every role they hold; none when they are inactive.

    `scopes` and `key_id` are given when an access token speaks for them; `proof` is the newest of
    their session or token.
    """
    roles: frozenset[HeldRole] = frozenset()
    if person.is_active:
        held = person.role_assignments.values_list("role", "department__slug", "specialty")
        roles = frozenset(
            HeldRole(role=role, department=department, specialty=specialty)
            for role, department, specialty in held
        )
    return Principal(
        kind=PrincipalKind.PERSON,
        id=str(person.pk),
        name=person.name,
        roles=roles,
        scopes=scopes,
        person_id=person.pk,
        key_id=key_id,
        proof=proof,
        unconfirmed=person.unconfirmed_at is not None
        and not privileged_roles().isdisjoint(held.role for held in roles),
    )


def principals_of(people: Sequence[Person]) -> list[Principal]:
    """Each of them as `principal_for_person` has them, in one query."""
    held: dict[int, set[HeldRole]] = defaultdict(set)
    rows = RoleAssignment.objects.filter(person__in=people, person__is_active=True)
    for pk, *role in rows.values_list("person_id", "role", "department__slug", "specialty"):
        held[pk].add(HeldRole(*role))
    return [
        Principal(
            kind=PrincipalKind.PERSON,
            id=str(person.pk),
            name=person.name,
            roles=frozenset(held[person.pk]),
            person_id=person.pk,
        )
        for person in people
    ]


def person_resource(person: Person) -> Resource:
    """A person as the policy sees them."""
    slugs = person.role_assignments.filter(department__isnull=False).values_list(
        "department__slug", flat=True
    )
    return Resource(
        type="person",
        id=str(person.pk),
        name=person.name,
        attributes={"departments": frozenset(slugs), "owner": person.pk},
    )


def department_resource(department: Department) -> Resource:
    """A department as the policy sees it: it belongs to itself."""
    return Resource(
        "department", id=department.slug, name=department.slug, department=department.slug
    )


def departments_visible_to(actor: Principal) -> QuerySet[Department]:
    """The departments that `actor` may see."""
    return visible_to(
        actor, Action.DEPARTMENT_VIEW, Department.objects.all(), resource_type="department"
    )


def people_visible_to(actor: Principal) -> QuerySet[Person]:
    """The people that `actor` may see: colleagues, or everybody."""
    return visible_to(actor, Action.PERSON_VIEW, Person.objects.all(), resource_type="person")


# No particular person: permissions for people who share no department with the actor.
PEOPLE_AT_LARGE = Resource("person", attributes={"departments": frozenset(), "owner": None})


def sees_everyone(actor: Principal) -> bool:
    """True when `actor` may see people of any department, and so the group mappings."""
    return decide(active_policy(), actor, Action.PERSON_VIEW, PEOPLE_AT_LARGE).allowed


def people_found(
    actor: Principal, *, text: str = "", active: bool | None = None, department: str = ""
) -> QuerySet[Person]:
    """Those of the people whom `actor` may see that have `text` in their name or address, are
    active or not, and hold a role in the department of that slug."""
    people = people_visible_to(actor)
    if "\x00" in text + department:
        return people.none()
    if text:
        people = people.filter(Q(name__icontains=text) | Q(email__icontains=text))
    if active is not None:
        people = people.filter(is_active=active)
    if department:
        members = Person.objects.filter(role_assignments__department__slug=department)
        people = people.filter(pk__in=members.values("pk"))
    return people


def group_mappings_visible_to(actor: Principal) -> QuerySet[GroupMapping]:
    """Return the group mappings, for people who see everyone."""
    rows = GroupMapping.objects.select_related("department", "created_by")
    return rows if sees_everyone(actor) else rows.none()


def directory_groups_visible_to(actor: Principal) -> QuerySet[DirectoryGroup]:
    """Every provisioned group with the number of its members, for who sees everyone."""
    groups = DirectoryGroup.objects.annotate(members_n=Count("members")).order_by("name", "pk")
    return groups if sees_everyone(actor) else groups.none()


def department_get(*, slug: str, actor: Principal | None = None) -> Department:
    """The department of that slug; with an `actor`, only if they may see it.

    Raises:
        NotFound: there is none, or they may not see it.
    """
    departments = Department.objects.all() if actor is None else departments_visible_to(actor)
    # PostgreSQL holds no NUL, and refuses to compare with one.
    found = None if "\x00" in slug else departments.filter(slug=slug).first()
    if found is None:
        raise NotFound(
            f"There is no department {slug[:60]}.", hint="Departments are named by their slug."
        )
    return found


def person_get(*, actor: Principal, person_id: int) -> Person:
    """Raises NotFound when there is none, or the actor may not see them."""
    found = people_visible_to(actor).filter(pk=person_id).first()
    if found is None:
        raise NotFound(f"There is no person {person_id}.")
    return found


def administrators() -> list[Person]:
    """Return everyone who administers the platform, for notices."""
    admins = Person.objects.filter(is_active=True, role_assignments__role=Role.ADMIN)
    return list(admins.distinct().order_by("pk")[:ADMINISTRATORS_MAX])
