"""Departments, the retention of their responses, and people."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from assay.accounts.erasure import account_erase
from assay.api.representations.governance import (
    DepartmentAnswer,
    OneTimeLinkAnswer,
    PersonAnswer,
)
from assay.api.routes import Routes
from governance.people.links import is_mailed, password_link_create
from governance.people.models import Department, Person
from governance.people.schemas import (
    Deactivation,
    Erasure,
    JobsAtOnce,
    NewDepartment,
    NewPerson,
    PeopleFilter,
    Reactivation,
)
from governance.people.selectors import (
    department_get,
    departments_visible_to,
    people_matching,
    person_get,
)
from governance.people.services import (
    department_create,
    department_limit_jobs,
    person_create,
    person_deactivate,
    person_reactivate,
)
from governance.principals import Principal
from registry.responses.schemas import ResponseRetentionDays
from registry.responses.selectors import retention_days
from registry.responses.services import retention_set

departments = Routes("People", DepartmentAnswer)
people = Routes("People", PersonAnswer)


class RetentionAnswer(serializers.Serializer[Any]):
    """Days for which a department keeps responses; 0 if it stores none."""

    department = serializers.CharField()
    days = serializers.IntegerField()


@departments.list("departments", "List departments")
def departments_listed(actor: Principal) -> QuerySet[Department]:
    return departments_visible_to(actor)


@departments.post("departments", "Create a department", status=201)
def create_department(actor: Principal, body: NewDepartment) -> Department:
    return department_create(actor=actor, slug=body.slug, name=body.name)


@departments.get("departments/<slug:slug>", "Get a department")
def show_department(actor: Principal, slug: str) -> Department:
    return department_get(actor=actor, slug=slug)


@departments.post(
    "departments/<slug:slug>/jobs-at-once",
    "Limit the jobs of a department that run at once",
    name="jobs_at_once_post",
)
def limit_jobs(actor: Principal, slug: str, body: JobsAtOnce) -> Department:
    department = department_get(actor=actor, slug=slug)
    return department_limit_jobs(actor=actor, department=department, jobs_at_once=body.jobs_at_once)


@departments.get(
    "departments/<slug:slug>/response-retention",
    "Get the retention of a department's responses",
    answer=RetentionAnswer,
    name="response_retention_get",
)
def show_retention(actor: Principal, slug: str) -> dict[str, Any]:
    department = department_get(actor=actor, slug=slug)
    return {"department": department.slug, "days": retention_days(department)}


@departments.post(
    "departments/<slug:slug>/response-retention",
    "Set the retention of a department's responses",
    answer=RetentionAnswer,
    name="response_retention_post",
)
def set_retention(actor: Principal, slug: str, body: ResponseRetentionDays) -> dict[str, Any]:
    department = department_get(actor=actor, slug=slug)
    retention = retention_set(actor=actor, department=department, days=body.days)
    return {"department": department.slug, "days": retention.days}


@people.list("people", "List people")
def people_listed(actor: Principal, query: PeopleFilter) -> QuerySet[Person]:
    return people_matching(actor, query).prefetch_related("role_assignments__department")


@people.post("people", "Create a person", status=201)
def create(actor: Principal, body: NewPerson) -> Person:
    return person_create(actor=actor, email=body.email, name=body.name)


@people.get("people/<id:person_id>", "Get a person", name="person_get")
def show(actor: Principal, person_id: int) -> Person:
    return person_get(actor=actor, person_id=person_id)


@people.post(
    "people/<id:person_id>/deactivate", "Deactivate a person", name="person_deactivate_post"
)
def deactivate(actor: Principal, person_id: int, body: Deactivation) -> Person:
    person_get(actor=actor, person_id=person_id)
    return person_deactivate(actor=actor, person_id=person_id, reason=body.reason)


@people.post(
    "people/<id:person_id>/reactivate", "Reactivate a person", name="person_reactivate_post"
)
def reactivate(actor: Principal, person_id: int, body: Reactivation) -> Person:
    person_get(actor=actor, person_id=person_id)
    return person_reactivate(actor=actor, person_id=person_id, reason=body.reason)


@people.post(
    "people/<id:person_id>/erase",
    "Erase a person whose access has ended: name, addresses and credentials are deleted "
    "permanently, also from the audit log",
    name="person_erase_post",
)
def erase(actor: Principal, person_id: int, body: Erasure) -> Person:
    person_get(actor=actor, person_id=person_id)
    return account_erase(actor=actor, person_id=person_id, reason=body.reason)


@people.post(
    "people/<id:person_id>/password-link",
    "Invite a person, or reset their password, by a one-time link",
    answer=OneTimeLinkAnswer,
    status=201,
    name="person_password_link_post",
)
def link_password(actor: Principal, person_id: int) -> dict[str, Any]:
    """Requires a recent second factor of yours (403 `step_up_required`). The link is shown only
    once, replaces an earlier one, and is mailed if a mail server is set. An account with a
    platform-wide role but without a second factor needs a recovery instead (403 `recovery_needed`).
    """
    link, address = password_link_create(actor=actor, person_id=person_id)
    return {
        "purpose": str(link.purpose),
        "link": address,
        "expires_at": link.expires_at,
        "mailed": is_mailed(),
    }
