"""Groups that an identity provider provisions, and the roles that they grant."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from assay.portal.access import may
from assay.portal.forms.people import MappingForm
from assay.portal.http import ActionScreen, Screen, cleaned, page_of
from governance.people.directory import directory_group_get
from governance.people.groups import group_mapping_create, group_mapping_delete
from governance.people.models import RoleRequest, RoleSource
from governance.people.selectors import (
    PEOPLE_AT_LARGE,
    departments_visible_to,
    directory_groups_visible_to,
    group_mappings_visible_to,
)
from governance.permissions import Action
from governance.policy.services import authorize


class Groups(ActionScreen):
    """Roles from groups, and provisioned groups."""

    template_name = "portal/people/groups.html"

    def form(self) -> MappingForm:
        posted = self.request.POST if "group" in self.request.POST else None
        initial = {"group": self.request.GET.get("group", "")[:255]}
        return MappingForm(
            posted,
            departments=departments_visible_to(self.actor),
            initial=initial if initial["group"] else None,
        )

    def context(self, **kwargs: Any) -> dict[str, Any]:
        authorize(actor=self.actor, action=Action.PERSON_VIEW, resource=PEOPLE_AT_LARGE)
        grants = may(self.actor, Action.ROLE_GRANT, kind="person")
        groups = directory_groups_visible_to(self.actor)
        page = page_of(self.request, groups)
        mappings = group_mappings_visible_to(self.actor)
        return {
            "page": page,
            "mappings": mappings,
            "mapped": set(
                mappings.filter(group__in=[group.name for group in page]).values_list(
                    "group", flat=True
                )
            ),
            "form": self.form() if grants else None,
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        mapping = group_mapping_create(actor=self.actor, **cleaned(self.form()))
        if isinstance(mapping, RoleRequest):
            return self.done(
                "Requested. A second administrator approves it.", "portal:role_requests"
            )
        return self.done(
            f"Members of {mapping.group} now have the role. People who use single sign-on get it "
            "at their next sign-in.",
            "portal:groups",
        )


class GroupMappingDelete(Groups):
    """Remove a role from a group."""

    def act(self, *args: Any, **kwargs: Any) -> HttpResponse:
        group_mapping_delete(actor=self.actor, mapping_id=kwargs["id"])
        return self.done("Mapping removed, with the roles that only it granted.", "portal:groups")


class GroupPage(Screen):
    """One provisioned group and its members."""

    template_name = "portal/people/group.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        group = directory_group_get(actor=self.actor, group_id=id)
        return {
            "group": group,
            "page": page_of(self.request, group.members.all()),
            "mappings": group_mappings_visible_to(self.actor).filter(group=group.name),
            "source": RoleSource.SCIM.label,
        }
