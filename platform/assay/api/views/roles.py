"""Roles of people, granted by hand or through groups, and mappings of groups to roles."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.representations.governance import (
    GroupAnswer,
    GroupMappingAnswer,
    RoleAnswer,
    RoleRequestAnswer,
)
from assay.api.routes import Routes
from governance.errors import NotFound
from governance.people.groups import group_mapping_create, group_mapping_delete
from governance.people.models import DirectoryGroup, RoleRequest
from governance.people.role_requests import (
    role_request_approve,
    role_request_get,
    role_request_reject,
    role_request_withdraw,
    role_requests_visible_to,
)
from governance.people.roles import role_grant, role_revoke
from governance.people.schemas import (
    NewGroupMapping,
    RoleGrant,
    RoleRequestFilter,
    RoleRequestRejection,
)
from governance.people.selectors import (
    department_get,
    directory_groups_visible_to,
    group_mappings_visible_to,
    person_get,
)
from governance.principals import Principal
from governance.schemas import Schema


def _role(body: RoleGrant, actor: Principal | None = None) -> dict[str, Any]:
    """Return a role as arguments of services; with `actor`, they must see its department."""
    slug = body.department
    department = department_get(slug=slug, actor=actor) if slug else None
    return {**dict(body), "department": department, "specialty": body.specialty or ""}


class PersonRolesView(Endpoint):
    """Roles of one person."""

    @operation(
        "People",
        "Grant a role; a second administrator approves the roles administrator and reviewer",
        body=RoleGrant,
        answer=RoleAnswer,
        status=201,
        judged=True,
        also={202: RoleRequestAnswer},
    )
    def post(self, request: Request, person_id: int) -> Response:
        body = self.body_as(RoleGrant)
        person = person_get(actor=self.actor, person_id=person_id)
        outcome = role_grant(actor=self.actor, person=person, **_role(body))
        if isinstance(outcome, RoleRequest):
            return self.answer(outcome, RoleRequestAnswer, status=202)
        return self.answer(outcome, RoleAnswer, status=201)


class GroupMappingsView(Endpoint):
    """Roles that members of groups get."""

    @operation("People", "List group mappings", answer=GroupMappingAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query_as(Schema)
        return self.page(group_mappings_visible_to(self.actor), GroupMappingAnswer)

    @operation(
        "People",
        "Map a group to a role; a second administrator approves administrator and reviewer",
        body=NewGroupMapping,
        answer=GroupMappingAnswer,
        status=201,
        judged=True,
        also={202: RoleRequestAnswer},
    )
    def post(self, request: Request) -> Response:
        body = self.body_as(NewGroupMapping)
        outcome = group_mapping_create(actor=self.actor, **_role(body, self.actor))
        if isinstance(outcome, RoleRequest):
            return self.answer(outcome, RoleRequestAnswer, status=202)
        return self.answer(outcome, GroupMappingAnswer, status=201)


routes = Routes("People", RoleRequestAnswer)


@routes.delete(
    "people/<id:person_id>/roles/<id:assignment_id>",
    "Remove a role from a person",
    name="person_role_delete",
)
def revoke(actor: Principal, person_id: int, assignment_id: int) -> None:
    person = person_get(actor=actor, person_id=person_id)
    if not person.role_assignments.filter(pk=assignment_id).exists():
        raise NotFound(f"{person.name} has no role with the ID {assignment_id}.")
    role_revoke(actor=actor, assignment_id=assignment_id)


@routes.list("role-requests", "List requests for the roles administrator and reviewer")
def requests(actor: Principal, query: RoleRequestFilter) -> QuerySet[RoleRequest]:
    return query.applied(role_requests_visible_to(actor))


@routes.post("role-requests/<id:request_id>/approve", "Approve a role request")
def approve(actor: Principal, request_id: int) -> RoleRequest:
    role_request_get(actor=actor, request_id=request_id)
    return role_request_approve(actor=actor, request_id=request_id)


@routes.post("role-requests/<id:request_id>/reject", "Reject a role request")
def reject(actor: Principal, request_id: int, body: RoleRequestRejection) -> RoleRequest:
    role_request_get(actor=actor, request_id=request_id)
    return role_request_reject(actor=actor, request_id=request_id, reason=body.reason)


@routes.post("role-requests/<id:request_id>/withdraw", "Withdraw a role request")
def withdraw(actor: Principal, request_id: int) -> RoleRequest:
    role_request_get(actor=actor, request_id=request_id)
    return role_request_withdraw(actor=actor, request_id=request_id)


@routes.list("groups", "List provisioned groups", answer=GroupAnswer)
def groups(actor: Principal) -> QuerySet[DirectoryGroup]:
    return directory_groups_visible_to(actor)


@routes.delete("group-mappings/<id:mapping_id>", "Delete a group's mapping to a role")
def unmap(actor: Principal, mapping_id: int) -> None:
    group_mapping_delete(actor=actor, mapping_id=mapping_id)
