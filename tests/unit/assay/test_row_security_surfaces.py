"""Every screen and every endpoint runs within row security; what does not is named, and why."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from assay.api.endpoint import Endpoint
from assay.node_api.endpoint import NodeEndpoint
from assay.portal.http import Screen
from governance import rowsecurity
from governance.people.models import Department, Person
from registry.versions.models import Model
from tests.abuse.company import add_rows
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company, tell_story
from tests.unit.governance.row_security_world import OWNED, estates
from workers.deployments.models import Deployment

# Views outside of the scope, by their module.
OUTSIDE = {
    "assay.accounts": "who signs in is found among everybody",
    "assay.api.docs": "reads no row",
    "assay.api.problems": "reads no row",
    "assay.portal.views.one_time_links": "who holds a link is found among everybody",
    "assay.portal.views.sign_in": "who signs in is found among everybody",
    "assay.scim": "the identity provider's, a process of the platform's",
    "allauth": "who signs in is found among everybody",
}
GUARDED = re.compile(rf"\b({'|'.join(model._meta.db_table for model in OWNED)})\b")
METHODS = ("get", "post", "put", "patch", "delete")


def patterns(found: Any = None, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Every address of the project, with what is before it."""
    for each in found or get_resolver().url_patterns:
        if isinstance(each, URLResolver):
            yield from patterns(each.url_patterns, f"{prefix}{each.pattern}")
        else:
            yield f"{prefix}{each.pattern}", each


def view_of(pattern: URLPattern) -> Any:
    """The view's class, or the function when it is one."""
    return getattr(
        pattern.callback, "view_class", getattr(pattern.callback, "cls", pattern.callback)
    )


def bound(view: Any) -> bool:
    return isinstance(view, type) and issubclass(view, (Endpoint, Screen))


def addresses(company: Company) -> dict[str, Any]:
    """Each address of a bound view with real ids in it, and its view."""
    ids = {
        "audit": 1,
        "dataset-versions": company.train.pk,
        "datasets": company.held_out.dataset.pk,
        "deployments": company.deployment.pk,
        "intakes": company.signable.pk,
        "jobs": company.running.pk,
        "keys": 1,
        "people": company.enzo.pk,
        "releases": company.waiting.pk,
        "reviews": company.review_open.pk,
        "versions": company.second.pk,
    }
    names = {"datasets": "docstrings-train"}
    found = {}
    for route, pattern in patterns():
        if not bound(view_of(pattern)):
            continue
        section = route.removeprefix("api/v1/").partition("/")[0]

        def filled(match: re.Match[str], section: str = section) -> str:
            kind = match[1].partition(":")[0]
            if kind == "uuid":
                return str(company.running.pk)
            if kind in {"int", "id"}:
                return str(ids[section]) if isinstance(ids.get(section), int) else "1"
            return names.get(section, "docstring-writer")

        found["/" + re.sub(r"<([^>]+)>", filled, route)] = view_of(pattern)
    return found


def test_every_address_is_within_row_security_or_says_why_not() -> None:
    for route, pattern in patterns():
        view = view_of(pattern)
        if bound(view):
            base = Endpoint if issubclass(view, Endpoint) else Screen
            dispatch = inspect.unwrap(view.dispatch)
            goes_on = {"super", "dispatch"} <= set(dispatch.__code__.co_names)
            assert dispatch is base.dispatch or goes_on, f"{route}: {view} passes {base} by"
            if issubclass(view, Endpoint):
                # A node belongs to no department; its services narrow what it reaches.
                narrowed = NodeEndpoint if issubclass(view, NodeEndpoint) else Endpoint
                assert view.scope is narrowed.scope, route
            continue
        module = view.__module__
        assert any(module == name or module.startswith(f"{name}.") for name in OUTSIDE), (
            f"{route} is served by {module}, outside of row security"
        )


def test_only_endpoints_that_ask_nobody_who_they_are_run_for_nobody() -> None:
    for route, pattern in patterns():
        view = view_of(pattern)
        if isinstance(view, type) and issubclass(view, Endpoint):
            asks = bool(view.authentication_classes)
            names = [permission.__name__ for permission in view.permission_classes]
            assert names == (["HasPrincipal"] if asks else ["AllowAny"]), route


