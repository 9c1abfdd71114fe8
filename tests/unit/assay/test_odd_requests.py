"""Odd values, wrong states and other departments' IDs on pages and operations that read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.views import APIView

from assay.scim.protocol import ScimView
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.sweep, pytest.mark.usefixtures("redis")]
BEYOND = 10**30
ODD = ("", "%00", "-1", "0", "x", "1e9", str(BEYOND), "%F0%9F%92%A9", "%ff%fe", "a" * 10_000)


def addresses_of(company: Company) -> dict[str, tuple[str, ...]]:
    """Pages, each with the parameters of its query."""
    deployment = f"/deployments/{company.deployment.pk}/health"
    return {
        deployment: ("span",),
        f"{deployment}/now": ("span",),
        f"{deployment}/figures": ("span",),
        "/jobs": ("state", "kind", "page"),
        f"/jobs/{company.running.pk}/progress": ("page",),
        f"/jobs/{company.running.pk}/events.json": ("after",),
        "/datasets/docstrings-train": ("row", "sort", "order", "q", "version", "page"),
        "/models/docstring-writer": ("metric", "page"),
        "/overview/numbers": ("q",),
        "/overview/changed": ("q",),
        "/playground/cost": ("request",),
        "/policy": ("tab", "q", "page"),
        f"/releases/{company.live.pk}/deploy": ("release",),
        f"/versions/{company.second.pk}/readiness": ("tier",),
        f"/versions/{company.second.pk}/release": ("like", "tier"),
        "/search/results": ("q",),
    }


def test_odd_values_in_a_query_are_ignored_or_refused(company: Company) -> None:
    client = signed_in(company.enzo)
    faults = {
        address: answer.status_code
        for path, names in addresses_of(company).items()
        for address in (
            *(f"{path}?{'&'.join(f'{name}={value}' for name in names)}" for value in ODD),
            f"{path}?{names[0]}=a&{names[0]}=b&unknown=1",
        )
        if (answer := client.get(address)).status_code not in {200, 400, 404}
    }
    assert faults == {}


def test_other_peoples_and_impossible_ids_are_not_found(company: Company) -> None:
    stranger, client = signed_in(company.fay), signed_in(company.enzo)
    for path in addresses_of(company):
        if any(letter.isdigit() for letter in path) or path.startswith(("/datasets", "/models")):
            assert stranger.get(path).status_code == 404, path
    assert stranger.post(f"/releases/{company.live.pk}/deploy").status_code == 404
    for path in (
        f"/deployments/{BEYOND}/health",
        f"/deployments/{BEYOND}/health/figures",
        f"/deployments/{BEYOND}/health/now",
        f"/releases/{BEYOND}/deploy",
        f"/jobs/{uuid.uuid4()}/progress",
        "/jobs/compare/",
    ):
        assert client.get(path).status_code == 404, path


def test_only_eight_runs_by_valid_ids_are_compared(company: Company) -> None:
    client = signed_in(company.enzo)
    known = f"version={company.first.pk}&version={company.second.pk}"
    nine = "&".join(f"job={uuid.uuid4()}" for _ in range(9))
    for query, status in (
        (f"{known}&{known}&job={company.done.pk}&job={company.done.pk}", 200),
        (nine, 400),
        (f"{known}&version=-1", 404),
        (f"{known}&version={BEYOND}", 404),
        (f"{known}&version={'9' * 18}", 404),
        (f"{known}&job={'f' * 10_000}", 404),
        (f"{known}&job=%00", 404),
        (f"{known}&{'&'.join(f'job={number}' for number in range(2_000))}", 400),
    ):
        assert client.get(f"/jobs/compare?{query}").status_code == status, query[:80]


def test_the_health_operation_refuses_odd_queries(company: Company) -> None:
    api, path = Api(company.enzo), f"deployments/{company.deployment.pk}/health"
    for value in ODD[1:]:
        problem_of(api.get(f"{path}?span={value}"), 400)
    for query in ("span=1h&span=7d", "until=now", "format=html"):
        assert api.get(f"{path}?{query}").status_code == 400, query
    problem_of(api.get(f"deployments/{BEYOND}/health"), 404)
    problem_of(Api(company.fay).get(path), 404)
    problem_of(Api().get(path), 401)


def test_options_tell_the_same_of_every_object(company: Company) -> None:
    token = Api(company.fay).token

    def options(path: str, **headers: str) -> tuple[int, str, bytes]:
        answer: Any = Client(headers=headers).options(f"/api/v1/{path}")
        return answer.status_code, answer.headers.get("Allow", ""), answer.content

    for path, ids in (
        ("deployments/{}/health", (company.deployment.pk, 999_999)),
        ("releases/{}", (company.live.pk, 999_999)),
        ("uploads/{}", (uuid.uuid4(), uuid.uuid4())),
        ("jobs/{}", (company.running.pk, uuid.uuid4())),
    ):
        answers = {options(path.format(each), authorization=f"Bearer {token}") for each in ids}
        assert len(answers) == 1
        assert next(iter(answers))[::2] == (204, b"")
        assert {options(path.format(each))[0] for each in ids} == {401}


def views(patterns: Any = None) -> Iterator[Any]:
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            yield from views(pattern.url_patterns)
        elif isinstance(pattern, URLPattern):
            yield pattern.callback


def test_only_views_that_change_nothing_skip_the_csrf_check() -> None:
    """Views of the API check sessions themselves, and those of SCIM take a token alone."""
    exempt = {
        view.__name__
        for view in views()
        if getattr(view, "csrf_exempt", False)
        and not issubclass(
            getattr(view, "cls", None) or getattr(view, "view_class", object), (APIView, ScimView)
        )
    }
    assert exempt == {"inference_page", "inference_schema", "not_found", "page", "start"}
