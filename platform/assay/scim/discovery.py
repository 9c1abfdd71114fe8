"""Capabilities of this service (RFC 7644 §4): configuration, resource types, schemas."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from scim2_models import (
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    Context,
    ETag,
    Filter,
    ListResponse,
    NotImplementedException,
    Patch,
    Resource,
    ResourceType,
    ServiceProviderConfig,
    Sort,
)

from assay.scim.protocol import ScimView, rendered
from assay.scim.resources import Group, User
from assay.scim.views import PAGE_MAX
from governance.errors import NotFound

_SHOWN = Context.RESOURCE_QUERY_RESPONSE
_TYPES: dict[str, tuple[type[User] | type[Group], str, str]] = {
    "User": (User, "/Users", "People who may have access."),
    "Group": (Group, "/Groups", "Groups of people; mappings give them roles."),
}


class ServiceProviderConfigView(ScimView):
    """`/ServiceProviderConfig`."""

    def get(self, request: HttpRequest) -> HttpResponse:
        config = ServiceProviderConfig(
            patch=Patch(supported=True),
            bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
            filter=Filter(supported=True, max_results=PAGE_MAX),
            change_password=ChangePassword(supported=False),
            sort=Sort(supported=False),
            etag=ETag(supported=False),
            authentication_schemes=[
                AuthenticationScheme(
                    type=AuthenticationScheme.Type.oauthbearertoken,
                    name="Bearer token",
                    description="The token that the operator set as ASSAY_SCIM_TOKEN.",
                    primary=True,
                )
            ],
        )
        return rendered(config.model_dump(scim_ctx=_SHOWN))


def _types() -> dict[str, dict[str, Any]]:
    return {
        name: ResourceType.model_validate(
            {
                "id": name,
                "name": name,
                "description": description,
                "endpoint": endpoint,
                "schema": str(model.__schema__),
            }
        ).model_dump(scim_ctx=_SHOWN)
        for name, (model, endpoint, description) in _TYPES.items()
    }


def _schemas() -> dict[str, dict[str, Any]]:
    models: list[type[Resource[Any]]] = [User, Group]
    return {
        str(model.__schema__): model.to_schema().model_dump(scim_ctx=_SHOWN) for model in models
    }


class CatalogueView(ScimView):
    """A fixed list, and access to each of its members by name."""

    what = ""

    def members(self) -> dict[str, dict[str, Any]]:
        """Return the members by name."""
        raise NotImplementedError

    def get(self, request: HttpRequest, name: str | None = None) -> HttpResponse:
        members = self.members()
        if name is None:
            return rendered(
                {
                    "schemas": [str(ListResponse.__schema__)],
                    "totalResults": len(members),
                    "startIndex": 1,
                    "itemsPerPage": len(members),
                    "Resources": list(members.values()),
                }
            )
        if name not in members:
            raise NotFound(f"There is no {self.what} {name[:100]}.")
        return rendered(members[name])


class ResourceTypesView(CatalogueView):
    """`/ResourceTypes`."""

    what = "resource type"

    def members(self) -> dict[str, dict[str, Any]]:
        return _types()


class SchemasView(CatalogueView):
    """`/Schemas`."""

    what = "schema"

    def members(self) -> dict[str, dict[str, Any]]:
        return _schemas()


class UnsupportedView(ScimView):
    """Optional endpoints of SCIM that Assay does not have: `/Me`, `/Bulk`, `/.search`."""

    def http_method_not_allowed(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        raise NotImplementedException(detail="Assay does not support this optional SCIM endpoint.")

    options = http_method_not_allowed


class NothingView(ScimView):
    """Every path that SCIM does not define."""

    def http_method_not_allowed(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        raise NotFound("There is no such SCIM endpoint.")

    options = http_method_not_allowed