# Queries that read beyond the person's departments on purpose.
MEANT: tuple[Callable[[str, str], bool], ...] = (
    # An evidence pack contains everything, as its dossier does; access to it is decided before.
    lambda address, sql: address.endswith("/evidence"),
    # Serving periods are written by the change of state itself, for any person.
    lambda address, sql: "workers_servingperiod" in sql,
    # The needs of a release, also on its form, are facts of the version, its base chain and all
    # reviewers; who may see releases of the department is decided before.
    lambda address, sql: (
        address.endswith(("/readiness", "/release"))
        and sql.startswith("SELECT")
        and "FOR UPDATE" not in sql
    ),
    # The form marks data that trained the version or its bases; it offers only data
    # that the person may see.
    lambda address, sql: address.endswith("/evaluate") and sql.startswith("SELECT"),
    # The verdict on a release is the same for all; the right to deploy it is decided before.
    lambda address, sql: address.endswith("/deploy"),
    lambda address, sql: "registry_incidentsuspension" in sql,
    # Whoever may decide on a release sees whom it reaches, in whatever department.
    lambda address, sql: (
        address.startswith(("/reviews/", "/api/v1/releases/"))
        and 'SELECT "governance_usagerecord"."department"' in sql
    ),
)


@pytest.mark.sweep
def test_no_statement_of_any_surface_reads_what_departments_own_outside_of_the_scope(
    db: None,
) -> None:
    """A reviewer and a developer of its department open each address in turn, a member of another
    department every third one too.
    """
    company = tell_story()
    add_rows(company)
    clients = {name: Client() for name in ("carla", "enzo", "fay")}
    for name, client in clients.items():
        client.force_login(company.people[name])
    outside: list[str] = []
    inside = 0
    address = ""

    def watch(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal inside
        if GUARDED.search(sql):
            meant = any(rule(address, sql) for rule in MEANT)
            if rowsecurity.current() is None and not meant:
                outside.append(f"{address}: {sql[:200]}")
            else:
                inside += 1
        return execute(sql, params, many, context)

    for number, (address, view) in enumerate(addresses(company).items()):
        of_the_api = address.startswith("/api/")
        methods = [method for method in METHODS if hasattr(view, method)]
        callers = (("carla", "enzo")[number % 2], *(["fay"] if number % 3 == 0 else []))
        for name, method in product(callers, methods):
            with connection.execute_wrapper(watch):
                answer = clients[name].generic(
                    method.upper(), address, "{}" if of_the_api else "",
                    content_type="application/json" if of_the_api else "text/plain",
                )  # fmt: skip
            assert answer.status_code < 500, (name, method, address, answer.content[:500])
            assert rowsecurity.current() is None

    assert outside == []
    assert inside > 60


def test_an_endpoint_that_forgets_the_policy_shows_nothing_of_another_department(
    policy: object,
    department: Callable[[str], Department],
    person: Callable[..., Person],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list that answers with every row there is, as a mistake would have it."""
    from assay.api.views import jobs
    from workers.jobs.models import Job

    estates(department, person)
    api = Api(person("Mia", "lead@clinical"))
    monkeypatch.setattr(
        jobs, "jobs_visible_to", lambda _: Job.objects.select_related("department", "created_by")
    )

    answer = api.get("jobs")

    assert [job["department"] for job in answer.body["results"]] == ["clinical"]


def test_a_name_that_another_department_has_taken_is_refused_in_words(
    policy: object, department: Callable[[str], Department], person: Callable[..., Person]
) -> None:
    estates(department, person)
    api = Api(person("Mia", "lead@clinical"))
    model = {"name": "finance", "department": "clinical", "task": "embeddings"}
    dataset = model | {"classification": "public", "license": "MIT"}

    assert "already exists" in problem_of(api.post("models", model), 409)["detail"]
    assert "already exists" in problem_of(api.post("datasets", dataset), 409)["detail"]
    assert Model.objects.filter(name="finance").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_refusal_inside_of_the_scope_is_recorded_outside_of_it(
    policy: object, department: Callable[[str], Department], person: Callable[..., Person]
) -> None:
    """With real transactions: the record of a refusal outlives the rollback of what was tried."""
    from governance.audit.models import AuditEvent

    estates(department, person)
    vera = person("Vera", "viewer@clinical")
    deployment = Deployment.objects.get(department__slug="clinical")
    page = Client()
    page.force_login(vera)

    refused = Api(vera).post(f"deployments/{deployment.pk}/stop", {"reason": "I want to"})
    shown = page.post(f"/deployments/{deployment.pk}/stop", {"reason": "I want to"})

    problem_of(refused, 403)
    assert shown.status_code == 403
    denied = AuditEvent.objects.filter(outcome="denied", action="deployment:stop")
    assert denied.count() == 2


def test_a_session_is_refused_by_the_api_in_words_as_a_token_is(
    policy: object, person: Callable[..., Person]
) -> None:
    """The policy copies the actor to see what its owner may know of: a real principal, not a lazy
    one."""
    enzo, client = person("Enzo", "developer@clinical"), Client()
    client.force_login(enzo)
    role = enzo.role_assignments.get()

    answer = client.delete(f"/api/v1/people/{enzo.pk}/roles/{role.pk}")

    assert answer.status_code in {403, 404}
