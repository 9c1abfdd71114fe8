"""Paths of inference, each with the endpoints of the tasks that declare it."""

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
    """A path with the endpoint of each task that declares it; those without media come first."""

    path: str
    endpoints: Mapping[str, Endpoint]

    @cached_property
    def first(self) -> Endpoint:
        """The endpoint that is used while the task is unknown."""
        return next(iter(self.endpoints.values()))

    @cached_property
    def takes_media(self) -> bool:
        return any(endpoint.takes_media for endpoint in self.endpoints.values())

    @cached_property
    def takes_others(self) -> bool:
        """True if the path also accepts requests without media."""
        return not all(endpoint.takes_media for endpoint in self.endpoints.values())

    @cached_property
    def content_types(self) -> tuple[str, ...]:
        """Content types that any of the endpoints accepts."""
        every = (each for endpoint in self.endpoints.values() for each in endpoint.content_types)
        return tuple(dict.fromkeys(every))

    def label(self, deployment: str) -> str:
        """Return the path in metrics and the ledger; `deployment` is the one that it names."""
        return f"{self.path}/{{model}}" if deployment else self.path


@cache
def routes() -> dict[str, Route]:
    """Return all routes by path, without a deployment's name at the end."""
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
    by_path = routes()
    if (route := by_path.get(path)) is not None and not route.first.named:
        return route, ""
    head, _, name = path.rpartition("/")
    if name and (route := by_path.get(head)) is not None and route.first.named:
        return route, name
    return None, ""


def deployment_path(task: str, name: str) -> str:
    """Return the path of a deployment; empty while its task is unavailable."""
    declaration = TASKS.get(task)
    return "" if declaration is None else declaration.endpoints[0].path_to(name)


def named_model(body: Body) -> str:
    """Return the model named in a JSON body; empty if there is none."""
    try:
        fields = from_json(body.data, cache_strings="none")
    except ValueError:
        return ""
    model = fields.get("model") if isinstance(fields, dict) else None
    return model if isinstance(model, str) else ""
