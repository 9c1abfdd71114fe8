"""Roles that people hold, by hand or through groups, and what groups mean."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Line, Slug, StrictSerializer
from assay.api.representations.governance import (
    GroupAnswer,
    GroupMappingAnswer,
    RoleAnswer,
    RoleRequestAnswer,
)
from governance.bounds import DEPARTMENT_MAX, GROUP_MAX
from governance.errors import NotFound
from governance.people.groups import group_mapping_create, group_mapping_delete
from governance.people.models import REASON_MAX, Role, RoleRequest, RoleRequestState, Specialty
from governance.people.role_requests import (
    role_request_approve,
    role_request_get,
    role_request_reject,
    role_request_withdraw,
    role_requests_visible_to,
)
from governance.people.roles import role_grant, role_revoke
from governance.people.selectors import (
    department_get,
    directory_groups_visible_to,
    group_mappings_visible_to,
    person_get,
)


class RoleBody(StrictSerializer):
    """A role: platform-wide without a department; reviewers name their specialty."""

    role = Choice(choices=Role.choices)
    department = Slug(max_length=DEPARTMENT_MAX, required=False)
    specialty = Choice(choices=Specialty.choices, required=False)


class PersonRolesView(Endpoint):
    """Roles of one person."""

    @operation(
        "People",
        "Grant a role; a second administrator approves the roles administrator and reviewer",
        body=RoleBody,
        answer=RoleAnswer,
        status=201,
        also={202: RoleRequestAnswer},
    )
    def post(self, request: Request, person_id: int) -> Response:
        given = self.body(RoleBody)
        slug = given.get("department")
        made = role_grant(
            actor=self.actor,
            person=person_get(actor=self.actor, person_id=person_id),
            role=given["role"],
            department=department_get(slug=slug) if slug else None,
            specialty=given.get("specialty", ""),
        )
        if isinstance(made, RoleRequest):
            return self.answer(made, RoleRequestAnswer, status=202)
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


class RoleRequestsQuery(StrictSerializer):
    """Which requests."""

    state = Choice(choices=RoleRequestState.choices, required=False)


class RoleRequestsView(Endpoint):
    """Requests for privileged roles."""

    @operation(
        "People",
        "List requests for the roles administrator and reviewer",
        query=RoleRequestsQuery,
        answer=RoleRequestAnswer,
        paged=True,
    )
    def get(self, request: Request) -> Response:
        rows = role_requests_visible_to(self.actor)
        if state := self.query(RoleRequestsQuery).get("state"):
            rows = rows.filter(state=state)
        return self.page(rows, RoleRequestAnswer)


class RoleRequestApproveView(Endpoint):
    """Giving what was requested."""

    @operation("People", "Approve a role request", answer=RoleRequestAnswer)
    def post(self, request: Request, request_id: int) -> Response:
        self.nothing()
        role_request_get(actor=self.actor, request_id=request_id)
        approved = role_request_approve(actor=self.actor, request_id=request_id)
        return self.answer(approved, RoleRequestAnswer)


class RoleRequestRejectBody(StrictSerializer):
    """Why the role is not given."""

    reason = Line(max_length=REASON_MAX)


class RoleRequestRejectView(Endpoint):
    """Refusing what was requested."""

    @operation(
        "People", "Reject a role request", body=RoleRequestRejectBody, answer=RoleRequestAnswer
    )
    def post(self, request: Request, request_id: int) -> Response:
        given = self.body(RoleRequestRejectBody)
        role_request_get(actor=self.actor, request_id=request_id)
        rejected = role_request_reject(actor=self.actor, request_id=request_id, **given)
        return self.answer(rejected, RoleRequestAnswer)


class RoleRequestWithdrawView(Endpoint):
    """Taking a request back."""

    @operation("People", "Withdraw a role request", answer=RoleRequestAnswer)
    def post(self, request: Request, request_id: int) -> Response:
        self.nothing()
        role_request_get(actor=self.actor, request_id=request_id)
        withdrawn = role_request_withdraw(actor=self.actor, request_id=request_id)
        return self.answer(withdrawn, RoleRequestAnswer)


class GroupsView(Endpoint):
    """Groups that an identity provider keeps here over SCIM."""

    @operation("People", "List provisioned groups", answer=GroupAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(directory_groups_visible_to(self.actor), GroupAnswer)


class GroupMappingBody(RoleBody):
    """The role that everybody in the group of that name holds."""

    group = Line(max_length=GROUP_MAX)


class GroupMappingsView(Endpoint):
    """Roles that members of groups get."""

    @operation("People", "List group mappings", answer=GroupMappingAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(group_mappings_visible_to(self.actor), GroupMappingAnswer)

    @operation(
        "People",
        "Map a group to a role; a second administrator approves administrator and reviewer",
        body=GroupMappingBody,
        answer=GroupMappingAnswer,
        status=201,
        also={202: RoleRequestAnswer},
    )
    def post(self, request: Request) -> Response:
        given = self.body(GroupMappingBody)
        slug = given.pop("department", None)
        made = group_mapping_create(
            actor=self.actor,
            department=department_get(actor=self.actor, slug=slug) if slug else None,
            **given,
        )
        if isinstance(made, RoleRequest):
            return self.answer(made, RoleRequestAnswer, status=202)
        return self.answer(made, GroupMappingAnswer, status=201)


class GroupMappingView(Endpoint):
    """One mapping."""

    @operation("People", "Forget what a group means", answer=None, status=204)
    def delete(self, request: Request, mapping_id: int) -> Response:
        group_mapping_delete(actor=self.actor, mapping_id=mapping_id)
        return Response(status=204)
