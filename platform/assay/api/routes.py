"""Operations of the API as functions, one for each method and path.

    routes = Routes("Jobs", ScheduleAnswer)

    @routes.post("schedules/<id:schedule_id>/pause", "Pause a schedule")
    def pause(actor: Principal, schedule_id: int) -> Schedule:
        return schedule_pause(actor=actor, schedule_id=schedule_id)

The function gets the caller and the parameters of the path. Its `body` and `query` are parsed as
their annotated schemas; a request may only have those that the function has. `answer` renders the
result. Files and streams are each an `Endpoint`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar, Unpack, get_type_hints

from django.urls import URLPattern, path
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint, SerializerType
from assay.api.idempotency import idempotent
from governance.schemas import Schema

F = TypeVar("F", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """`name`: the operation ID, instead of one from the path. `order`: the columns by which a list
    is paged; empty if it has no pages. `repeatable`: accepts an `Idempotency-Key`. `judged`: as in
    `operation`."""

    answer: SerializerType
    judged: bool
    name: str
    order: tuple[str, ...]
    repeatable: bool
    status: int


@dataclass(frozen=True)
class Routes:
    """Operations of one tag; `answer` is their default answer."""

    tag: str
    answer: SerializerType
    views: dict[str, type[Endpoint]] = field(default_factory=dict)

    @property
    def urls(self) -> list[URLPattern]:
        return [path(route, view.as_view()) for route, view in self.views.items()]

    def get(self, route: str, summary: str, **options: Unpack[Options]) -> Callable[[F], F]:
        return self._add("get", route, summary, options)

    def post(self, route: str, summary: str, **options: Unpack[Options]) -> Callable[[F], F]:
        return self._add("post", route, summary, options)

    def patch(self, route: str, summary: str, **options: Unpack[Options]) -> Callable[[F], F]:
        return self._add("patch", route, summary, options)

    def put(self, route: str, summary: str, **options: Unpack[Options]) -> Callable[[F], F]:
        return self._add("put", route, summary, options)

    def delete(self, route: str, summary: str, **options: Unpack[Options]) -> Callable[[F], F]:
        return self._add("delete", route, summary, {"status": 204, **options})

    def list(self, route: str, summary: str, **options: Unpack[Options]) -> Callable[[F], F]:
        """Add a `get` whose function returns rows."""
        return self._add("get", route, summary, {"order": ("-id",), **options})

    def create(self, route: str, summary: str, **options: Unpack[Options]) -> Callable[[F], F]:
        """Add a `post` that stores its answer for repeated requests. Use `post` with `status=201`
        if the answer contains a secret."""
        return self._add("post", route, summary, {"status": 201, "repeatable": True, **options})

    def _add(self, method: str, route: str, summary: str, options: Options) -> Callable[[F], F]:
        answer, status = options.get("answer", self.answer), options.get("status", 200)
        many, order = "order" in options, options.get("order", ())
        schema: Any = answer(many=True) if many and not order else answer

        def add(function: F) -> F:
            hints = get_type_hints(function)

            def handle(view: Endpoint, request: Request, **values: Any) -> Response:
                read = {"query": view.query_as(hints.get("query", Schema))}
                if method != "get":
                    read["body"] = view.body_as(hints.get("body", Schema))
                values |= {name: read[name] for name in read if name in hints}
                result = function(view.actor, **values)
                if status == 204:
                    return Response(status=status)
                if order:
                    return view.page(result, answer)
                return view.answer(result, answer, status=status, many=many)

            document = operation(
                self.tag,
                summary,
                answer=None if status == 204 else schema,
                body=hints.get("body"),
                query=hints.get("query"),
                status=status,
                paged=bool(order),
                judged=options.get("judged", False),
                name=options.get("name") or f"{_words(route)}_{method}",
                description=inspect.getdoc(function) or "",
            )
            # An empty docstring, so that the one of `Endpoint` is not used.
            view = self.views.setdefault(route, type("Route", (Endpoint,), {"__doc__": ""}))
            repeatable = options.get("repeatable", False)
            setattr(view, method, document(idempotent(handle) if repeatable else handle))
            view.ordering = order or view.ordering
            return function

        return add


def _words(route: str) -> str:
    """Return a name for a route: `schedule_runs` for `schedules/<id:schedule_id>/runs`."""
    singular = re.sub(r"(ie)?(?<!s)s/<", lambda end: "y/<" if end[1] else "/<", route)
    return re.sub(r"\W+", "_", re.sub(r"<\w+:\w+>", "", singular)).strip("_")
