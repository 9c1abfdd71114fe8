"""Base of all endpoints: parse strictly, call one service, render."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, TypeVar

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.parsers import BaseParser
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from assay.api.authentication import (
    Caller,
    HasPrincipal,
    SessionAuthentication,
    TokenAuthentication,
)
from assay.api.pagination import CursorPagination
from assay.api.parsers import LengthRequired, StrictJSONParser
from assay.server.permits import permit_of
from governance import rowsecurity
from governance.errors import InvalidInput, NotAuthenticated
from governance.principals import Principal
from governance.schemas import Schema, json_schema, parsed

S = TypeVar("S", bound=Schema)
PAGE_PARAMETERS = frozenset({"cursor", "page_size"})

SerializerType = type[serializers.Serializer[Any]]


@cache
def _lists(schema: type[Schema]) -> set[str]:
    fields = json_schema(schema)["properties"]
    return {name for name in fields if fields[name].get("type") == "array"}


class Endpoint(APIView):
    """A view of this API. `ordering` is the sort order of its list."""

    authentication_classes: tuple[type[BaseAuthentication], ...] = (
        TokenAuthentication,
        SessionAuthentication,
    )
    permission_classes: tuple[type[BasePermission], ...] = (HasPrincipal,)
    parser_classes: tuple[type[BaseParser], ...] = (StrictJSONParser,)
    renderer_classes: tuple[type[BaseRenderer], ...] = (JSONRenderer,)
    ordering: tuple[str, ...] = CursorPagination.ordering

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Dispatch as the framework does, with the handler in one transaction that is restricted to
        the caller's rows. Refusals are rendered and audited outside of it."""
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request, *args, **kwargs)
        self.headers = self.default_response_headers
        response: Any
        try:
            self.initial(self.request, *args, **kwargs)
            with self.scope():
                if (permit := permit_of(request)) is None:
                    response = self.handler()(self.request, *args, **kwargs)
                else:
                    self.allow_body(*args, **kwargs)
                    response = permit.grant(self.actor)
        except Exception as error:
            response = self.handle_exception(error)
        self.response = self.finalize_response(self.request, response, *args, **kwargs)
        return self.response

    def handler(self) -> Callable[..., HttpResponseBase]:
        """Return the method of the view for the request's HTTP method."""
        name = str(self.request.method).lower()
        not_allowed = self.http_method_not_allowed
        return getattr(self, name, not_allowed) if name in self.http_method_names else not_allowed

    def options(  # type: ignore[override]  # The framework's answer needs a renderer.
        self, request: Request, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        """Answer with the allowed methods in `Allow`, which the framework adds to every answer."""
        return HttpResponse(status=204)

    def scope(self) -> AbstractContextManager[object]:
        """Return the context of the handler; an empty one for anonymous callers, such as at
        sign-in.
        """
        caller = self.request.user
        if not isinstance(caller, Caller):
            return nullcontext()
        return rowsecurity.scope(caller.principal, reads=self.request.method in SAFE_METHODS)

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Forbid caching the answer to a change, since it may contain a secret."""
        final = super().finalize_response(request, response, *args, **kwargs)
        if request.method not in SAFE_METHODS:
            final.headers["Cache-Control"] = "no-store"
        return final

    def allow_body(self, *args: Any, **kwargs: Any) -> None:
        """Raise unless the caller may send a large body here. The body has not been read yet.

        Raises:
            DomainError: as the handler would raise before reading the body.
        """

    @property
    def actor(self) -> Principal:
        """The calling principal."""
        if not isinstance(self.request.user, Caller):
            raise NotAuthenticated("This needs a credential.")
        return self.request.user.principal

    def body_as(self, schema: type[S]) -> S:
        """Return the request's body as a schema.

        Raises:
            InvalidInput: fields are invalid; the error names each of them.
            LengthRequired: its length is not stated.
        """
        data = self.content()
        if not isinstance(data, QueryDict):
            return parsed(schema, data)
        # A form: each value is a text or a file, and a list is a name that occurs several times.
        lists = _lists(schema)
        values = {name: data.getlist(name) if name in lists else data[name] for name in data}
        return parsed(schema, values, strict=False)

    def content(self) -> Any:
        """Return the parsed body of the request. Raises LengthRequired."""
        headers = self.request.headers
        if "Transfer-Encoding" in headers and "Content-Length" not in headers:
            raise LengthRequired(
                "The body is sent in chunks without its length; it was not read.",
                hint="Send Content-Length.",
            )
        return self.request.data

    def query_as(self, schema: type[S]) -> S:
        """Return the query parameters as a schema, except those of the paginator. A list is a
        parameter that occurs several times.

        Raises:
            InvalidInput: a parameter is unknown, repeated without being a list, or invalid.
        """
        lists = _lists(schema)
        values: dict[str, object] = {
            name: texts for name, texts in self.request.query_params.lists() if name in lists
        }
        parameters = self.parameters(lists)
        values |= {n: parameters[n] for n in parameters if n not in PAGE_PARAMETERS}
        return parsed(schema, values)

    def parameters(self, lists: Collection[str] = ()) -> dict[str, str]:
        """Return the query parameters, except `lists`. Raises InvalidInput if one is repeated."""
        sent = {n: texts for n, texts in self.request.query_params.lists() if n not in lists}
        if repeated := [name for name, values in sent.items() if len(values) > 1]:
            raise InvalidInput(
                f"The parameter {repeated[0][:60]!r} is given more than once.",
                fields={name[:60]: ["Given more than once."] for name in repeated},
                malformed=True,
            )
        return {name: values[0] for name, values in sent.items()}

    def page(
        self,
        rows: QuerySet[Any],
        serializer_class: SerializerType,
        *,
        prepared: Callable[[Iterable[Any]], Iterable[Any]] = list,
    ) -> Response:
        """Return a page of `rows`; `prepared` adds attributes to the rows before rendering."""
        paginator = CursorPagination()
        page = prepared(paginator.paginate_queryset(rows, self.request, view=self) or [])
        return paginator.get_paginated_response(self.rendered(page, serializer_class))

    def rendered(self, rows: Iterable[Any], serializer_class: SerializerType) -> Any:
        return serializer_class(rows, many=True, context={"request": self.request}).data

    def answer(
        self, row: Any, serializer_class: SerializerType, *, status: int = 200, many: bool = False
    ) -> Response:
        """Return the response for one row; with `many`, for several."""
        data = serializer_class(row, many=many, context={"request": self.request}).data
        return Response(data, status=status)
