"""Request bodies: each view decides whether a body is read before its first byte is."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import Client
from django.urls import URLResolver, get_resolver

from assay.api.endpoint import Endpoint
from assay.portal.http import Screen
from assay.scim.protocol import ScimView
from assay.server.permits import PERMIT, Permit, holder_of
from governance.principals import Principal, PrincipalKind

BASES = (Endpoint, Screen, ScimView)
FILLED = {
    "IntConverter": "1",
    "RowIdConverter": "1",
    "DigestConverter": "0" * 64,
    "UUIDConverter": "00000000-0000-4000-8000-000000000000",
}
# Their forms are small, and whoever sends them is not known yet.
FOR_STRANGERS = {"SignIn", "SecondFactor", "SecondFactorOptions", "PasskeySignIn", "SingleSignOn",
                 "SingleSignOnCallback", "SignOut", "DemoSignIn", "LinkOpen", "LinkPassword",
                 "SchemaView"}  # fmt: skip


def test_each_upload_is_permitted_by_a_check_of_its_own() -> None:
    uploads = {view for _, view in addresses() if getattr(view, "upload_limit", None)}
    assert len(uploads) >= 8
    bases = {base.allow_body for base in BASES}
    assert {view.__name__ for view in uploads if view.allow_body in bases} == set()


def test_each_view_asks_first_or_takes_small_bodies_alone() -> None:
    others = {view.__name__ for _, view in addresses() if not issubclass(view, BASES)}
    assert others <= FOR_STRANGERS


@pytest.mark.sweep
@pytest.mark.parametrize("method", ["get", "post", "patch"])
def test_no_handler_runs_while_a_view_is_asked(
    policy: object, person: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every address, as a person who may do much."""
    ran: list[str] = []

    def instead(called: str) -> Any:
        return lambda *_, **__: ran.append(called) or HttpResponse()

    for view in {each for _, each in addresses() if issubclass(each, BASES)}:
        for name in {"get", "post", "put", "patch", "delete", "act"} & vars(view).keys():
            monkeypatch.setattr(view, name, instead(f"{view.__name__}.{name}"))
    permit = Permit()
    monkeypatch.setattr(WSGIRequest, "scope", {PERMIT: permit}, raising=False)
    client = Client()
    client.force_login(person("Ada", "admin", "lead@clinical"))
    asked = [path for path, view in addresses() if issubclass(view, Endpoint | Screen)]
    assert len(asked) > 200
    statuses = Counter(getattr(client, method)(path).status_code for path in asked)
    assert ran == []
    assert permit.holder
    # Refused where the object does not exist, or is not for a person.
    assert statuses.keys() <= {204, 302, 401, 403, 404, 409}, statuses


def addresses(patterns: list[Any] | None = None, above: str = "/") -> list[tuple[str, type[Any]]]:
    """Every address of a class of views, with something in each place."""
    found: list[tuple[str, type[Any]]] = []
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = str(pattern.pattern)
        for name, converter in pattern.pattern.converters.items():
            filled = FILLED.get(type(converter).__name__, "x")
            route = re.sub(rf"<(\w+:)?{name}>", filled, route)
        if isinstance(pattern, URLResolver):
            found += addresses(pattern.url_patterns, above + route)
        elif hasattr(pattern.callback, "view_class") and "(" not in route:
            found.append((above + route, pattern.callback.view_class))
    return found


def test_bodies_count_for_people_and_departments_not_for_tokens() -> None:
    person = Principal(PrincipalKind.PERSON, "7", "Ada", person_id=7, key_id=1)
    same = Principal(PrincipalKind.PERSON, "7", "Ada", person_id=7, key_id=2)
    keys = [
        Principal(PrincipalKind.KEY, str(n), "app", department="clinical", key_id=n) for n in (1, 2)
    ]
    assert holder_of(person) == holder_of(same)
    assert holder_of(keys[0]) == holder_of(keys[1]) != holder_of(person)
