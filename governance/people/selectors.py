"""Selectors of people and departments, and the principals and resources of the policy."""

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
from governance.people.schemas import PeopleFilter
from governance.permissions import Action
from governance.policy.engine import Resource, decide
from governance.policy.selectors import visible_to
from governance.policy.services import active_policy
from governance.principals import ActorRole, Principal, PrincipalKind, Proof

ADMINISTRATORS_MAX = 100


def principal_for_person(
    person: Person,
    *,
    scopes: frozenset[str] | None = None,
    key_id: int | None = None,
    proof: Proof | None = None,
) -> Principal:
    """Return the person as an actor with all their roles, or without roles if they are inactive.

    Pass `scopes` and `key_id` when they act through an access token; `proof` is the newest of their
    session or token.
    """
    roles: frozenset[ActorRole] = frozenset()
    if person.is_active:
        rows = person.role_assignments.values_list("role", "department__slug", "specialty")
        roles = frozenset(
            ActorRole(role=role, department=department, specialty=specialty)
            for role, department, specialty in rows
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
        and not privileged_roles().isdisjoint(role.role for role in roles),
    )


def principals_of(people: Sequence[Person]) -> list[Principal]:
    """Return the principals of many people, as `principal_for_person`, with one query."""
    roles: dict[int, set[ActorRole]] = defaultdict(set)
    rows = RoleAssignment.objects.filter(person__in=people, person__is_active=True)
    for pk, *role in rows.values_list("person_id", "role", "department__slug", "specialty"):
        roles[pk].add(ActorRole(*role))
    return [
        Principal(
            kind=PrincipalKind.PERSON,
            id=str(person.pk),
            name=person.name,
            roles=frozenset(roles[person.pk]),
            person_id=person.pk,
        )
        for person in people
    ]


def person_resource(person: Person) -> Resource:
    """Return the person as a resource of the policy."""
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
    """Return the department as a resource of the policy; it belongs to itself."""
    return Resource(
        "department", id=department.slug, name=department.slug, department=department.slug
    )


def departments_visible_to(actor: Principal) -> QuerySet[Department]:
    """Return the departments that the actor may see."""
    return visible_to(
        actor, Action.DEPARTMENT_VIEW, Department.objects.all(), resource_type="department"
    )


def people_visible_to(actor: Principal) -> QuerySet[Person]:
    """Return the people whom the actor may see: colleagues, or everyone."""
    return visible_to(actor, Action.PERSON_VIEW, Person.objects.all(), resource_type="person")


# A person who shares no department with the actor, for permissions over people in general.
PEOPLE_AT_LARGE = Resource("person", attributes={"departments": frozenset(), "owner": None})


def sees_everyone(actor: Principal) -> bool:
    """Return whether the actor may see people of any department, and so the group mappings."""
    return decide(active_policy(), actor, Action.PERSON_VIEW, PEOPLE_AT_LARGE).allowed


def people_matching(actor: Principal, query: PeopleFilter) -> QuerySet[Person]:
    """Return the people whom the actor may see and who pass the filters. Those of a department hold
    a role in it."""
    people = people_visible_to(actor)
    if query.q:
        people = people.filter(Q(name__icontains=query.q) | Q(email__icontains=query.q))
    if query.state:
        people = people.filter(is_active=query.state == "active")
    if query.department:
        members = Person.objects.filter(role_assignments__department__slug=query.department)
        people = people.filter(pk__in=members.values("pk"))
    return people


def group_mappings_visible_to(actor: Principal) -> QuerySet[GroupMapping]:
    """Return the group mappings if the actor sees everyone; else none."""
    rows = GroupMapping.objects.select_related("department", "created_by")
    return rows if sees_everyone(actor) else rows.none()


def directory_groups_visible_to(actor: Principal) -> QuerySet[DirectoryGroup]:
    """Return the provisioned groups with `members_n` if the actor sees everyone; else none."""
    groups = DirectoryGroup.objects.annotate(members_n=Count("members")).order_by("name", "pk")
    return groups if sees_everyone(actor) else groups.none()


def department_get(*, slug: str, actor: Principal | None = None) -> Department:
    """Return the department with this slug; with an `actor`, only if they may see it.

    Raises:
        NotFound: it does not exist, or the actor may not see it.
    """
    departments = Department.objects.all() if actor is None else departments_visible_to(actor)
    # PostgreSQL cannot store NUL, and raises an error on comparison with one.
    department = None if "\x00" in slug else departments.filter(slug=slug).first()
    if department is None:
        raise NotFound(
            f"There is no department {slug[:60]}.", hint="Departments are named by their slug."
        )
    return department


def person_get(*, actor: Principal, person_id: int) -> Person:
    """Return the person. Raises NotFound if they do not exist, or the actor may not see them."""
    person = people_visible_to(actor).filter(pk=person_id).first()
    if person is None:
        raise NotFound(f"There is no person {person_id}.")
    return person


def administrators() -> list[Person]:
    """Return the active administrators, at most `ADMINISTRATORS_MAX`, for notices."""
    admins = Person.objects.filter(is_active=True, role_assignments__role=Role.ADMIN)
    return list(admins.distinct().order_by("pk")[:ADMINISTRATORS_MAX])
