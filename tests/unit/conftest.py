"""People in roles, in a few words: `person("Ada", "lead@clinical", "reviewer:security")`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from governance.people.models import Department, Person, RoleAssignment
from governance.people.selectors import principal_for_person
from governance.policy.models import PolicyVersion
from governance.policy.services import policy_bootstrap
from governance.principals import Principal


@pytest.fixture
def policy(db: None) -> PolicyVersion:
    """The default policy, active."""
    return policy_bootstrap()


@pytest.fixture
def department(db: None) -> Callable[[str], Department]:
    """Finds or makes a department by its slug."""

    def find_or_make(slug: str) -> Department:
        return Department.objects.get_or_create(slug=slug, defaults={"name": slug.title()})[0]

    return find_or_make


@pytest.fixture
def person(department: Callable[[str], Department]) -> Callable[..., Person]:
    """Makes a person in roles: `admin`, `reviewer:security`, `lead@clinical`."""

    def make(name: str, *roles: str) -> Person:
        email = f"{name.lower().replace(' ', '.')}@example.org"
        made = Person.objects.create(name=name, email=email)
        for text in roles:
            role, _, slug = text.partition("@")
            role, _, speciality = role.partition(":")
            RoleAssignment.objects.create(
                person=made,
                role=role,
                speciality=speciality,
                department=department(slug) if slug else None,
            )
        return made

    return make


@pytest.fixture
def actor(policy: PolicyVersion, person: Callable[..., Person]) -> Callable[..., Principal]:
    """As `person`, as an actor under the default policy."""

    def make(name: str, *roles: str) -> Principal:
        return principal_for_person(person(name, *roles))

    return make
