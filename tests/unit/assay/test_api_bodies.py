"""Whatever is sent, wherever: a problem that says what is wrong, and never a fault of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.urls.converters import UUIDConverter
from django.urls.resolvers import RoutePattern

from assay.api.endpoint import Endpoint
from assay.api.urls import RowIdConverter, urlpatterns
from governance.people.models import Department, Person
from tests.turns import some
from tests.unit.assay.api_support import Api, decoded, problem_of
from tests.unit.audit_support import recorded

pytestmark = pytest.mark.sweep

HUGE = 10**40


def posts() -> Iterator[str]:
    """Every path that takes a POST, with ids that nothing has."""
    for pattern in urlpatterns:
        view: Any = pattern.callback.cls
        assert issubclass(view, Endpoint)
        if not hasattr(view, "post"):
            continue
        route = pattern.pattern
        assert isinstance(route, RoutePattern)
        path = str(route)
        for name, converter in route.converters.items():
            value = "nothing-here"
            if isinstance(converter, UUIDConverter):
                value = str(UUID(int=7))
            elif isinstance(converter, RowIdConverter):
                value = "987654321"
            path = path.replace(f"<{_word(converter)}:{name}>", value)
        yield path


def _word(converter: Any) -> str:
    return {
        "UUIDConverter": "uuid",
        "RowIdConverter": "id",
        "SlugConverter": "slug",
        "StringConverter": "str",
    }[type(converter).__name__]


POSTS = sorted(posts())
BODIES = [
    "",
    "null",
    "[]",
    "7",
    '"text"',
    "{",
    "[" * 5000,
    '{"a": 1e400}',
    '{"a": NaN}',
    f'{{"a": {HUGE}}}',
    '{"unknown": "field"}',
    '{"a": "\\u0000"}',
    '{"a": "\\ud800"}',
    b"\xff\xfe",
]
VALUES = [
    None,
    [],
    [[]],
    {},
    {"a": {"b": {"c": []}}},
    True,
    -1,
    2**63 - 1,
    1.5,
    "",
    "x" * 100_000,
    "a\nb",
    "\u202eevil",
    "../../etc/passwd",
    ["a"] * 1000,
]


@pytest.fixture
def api(policy: object, redis: object, person: Callable[..., Person]) -> Api:
    return Api(person("Ada", "admin"))


def test_there_are_as_many_posts_as_we_think() -> None:
    assert len(POSTS) >= 20


@pytest.mark.parametrize("path", POSTS)
def test_a_body_of_another_shape_is_refused(api: Api, path: str) -> None:
    before = (Department.objects.count(), Person.objects.count())

    for raw in some(BODIES, POSTS.index(path), 4):
        answer = api.post(path, raw=raw)
        assert 400 <= answer.status_code < 500, (raw, answer.content[:300])
        problem_of(answer, answer.status_code)

    assert (Department.objects.count(), Person.objects.count()) == before


@pytest.mark.parametrize("path", POSTS)
def test_a_field_of_another_type_is_refused_by_name(api: Api, path: str) -> None:
    names = _fields(path)

    for value in some(VALUES, POSTS.index(path), 4):
        answer = api.post(path, dict.fromkeys(names, value))
        assert 400 <= answer.status_code < 500, (value, answer.content[:300])
        body = problem_of(answer, answer.status_code)
        if answer.status_code == 400 and names:
            assert body["errors"], body


def _fields(path: str) -> list[str]:
    """The fields that the endpoint at `path` declares."""
    schema: dict[str, list[str]] = {
        "auth/token": ["email", "password"],
        "departments": ["slug", "name"],
        "people": ["email", "name"],
        "group-mappings": ["group", "role", "department", "specialty"],
        "keys": ["department", "name", "scopes", "expires_at", "expires_in_days", "quotas"],
        "quotas": ["kind", "limit", "department", "key", "deployment", "organization", "shadow"],
        "quotas/reconcile": ["mode"],
        "prices": ["deployment", "prompt", "completion", "device_second", "remove"],
        "models": ["name", "department", "task", "description", "shared"],
        "intakes": ["model", "source", "license", "files"],
        "datasets": ["name", "department", "task", "classification", "license", "description"],
        "gates": ["model", "dataset", "metric", "comparator", "threshold", "why"],
        "fine-tunes": ["model", "base_version", "method", "dataset_version", "hyperparameters"],
        "evaluations": ["version", "dataset_version"],
        "releases": [
            "version",
            "environment",
            "deployment_name",
            "departments",
            "visibility",
            "purpose",
            "risk_answers",
            "tier",
        ],
        "deployments": ["release"],
    }
    endings = {
        "roles": ["role", "department", "specialty"],
        "sign-off": ["accept", "reason"],
        "versions": ["file", "columns"],
        "decisions": ["verdict", "reason", "digest", "specialty"],
        "answers": ["message", "risk_answers"],
        "withdraw": ["reason"],
        "stop": ["reason"],
        "deactivate": ["reason"],
        "reactivate": ["reason"],
        "nothing-here": ["note"],
    }
    return schema.get(path, endings.get(path.rsplit("/", 1)[-1], []))


def test_a_body_that_is_too_large_is_413(api: Api) -> None:
    answer = api.post("departments", raw='{"name": "' + "x" * 3_000_000 + '"}')

    problem_of(answer, 413, "too_large")


def test_a_body_in_another_format_is_415(api: Api) -> None:
    response: Any = api.upload("departments", {"slug": "finance", "name": "Finance"})

    problem_of(response, 415, "unsupported_media_type")


def test_a_body_without_a_stated_length_is_411(api: Api) -> None:
    client = Client(
        headers={"authorization": f"Bearer {api.token}", "transfer-encoding": "chunked"}
    )

    answer = decoded(client.generic("POST", "/api/v1/departments"))

    problem_of(answer, 411, "length_required")


def test_every_missing_field_is_named(api: Api) -> None:
    errors = problem_of(api.post("models", {}), 400)["errors"]

    assert {error["field"] for error in errors} == {"name", "department", "task"}


@pytest.mark.parametrize("given", ["job-17", "bootstrap", "release-3", "no spaces", "x" * 65])
def test_a_request_is_not_called_what_the_platform_calls_its_own_work(api: Api, given: str) -> None:
    answer = api.post("models", {}, **{"x-request-id": given})
    assert answer.status_code == 400
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_refused_attempt_is_audited_with_the_request_id(
    api: Api, person: Callable[..., Person]
) -> None:
    viewer = Api(person("Vera", "viewer@clinical"))

    answer = viewer.post(
        "departments", {"slug": "finance", "name": "Finance"}, **{"x-request-id": "trace-9"}
    )

    assert answer.status_code in {403, 404}
    event = recorded(outcome="denied", action="department:create")
    assert (event.request_id, event.actor_name) == ("trace-9", "Vera")
