"""Common part of every endpoint: read strictly, call one service, render."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.parsers import BaseParser
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView

from assay.api.authentication import (
    Caller,
    HasPrincipal,
    SessionAuthentication,
    TokenAuthentication,
)
from assay.api.fields import StrictSerializer
from assay.api.pagination import CursorPagination
from assay.api.parsers import LengthRequired, StrictJSONParser
from assay.server.permits import permit_of
from governance import rowsecurity
from governance.errors import InvalidInput, NotAuthenticated
from governance.principals import Principal

PAGE_PARAMETERS = frozenset({"cursor", "page_size"})

SerializerType = type[serializers.Serializer[Any]]


class Endpoint(APIView):
    """A view of this API. `ordering` is how its list is paged."""

    authentication_classes: tuple[type[BaseAuthentication], ...] = (
        TokenAuthentication,
        SessionAuthentication,
    )
    permission_classes: tuple[type[BasePermission], ...] = (HasPrincipal,)
    parser_classes: tuple[type[BaseParser], ...] = (StrictJSONParser,)
    renderer_classes: tuple[type[BaseRenderer], ...] = (JSONRenderer,)
    ordering: tuple[str, ...] = CursorPagination.ordering

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """The framework's, with the handler in one transaction within what the caller's department
        owns. Refusals are rendered and audited outside of it."""
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
        """Return the method that answers the request's method."""
        name = str(self.request.method).lower()
        refused = self.http_method_not_allowed
        return getattr(self, name, refused) if name in self.http_method_names else refused

    def scope(self) -> AbstractContextManager[object]:
        """Return the context of the handler; an empty one where callers are anonymous, as when
        signing in.
        """
        caller = self.request.user
        if not isinstance(caller, Caller):
            return nullcontext()
        return rowsecurity.scope(caller.principal, reads=self.request.method in SAFE_METHODS)

    def allow_body(self, *args: Any, **kwargs: Any) -> None:
        """Raise unless the caller may send a body of some size here. None of it is there yet.

        Raises:
            DomainError: what the handler would raise without looking into the body.
        """

    @property
    def actor(self) -> Principal:
        """The calling principal."""
        if not isinstance(self.request.user, Caller):
            raise NotAuthenticated("This needs a credential.")
        return self.request.user.principal

    def body(self, serializer_class: type[StrictSerializer]) -> dict[str, Any]:
        """The request's body, validated.

        Raises:
            ValidationError: naming every field that is wrong.
            LengthRequired: its length is not stated.
        """
        serializer = serializer_class(data=self._sent())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def _sent(self) -> Any:
        headers = self.request.headers
        if "Transfer-Encoding" in headers and "Content-Length" not in headers:
            raise LengthRequired(
                "The body is sent in chunks without its length; it was not read.",
                hint="Send Content-Length.",
            )
        return self.request.data

    def nothing(self) -> None:
        """Refuse any member: this POST takes no body."""
        self.body(StrictSerializer)

    def query(self, serializer_class: type[StrictSerializer] | None = None) -> dict[str, Any]:
        """The query parameters, validated; those of pages are the paginator's.

        Raises:
            InvalidInput: an unknown parameter, or one given twice.
            ValidationError: a value that does not fit.
        """
        serializer = (serializer_class or StrictSerializer)(data=self._parameters())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def _parameters(self) -> dict[str, str]:
        sent = dict(self.request.query_params.lists())
        if repeated := [name for name, values in sent.items() if len(values) > 1]:
            raise InvalidInput(
                f"The parameter {repeated[0][:60]!r} is given more than once.",
                fields={name[:60]: ["Given more than once."] for name in repeated},
            )
        return {name: values[0] for name, values in sent.items() if name not in PAGE_PARAMETERS}

    def page(
        self,
        rows: QuerySet[Any],
        serializer_class: SerializerType,
        *,
        prepared: Callable[[Iterable[Any]], Iterable[Any]] = list,
    ) -> Response:
        """One page of `rows`; `prepared` completes the page's rows before they are shown."""
        paginator = CursorPagination()
        page = prepared(paginator.paginate_queryset(rows, self.request, view=self) or [])
        return paginator.get_paginated_response(self.rendered(page, serializer_class))

    def rendered(self, rows: Iterable[Any], serializer_class: SerializerType) -> Any:
        return serializer_class(rows, many=True, context={"request": self.request}).data

    def answer(self, row: Any, serializer_class: SerializerType, *, status: int = 200) -> Response:
        """One row."""
        data = serializer_class(row, context={"request": self.request}).data
        return Response(data, status=status)
