"""No package of a task takes a path that this process answers itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.urls import get_resolver

from assay.api.inference_description import inference_description
from assay.gateway.monitoring.probes import PROBES
from assay.gateway.paths import answered_by, own_label
from registry.catalog import TASKS
from registry.catalog.discovery import discover, installed
from registry.catalog.endpoints import INFERENCE_PATHS
from tests.plug_ins import install_task

TASK_PATHS = {endpoint.path_to("{model}") for task in TASKS.values() for endpoint in task.endpoints}


def described_paths() -> list[str]:
    """Return every path of the inference API that is no task's and not below one, a value in place
    of each name."""
    paths = [
        path
        for path in inference_description()["paths"]
        if not any(path == own or path.startswith(f"{own}/") for own in TASK_PATHS)
    ]
    return ["/".join("x" if "{" in part else part for part in path.split("/")) for path in paths]


def test_the_paths_of_the_gateway_are_kept() -> None:
    paths = described_paths()
    assert len(paths) > 8
    assert {"/v1/models", "/v1/models/x", "/v1/files", "/v1/feedback"} <= set(paths)
    assert [path for path in paths if not answered_by(path, False)] == []
    # A deployment's name behind a path that is free would reach the gateway, too.
    assert answered_by("/v1", True) == ""
    assert answered_by("/v1/models", True) == "the gateway"


def patterns(within: Any, before: str = "") -> Iterator[str]:
    """Yield the beginning of every route of Django, as far as it is literal."""
    for each in within:
        route = before + str(each.pattern).lstrip("^")
        if hasattr(each, "url_patterns"):
            yield from patterns(each.url_patterns, route)
        else:
            yield route


def test_no_route_of_the_portal_or_the_api_lies_where_tasks_have_theirs() -> None:
    routes = list(patterns(get_resolver().url_patterns))
    assert len(routes) > 300
    assert {"sign-in", "api/v1/models"} <= set(routes)
    assert [each for each in routes if f"/{each}".startswith(INFERENCE_PATHS)] == []
    assert [path for path in PROBES if path.startswith(INFERENCE_PATHS)] == []


def test_the_paths_of_tasks_are_free() -> None:
    for task in TASKS.values():
        for endpoint in task.endpoints:
            # Of a path that both have, such as that of stored chats, the gateway takes no POST.
            assert own_label("POST", endpoint.path) == "", endpoint.path
    assert answered_by("/v1/tasks/mine", True) == ""


@pytest.mark.parametrize("path", ["/v1/models", "/v1/files", "/v1/batches", "/v1/vector_stores"])
def test_a_package_that_claims_such_a_path_is_left_out(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = path.rpartition("/")[2].replace("_", "-")
    install_task(
        tmp_path, f"takes-{name}", change=f'endpoints=(Endpoint("{path}", read, named=True),)'
    )
    found = discover(installed(), answered_by)
    assert f"takes-{name}" not in found.tasks
    assert f"{path} is a path of the gateway." in found.refused[0].reason
