"""Departments and people in roles, in a few words."""

from __future__ import annotations

from governance.people.models import Department, Person, RoleAssignment


def find_or_make(slug: str) -> Department:
    """The department with this slug."""
    return Department.objects.get_or_create(slug=slug, defaults={"name": slug.title()})[0]


def make_person(name: str, *roles: str) -> Person:
    """A person in roles: `admin`, `reviewer:security`, `lead@clinical`."""
    email = f"{name.lower().replace(' ', '.')}@example.org"
    made = Person(name=name, email=email)
    made.set_unusable_password()
    made.save()
    for text in roles:
        role, _, slug = text.partition("@")
        role, _, speciality = role.partition(":")
        RoleAssignment.objects.create(
            person=made,
            role=role,
            speciality=speciality,
            department=find_or_make(slug) if slug else None,
        )
    return made
