"""Parameters of the API's addresses."""

from __future__ import annotations

from django.urls import register_converter
from django.urls.converters import IntConverter, StringConverter


class RowIdConverter(IntConverter):
    """A row's ID: what PostgreSQL could not hold is no address."""

    regex = "[1-9][0-9]{0,17}"


class DigestConverter(StringConverter):
    """A SHA-256 in hexadecimal."""

    regex = "[0-9a-f]{64}"


register_converter(RowIdConverter, "id")
register_converter(DigestConverter, "digest")
