"""The inference endpoints by path, as the tasks declare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from pydantic_core import from_json

from registry.catalog import TASKS
from registry.catalog.endpoints import Endpoint
from registry.catalog.requests import Body


@dataclass(frozen=True)
class Route:
    """A path, and the endpoint of each task that declares it; those without media come first."""

    path: str
    endpoints: Mapping[str, Endpoint]

    @cached_property
    def first(self) -> Endpoint:
        """Return the endpoint that answers while the task is not known."""
        return next(iter(self.endpoints.values()))

    @cached_property
    def takes_media(self) -> bool:
        return any(endpoint.takes_media for endpoint in self.endpoints.values())

    @cached_property
    def takes_others(self) -> bool:
        """Return whether requests without media come here too."""
        return not all(endpoint.takes_media for endpoint in self.endpoints.values())

    @cached_property
    def content_types(self) -> tuple[str, ...]:
        """Return the content types that any of the endpoints takes."""
        every = (each for endpoint in self.endpoints.values() for each in endpoint.content_types)
        return tuple(dict.fromkeys(every))


@cache
def routes() -> dict[str, Route]:
    """Return every route by its path, without a deployment's name at the end."""
    endpoints: dict[str, dict[str, Endpoint]] = {}
    for task in TASKS.values():
        for endpoint in task.endpoints:
            endpoints.setdefault(endpoint.path, {})[task.name] = endpoint
    return {
        path: Route(path, dict(sorted(each.items(), key=lambda item: item[1].takes_media)))
        for path, each in endpoints.items()
    }


def find_route(path: str) -> tuple[Route | None, str]:
    """Return the route under `path`, and the deployment that the path names, if any."""
    known = routes()
    if (route := known.get(path)) is not None and not route.first.named:
        return route, ""
    head, _, name = path.rpartition("/")
    if name and (route := known.get(head)) is not None and route.first.named:
        return route, name
    return None, ""


def deployment_path(task: str, name: str) -> str:
    """Return the path that reaches a deployment; empty while its task is unavailable."""
    known = TASKS.get(task)
    return "" if known is None else known.endpoints[0].path_to(name)


def named_model(body: Body) -> str:
    """Return the model that a body in JSON names; empty when it names none."""
    try:
        fields = from_json(body.data, cache_strings="none")
    except ValueError:
        return ""
    model = fields.get("model") if isinstance(fields, dict) else None
    return model if isinstance(model, str) else ""
