"""Users and Groups (RFC 7644 §3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from scim2_models import Context, ListResponse, Resource, SearchRequest

from assay.scim.filters import filter_query
from assay.scim.patching import operations_of, patch_group, patch_user
from assay.scim.protocol import PROVIDER, ScimView, rendered
from assay.scim.resources import (
    Group,
    User,
    group_of,
    group_record,
    member_id,
    member_of,
    person_record,
    user_of,
)
from governance.errors import InvalidInput, NotFound
from governance.people.directory import (
    directory_group_change,
    directory_group_create,
    directory_group_delete,
    directory_group_get,
)
from governance.people.models import DirectoryGroup, Person
from governance.people.provisioning import (
    person_change,
    person_deprovision,
    person_provision,
    provisioned_people,
    provisioned_person_get,
)
from governance.people.selectors import directory_groups_visible_to

PAGE_SIZE = 100
PAGE_MAX = 200
_PARAMETERS = ("filter", "attributes", "excludedAttributes", "startIndex", "count")
_SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"


class ResourceView(ScimView):
    """Common part of Users and Groups: attributes, page and rows."""

    model: type[Resource[Any]]

    def search(self) -> Any:
        """Parse the query parameters as a SearchRequest.

        Raises:
            ValidationError, InvalidFilterException: a parameter is invalid.
        """
        parameters: dict[str, Any] = {
            name: self.request.GET[name] for name in _PARAMETERS if name in self.request.GET
        }
        for name in ("startIndex", "count"):
            if name in parameters:
                parameters[name] = _whole(parameters[name])
        text = parameters.pop("filter", None)
        search: Any = SearchRequest[self.model].model_validate(  # type: ignore[name-defined]
            {"schemas": [_SEARCH], **parameters}, scim_ctx=Context.SEARCH_REQUEST
        )
        self.query = filter_query(text, self.model) if text is not None else None
        return search

    def list_response(
        self, rows: QuerySet[Any], to_resources: Callable[[list[Any], Any], list[Any]]
    ) -> HttpResponse:
        """Return a page of `rows` that match the filter; `to_resources` converts them."""
        search = self.search()
        if self.query is not None:
            # In a subquery, so that a row with several matching members is listed once.
            matching = rows.model._base_manager.filter(self.query)
            rows = rows.filter(pk__in=matching.values("pk"))
        start = search.start_index or 1
        count = PAGE_SIZE if search.count is None else min(search.count, PAGE_MAX)
        total = rows.count()
        page = list(rows.order_by("pk")[start - 1 : start - 1 + count]) if count else []
        answer: Any = ListResponse[self.model](  # type: ignore[name-defined]
            total_results=total,
            start_index=start,
            items_per_page=len(page),
            resources=to_resources(page, search),
        )
        body = answer.model_dump(
            scim_ctx=Context.RESOURCE_QUERY_RESPONSE, response_parameters=search
        )
        body.setdefault("Resources", [])
        return rendered(body)

    def resource_response(
        self, resource: Resource[Any], context: Context, *, status: int = 200
    ) -> HttpResponse:
        """Return one resource with the requested attributes."""
        search = self.search()
        body = resource.model_dump(scim_ctx=context, response_parameters=search)
        location = {"Location": str(resource.meta.location)} if resource.meta else {}
        return rendered(body, status=status, headers=location)


def _whole(text: str) -> Any:
    # Leave invalid numbers to the validation, which names the parameter.
    digits = text.lstrip("+-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 10 else text


def _includes(search: Any, attribute: str) -> bool:
    """Return true if the answer includes an attribute."""
    included = [str(name).lower().split(".")[0] for name in search.attributes or []]
    excluded = [str(name).lower() for name in search.excluded_attributes or []]
    return attribute in included if included else attribute not in excluded


class UsersView(ResourceView):
    """`/Users`."""

    model = User

    def get(self, request: HttpRequest) -> HttpResponse:
        people = provisioned_people(PROVIDER).prefetch_related("directory_groups")
        return self.list_response(
            people, lambda page, _: [user_of(person, base=self.base) for person in page]
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        user = self.resource(User, Context.RESOURCE_CREATION_REQUEST)
        created = person_provision(actor=PROVIDER, record=person_record(user))
        return self.resource_response(
            user_of(created, base=self.base), Context.RESOURCE_CREATION_RESPONSE, status=201
        )


class UserView(ResourceView):
    """`/Users/{id}`."""

    model = User

    def person(self, person_id: str, *, hold: bool = False) -> Person:
        """Return the person, locked with `hold`. Raises NotFound."""
        row = _row_id(person_id, "person")
        return provisioned_person_get(actor=PROVIDER, person_id=row, hold=hold)

    def get(self, request: HttpRequest, person_id: str) -> HttpResponse:
        user = user_of(self.person(person_id), base=self.base)
        return self.resource_response(user, Context.RESOURCE_QUERY_RESPONSE)

    def put(self, request: HttpRequest, person_id: str) -> HttpResponse:
        person = self.person(person_id, hold=True)
        user = self.resource(User, Context.RESOURCE_REPLACEMENT_REQUEST)
        changed = person_change(actor=PROVIDER, person_id=person.pk, record=person_record(user))
        return self.resource_response(
            user_of(changed, base=self.base), Context.RESOURCE_REPLACEMENT_RESPONSE
        )

    def patch(self, request: HttpRequest, person_id: str) -> HttpResponse:
        person = self.person(person_id, hold=True)
        before = user_of(person, base=self.base)
        user = patch_user(before.model_copy(deep=True), operations_of(self.body()))
        if user.display_name == before.display_name and user.name != before.name:
            # If only the parts of the name change, the display name must follow.
            user.display_name = _joined(user) or user.display_name
        changed = person_change(actor=PROVIDER, person_id=person.pk, record=person_record(user))
        return self.resource_response(
            user_of(changed, base=self.base), Context.RESOURCE_PATCH_RESPONSE
        )

    def delete(self, request: HttpRequest, person_id: str) -> HttpResponse:
        person_deprovision(actor=PROVIDER, person_id=_row_id(person_id, "person"))
        return HttpResponse(status=204)


def _joined(user: User) -> str:
    if user.name is None:
        return ""
    parts = (user.name.given_name, user.name.family_name)
    return " ".join(part for part in parts if part)


class GroupsView(ResourceView):
    """`/Groups`."""

    model = Group

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.list_response(directory_groups_visible_to(PROVIDER), self.groups)

    def groups(self, page: list[DirectoryGroup], search: Any) -> list[Group]:
        """Convert a page of groups, with their members if requested, in one query for all."""
        members: dict[int, list[tuple[int, str]]] | None = None
        if _includes(search, "members"):
            members = {group.pk: [] for group in page}
            rows = DirectoryGroup.members.through.objects.filter(directorygroup__in=page)
            columns = ("directorygroup_id", "person_id", "person__name")
            for group_id, person_id, name in rows.order_by("person_id").values_list(*columns):
                members[group_id].append((person_id, name))
        return [
            group_of(group, base=self.base, members=None if members is None else members[group.pk])
            for group in page
        ]

    def post(self, request: HttpRequest) -> HttpResponse:
        group = self.resource(Group, Context.RESOURCE_CREATION_REQUEST)
        created = directory_group_create(
            actor=PROVIDER, record=group_record(group, _members_in(group))
        )
        return self.resource_response(
            group_of(created, base=self.base, members=_members_of(created)),
            Context.RESOURCE_CREATION_RESPONSE,
            status=201,
        )


class GroupView(ResourceView):
    """`/Groups/{id}`."""

    model = Group

    def group(self, group_id: str, *, hold: bool = False) -> DirectoryGroup:
        """Return the group, locked with `hold`. Raises NotFound."""
        row = _row_id(group_id, "group")
        return directory_group_get(actor=PROVIDER, group_id=row, hold=hold)

    def get(self, request: HttpRequest, group_id: str) -> HttpResponse:
        group = self.group(group_id)
        members = _members_of(group) if _includes(self.search(), "members") else None
        return self.resource_response(
            group_of(group, base=self.base, members=members), Context.RESOURCE_QUERY_RESPONSE
        )

    def put(self, request: HttpRequest, group_id: str) -> HttpResponse:
        group = self.group(group_id, hold=True)
        replacement = self.resource(Group, Context.RESOURCE_REPLACEMENT_REQUEST)
        changed = directory_group_change(
            actor=PROVIDER,
            group_id=group.pk,
            record=group_record(replacement, _members_in(replacement)),
        )
        return self.resource_response(
            group_of(changed, base=self.base, members=_members_of(changed)),
            Context.RESOURCE_REPLACEMENT_RESPONSE,
        )

    def patch(self, request: HttpRequest, group_id: str) -> HttpResponse:
        group = self.group(group_id, hold=True)
        resource = group_of(group, base=self.base, members=None)
        present = frozenset(group.members.values_list("pk", flat=True))
        members = patch_group(resource, present, operations_of(self.body()))
        directory_group_change(
            actor=PROVIDER, group_id=group.pk, record=group_record(resource, members)
        )
        # Groups may be large, and Entra and Okta do not read the answer.
        return HttpResponse(status=204)

    def delete(self, request: HttpRequest, group_id: str) -> HttpResponse:
        directory_group_delete(actor=PROVIDER, group_id=_row_id(group_id, "group"))
        return HttpResponse(status=204)


def _members_in(group: Group) -> frozenset[int]:
    return frozenset(member_of(member.value, member.ref) for member in group.members or [])


def _members_of(group: DirectoryGroup) -> list[tuple[int, str]]:
    return list(group.members.order_by("pk").values_list("pk", "name"))


def _row_id(text: str, what: str) -> int:
    try:
        return member_id(text)
    except InvalidInput:
        raise NotFound(f"There is no {what} {text[:40]}.") from None
