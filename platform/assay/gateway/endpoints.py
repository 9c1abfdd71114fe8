"""The inference endpoints by path, as the tasks declare them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from registry.catalog import TASKS
from registry.catalog.endpoints import Endpoint


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint and the task that it serves."""

    task: str
    endpoint: Endpoint


@cache
def routes() -> dict[str, Route]:
    """Return every endpoint by its path, without a deployment's name at the end."""
    return {
        endpoint.path: Route(task.name, endpoint)
        for task in TASKS.values()
        for endpoint in task.endpoints
    }


def find_route(path: str) -> tuple[Route | None, str]:
    """Return the endpoint under `path`, and the deployment that the path names, if any."""
    known = routes()
    if (route := known.get(path)) is not None and not route.endpoint.named:
        return route, ""
    head, _, name = path.rpartition("/")
    if name and (route := known.get(head)) is not None and route.endpoint.named:
        return route, name
    return None, ""
