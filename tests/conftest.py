"""What every test needs of the database, and people in roles, in a few words:
`person("Ada", "lead@clinical", "reviewer:security")`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import authlib.deprecate  # noqa: F401 (it asks for its warnings; pytest's filters must come after)
import pytest
from django.db import connection
from django.db.backends.postgresql.operations import DatabaseOperations

from governance.audit.refusals import refusals_forget
from governance.people.models import Department, Person, RoleAssignment
from governance.policy.models import PolicyVersion
from governance.policy.services import policy_bootstrap
from governance.principals import Principal
from governance.reviews.policies.shipping import review_policies_bootstrap
from tests.proofs import proven

APPEND_ONLY = (
    "governance_auditevent",
    "governance_auditcheckpoint",
    "governance_auditcosignature",
    "governance_auditpersonkey",
    "governance_auditsubtree",
    "governance_threadcomment",
    "governance_usagerecord",
    "registry_breakglass",
    "registry_incidentnote",
    "registry_incidentsuspension",
    "registry_incidentversion",
    "workers_servingperiod",
)
_flush = DatabaseOperations.sql_flush


def _flush_append_only(
    self: DatabaseOperations, style: Any, tables: Any, **options: bool
) -> list[str]:
    """A transactional test empties every table when it is over. The audit log refuses that, and has
    no way around it that an attacker could use too; so the table's owner takes the guard off, as
    only an owner can, in the transaction that empties it."""
    guarded = [table for table in tables if table in APPEND_ONLY]
    change = "ALTER TABLE {} {} TRIGGER assay_append_only_truncate;"
    return [
        *(change.format(table, "DISABLE") for table in guarded),
        *_flush(self, style, tables, **options),
        *(change.format(table, "ENABLE ALWAYS") for table in guarded),
    ]


@pytest.fixture(scope="session", autouse=True)
def _tests_may_empty_the_audit_log() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseOperations, "sql_flush", _flush_append_only)
        yield


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Any:
    """As pytest-django's. Threads of servers that tests started may still hold connections when the
    database is to be dropped; they are ended first."""
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.fixture(autouse=True)
def _refusals_of_other_tests_do_not_count() -> None:
    refusals_forget()


@pytest.fixture
def policy(db: None) -> PolicyVersion:
    """The default policy, active, and the review policies that come with it."""
    review_policies_bootstrap()
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
                department=department(slug) if slug else None,
            )
        return made

    return make


@pytest.fixture
def actor(policy: PolicyVersion, person: Callable[..., Person]) -> Callable[..., Principal]:
    """As `person`, as an actor under the default policy who has just proved who they are."""

    def make(name: str, *roles: str) -> Principal:
        return proven(person(name, *roles))

    return make
