"""Departments and people in roles, in a few words."""

from __future__ import annotations

from django.utils import timezone

from governance.people.models import Department, OneTimeLink, Person, RoleAssignment


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
        role, _, specialty = role.partition(":")
        RoleAssignment.objects.create(
            person=made,
            role=role,
            specialty=specialty,
            department=find_or_make(slug) if slug else None,
        )
    return made


def set_up_alone(maker: Person, person: Person) -> Person:
    """The person, whose password was set by a link that `maker` alone made."""
    now = timezone.now()
    Person.objects.filter(pk=person.pk).update(unconfirmed_at=now)
    OneTimeLink.objects.create(
        person=person,
        purpose="password",
        public_id=f"{person.pk:012}",
        secret_hmac=b"x" * 32,
        pepper_version=1,
        created_by=maker,
        expires_at=now,
        used_at=now,
    )
    return person
