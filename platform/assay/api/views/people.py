"""Departments, the retention of their responses, and people."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.accounts.erasure import account_erase
from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Line, Slug, StrictSerializer, Whole
from assay.api.representations.governance import (
    DepartmentAnswer,
    OneTimeLinkAnswer,
    PersonAnswer,
)
from governance.bounds import DEPARTMENT_MAX, EMAIL_MAX, TITLE_MAX
from governance.people.links import is_mailed, password_link_create
from governance.people.models import JOBS_AT_ONCE_MAX, REASON_MAX
from governance.people.selectors import (
    department_get,
    departments_visible_to,
    people_found,
    person_get,
)
from governance.people.services import (
    department_create,
    department_limit_jobs,
    person_create,
    person_deactivate,
    person_reactivate,
)
from registry.responses.models import RETENTION_MAX_DAYS
from registry.responses.selectors import retention_days
from registry.responses.services import retention_set


class DepartmentBody(StrictSerializer):
    """A new department."""

    slug = Slug(max_length=DEPARTMENT_MAX)
    name = Line(max_length=TITLE_MAX)


class DepartmentsView(Endpoint):
    """Departments."""

    @operation("People", "List departments", answer=DepartmentAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(departments_visible_to(self.actor), DepartmentAnswer)

    @operation(
        "People",
        "Create a department",
        body=DepartmentBody,
        answer=DepartmentAnswer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        made = department_create(actor=self.actor, **self.body(DepartmentBody))
        return self.answer(made, DepartmentAnswer, status=201)


class DepartmentView(Endpoint):
    """One department."""

    @operation("People", "Get a department", answer=DepartmentAnswer)
    def get(self, request: Request, slug: str) -> Response:
        self.query()
        return self.answer(department_get(actor=self.actor, slug=slug), DepartmentAnswer)


class JobsAtOnceBody(StrictSerializer):
    """The most jobs of a department that run at the same time; null is the platform's default."""

    jobs_at_once = Whole(min_value=1, max_value=JOBS_AT_ONCE_MAX, allow_null=True)


class JobsAtOnceView(Endpoint):
    """Limit on the jobs of a department."""

    @operation(
        "People",
        "Limit the jobs of a department that run at once",
        body=JobsAtOnceBody,
        answer=DepartmentAnswer,
    )
    def post(self, request: Request, slug: str) -> Response:
        given = self.body(JobsAtOnceBody)
        department = department_get(actor=self.actor, slug=slug)
        limited = department_limit_jobs(actor=self.actor, department=department, **given)
        return self.answer(limited, DepartmentAnswer)


class PersonBody(StrictSerializer):
    """A new person. They set their own password, by a one-time link."""

    email = Line(max_length=EMAIL_MAX)
    name = Line(max_length=TITLE_MAX)


class PeopleQuery(StrictSerializer):
    """Which people: `q` stands in their name or address."""

    q = Line(max_length=100, required=False)
    state = Choice(choices=("active", "inactive"), required=False)
    department = Slug(max_length=DEPARTMENT_MAX, required=False)


class PeopleView(Endpoint):
    """People."""

    @operation("People", "List people", query=PeopleQuery, answer=PersonAnswer, paged=True)
    def get(self, request: Request) -> Response:
        asked = self.query(PeopleQuery)
        state = asked.get("state")
        people = people_found(
            self.actor,
            text=asked.get("q", ""),
            active=None if state is None else state == "active",
            department=asked.get("department", ""),
        )
        return self.page(people.prefetch_related("role_assignments__department"), PersonAnswer)

    @operation("People", "Create a person", body=PersonBody, answer=PersonAnswer, status=201)
    def post(self, request: Request) -> Response:
        made = person_create(actor=self.actor, **self.body(PersonBody))
        return self.answer(made, PersonAnswer, status=201)


class PersonView(Endpoint):
    """One person."""

    @operation("People", "Get a person", answer=PersonAnswer)
    def get(self, request: Request, person_id: int) -> Response:
        self.query()
        return self.answer(person_get(actor=self.actor, person_id=person_id), PersonAnswer)


