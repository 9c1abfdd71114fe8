"""Departments, people and their roles."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Line, Password, Slug, StrictSerializer
from assay.api.representations.governance import DepartmentAnswer, PersonAnswer, RoleAnswer
from governance.errors import NotFound
from governance.people.models import Role, Speciality
from governance.people.selectors import (
    department_get,
    departments_visible_to,
    people_visible_to,
    person_get,
)
from governance.people.services import department_create, person_create, role_grant, role_revoke


class DepartmentBody(StrictSerializer):
    """A new department."""

    slug = Slug(max_length=40)
    name = Line(max_length=120)


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


class PersonBody(StrictSerializer):
    """A new person; without a password they cannot sign in with one."""

    email = Line(max_length=254)
    name = Line(max_length=120)
    password = Password(required=False)


class PeopleView(Endpoint):
    """People."""

    @operation("People", "List people", answer=PersonAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        people = people_visible_to(self.actor).prefetch_related("role_assignments__department")
        return self.page(people, PersonAnswer)

    @operation("People", "Create a person", body=PersonBody, answer=PersonAnswer, status=201)
    def post(self, request: Request) -> Response:
        made = person_create(actor=self.actor, **self.body(PersonBody))
        return self.answer(made, PersonAnswer, status=201)


class RoleBody(StrictSerializer):
    """A role: platform-wide without a department; reviewers name their speciality."""

    role = Choice(choices=Role.choices)
    department = Slug(max_length=40, required=False)
    speciality = Choice(choices=Speciality.choices, required=False)


class PersonRolesView(Endpoint):
    """Roles of one person."""

    @operation("People", "Grant a role", body=RoleBody, answer=RoleAnswer, status=201)
    def post(self, request: Request, person_id: int) -> Response:
        given = self.body(RoleBody)
        slug = given.get("department")
        made = role_grant(
            actor=self.actor,
            person=person_get(actor=self.actor, person_id=person_id),
            role=given["role"],
            department=department_get(slug=slug) if slug else None,
            speciality=given.get("speciality", ""),
        )
        return self.answer(made, RoleAnswer, status=201)


class PersonRoleView(Endpoint):
    """One role of one person."""

    @operation("People", "Take a role away", answer=None, status=204)
    def delete(self, request: Request, person_id: int, assignment_id: int) -> Response:
        person = person_get(actor=self.actor, person_id=person_id)
        if not person.role_assignments.filter(pk=assignment_id).exists():
            raise NotFound(f"{person.name} holds no role with the id {assignment_id}.")
        role_revoke(actor=self.actor, assignment_id=assignment_id)
        return Response(status=204)
