"""Converters of parameters in the API's URLs."""

from __future__ import annotations

from django.urls import register_converter
from django.urls.converters import IntConverter, StringConverter


class RowIdConverter(IntConverter):
    """A row's ID. IDs that PostgreSQL could not store match no URL."""

    regex = "[1-9][0-9]{0,17}"


class DigestConverter(StringConverter):
    """A SHA-256 in hexadecimal."""

    regex = "[0-9a-f]{64}"


register_converter(RowIdConverter, "id")
register_converter(DigestConverter, "digest")
