"""What every endpoint shares: read strictly, call one service, render."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
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

    @property
    def actor(self) -> Principal:
        """Who is calling."""
        if not isinstance(self.request.user, Caller):
            raise NotAuthenticated("This needs a credential.")
        return self.request.user.principal

    def body(self, serializer_class: type[StrictSerializer]) -> dict[str, Any]:
        """The request's body, validated.

        Raises:
            ValidationError: naming every field that is wrong.
            LengthRequired: its length is not stated.
        """
        headers = self.request.headers
        if "Transfer-Encoding" in headers and "Content-Length" not in headers:
            raise LengthRequired(
                "The body is sent in chunks without its length; it was not read.",
                hint="Send Content-Length.",
            )
        serializer = serializer_class(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def nothing(self) -> None:
        """Refuse any member: this POST takes no body."""
        self.body(StrictSerializer)

    def query(self, serializer_class: type[StrictSerializer] | None = None) -> dict[str, Any]:
        """The query parameters, validated; those of pages are the paginator's.

        Raises:
            InvalidInput: an unknown parameter, or one given twice.
            ValidationError: a value that does not fit.
        """
        given = dict(self.request.query_params.lists())
        if repeated := [name for name, values in given.items() if len(values) > 1]:
            raise InvalidInput(
                f"The parameter {repeated[0][:60]!r} is given more than once.",
                fields={name[:60]: ["Given more than once."] for name in repeated},
            )
        serializer = (serializer_class or StrictSerializer)(
            data={name: values[0] for name, values in given.items() if name not in PAGE_PARAMETERS}
        )
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def page(self, rows: QuerySet[Any], serializer_class: SerializerType) -> Response:
        """One page of `rows`."""
        paginator = CursorPagination()
        page = paginator.paginate_queryset(rows, self.request, view=self)
        return paginator.get_paginated_response(self.rendered(page or [], serializer_class))

    def rendered(self, rows: Iterable[Any], serializer_class: SerializerType) -> Any:
        return serializer_class(rows, many=True, context={"request": self.request}).data

    def answer(self, row: Any, serializer_class: SerializerType, *, status: int = 200) -> Response:
        """One row."""
        data = serializer_class(row, context={"request": self.request}).data
        return Response(data, status=status)
