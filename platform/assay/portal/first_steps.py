"""The first steps of an installation that holds nothing yet, for its administrators."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Exists, OuterRef

from governance.people.models import Department, Person, Role, RoleAssignment
from governance.principals import Principal
from registry.versions.models import Model


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it is for, its page, and whether it is done."""

    title: str
    why: str
    url: str
    done: bool


def first_steps(actor: Principal) -> list[Step]:
    """Return the steps while one of them is not done; nothing for others than administrators."""
    if not any(held.role == Role.ADMIN for held in actor.roles):
        return []
    admins = RoleAssignment.objects.filter(role=Role.ADMIN, person=OuterRef("pk"))
    several = Person.objects.filter(Exists(admins), is_active=True)[:2].count() > 1
    held = set(RoleAssignment.objects.order_by().values_list("role", flat=True).distinct())
    steps = [
        Step(
            "Invite a second administrator",
            "Two people can then approve each other's changes, and let each other back in.",
            "portal:people",
            several,
        ),
        Step(
            "Create a department",
            "Departments own models, datasets, keys and budgets.",
            "portal:departments",
            Department.objects.exists(),
        ),
        Step(
            "Give the department a lead",
            "Invite a person, then grant the role on their page.",
            "portal:people",
            Role.LEAD in held,
        ),
        Step(
            "Appoint a reviewer",
            "Nothing serves before reviewers have approved its release.",
            "portal:people",
            Role.REVIEWER in held,
        ),
        Step(
            "Register a base model",
            "Upload its files: they are checked before anybody can use them.",
            "portal:models",
            Model.objects.exists(),
        ),
    ]
    return [] if all(step.done for step in steps) else steps