class DeactivationBody(StrictSerializer):
    """Why their access ends."""

    reason = Line(max_length=REASON_MAX)


class PersonDeactivateView(Endpoint):
    """Ending a person's access."""

    @operation("People", "Deactivate a person", body=DeactivationBody, answer=PersonAnswer)
    def post(self, request: Request, person_id: int) -> Response:
        given = self.body(DeactivationBody)
        person_get(actor=self.actor, person_id=person_id)
        person = person_deactivate(actor=self.actor, person_id=person_id, **given)
        return self.answer(person, PersonAnswer)


class ReactivationBody(StrictSerializer):
    """Why they have access again."""

    reason = Line(max_length=REASON_MAX, required=False)


class PersonReactivateView(Endpoint):
    """Giving a person their access back."""

    @operation("People", "Reactivate a person", body=ReactivationBody, answer=PersonAnswer)
    def post(self, request: Request, person_id: int) -> Response:
        given = self.body(ReactivationBody)
        person_get(actor=self.actor, person_id=person_id)
        person = person_reactivate(actor=self.actor, person_id=person_id, **given)
        return self.answer(person, PersonAnswer)


class ErasureBody(StrictSerializer):
    """Why they are erased. It stands in the audit log for good, so it must not name them."""

    reason = Line(max_length=REASON_MAX)


class PersonEraseView(Endpoint):
    """Erasing a person."""

    @operation(
        "People",
        "Erase a person whose access has ended: name, addresses and credentials are deleted for "
        "good, also from the audit log",
        body=ErasureBody,
        answer=PersonAnswer,
    )
    def post(self, request: Request, person_id: int) -> Response:
        given = self.body(ErasureBody)
        person_get(actor=self.actor, person_id=person_id)
        person = account_erase(actor=self.actor, person_id=person_id, **given)
        return self.answer(person, PersonAnswer)


class PersonPasswordLinkView(Endpoint):
    """The one-time link by which a person sets their password."""

    @operation(
        "People",
        "Invite a person, or reset their password, by a one-time link",
        answer=OneTimeLinkAnswer,
        status=201,
        description="Needs a fresh second factor of yours (403 `step_up_required`). The link is "
        "shown this once, replaces an earlier one, and is mailed where a mail server is set. An "
        "account that holds a platform-wide role and has no second factor takes a recovery instead "
        "(403 `recovery_needed`).",
    )
    def post(self, request: Request, person_id: int) -> Response:
        self.nothing()
        link, address = password_link_create(actor=self.actor, person_id=person_id)
        answer = {
            "purpose": str(link.purpose),
            "link": address,
            "expires_at": link.expires_at,
            "mailed": is_mailed(),
        }
        response = self.answer(answer, OneTimeLinkAnswer, status=201)
        response.headers["Cache-Control"] = "no-store"
        return response


class RetentionBody(StrictSerializer):
    """Days for which responses are kept; 0 deletes all of them and stores no more."""

    days = Whole(max_value=RETENTION_MAX_DAYS)


class RetentionAnswer(serializers.Serializer[Any]):
    """Days for which a department keeps responses; 0: it stores none."""

    department = serializers.CharField()
    days = serializers.IntegerField()


class ResponseRetentionView(Endpoint):
    """Retention of the responses that /v1/responses stores."""

    @operation("People", "Get how long a department keeps responses", answer=RetentionAnswer)
    def get(self, request: Request, slug: str) -> Response:
        self.query()
        department = department_get(actor=self.actor, slug=slug)
        found = {"department": department.slug, "days": retention_days(department)}
        return self.answer(found, RetentionAnswer)

    @operation(
        "People",
        "Set how long a department keeps responses",
        body=RetentionBody,
        answer=RetentionAnswer,
    )
    def post(self, request: Request, slug: str) -> Response:
        given = self.body(RetentionBody)
        department = department_get(actor=self.actor, slug=slug)
        kept = retention_set(actor=self.actor, department=department, days=given["days"])
        return self.answer({"department": department.slug, "days": kept.days}, RetentionAnswer)
