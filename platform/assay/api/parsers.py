"""Parsers of request bodies with limits. All stores can store the accepted values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework import parsers
from rest_framework.exceptions import ParseError

from governance.errors import DomainError, TooLarge
from governance.strict_json import unique_object

MAX_DEPTH = 24
MAX_WHOLE_NUMBER = 2**63 - 1
# Fields and boundaries of a multipart body, in addition to the bytes of its files.
MULTIPART_OVERHEAD = 1024 * 1024
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class LengthRequired(DomainError):
    """The length of the body is not stated; Django would read it as empty (411)."""

    code = "length_required"
    status = 411
    title = "Length required"


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ParseError("A number is too large.")
    return value


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_WHOLE_NUMBER:
        raise ParseError("A whole number is too large.")
    return int(text)


def _no_constant(name: str) -> Any:
    raise ParseError(f"{name} is not JSON.")


def _check(value: Any, depth: int = 0) -> None:
    """Refuse values that stores cannot store: NUL, lone surrogates, deep nesting."""
    if depth > MAX_DEPTH:
        raise ParseError(f"The body is nested more than {MAX_DEPTH} deep.")
    if isinstance(value, str):
        if UNSTORABLE.search(value):
            raise ParseError("A string contains a NUL or half a surrogate pair.")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check(name, depth)
            _check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth + 1)


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON, without NaN, repeated members, overflowing numbers or deep nesting.

    Raises:
        ParseError: it is invalid.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=unique_object,
            parse_float=_finite,
            parse_int=_whole,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ParseError(f"The body is not JSON: {reason[:200]}.") from None
    _check(value)
    return value


def _declared_size(parser_context: Mapping[str, Any] | None) -> int:
    request = (parser_context or {}).get("request")
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0) if request is not None else 0
    except ValueError:
        return 0


class StrictJSONParser(parsers.JSONParser):
    """`application/json` in UTF-8, at most `DATA_UPLOAD_MAX_MEMORY_SIZE` bytes."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 2 * 1024 * 1024
        body = stream.read(limit + 1) if _declared_size(parser_context) <= limit else b""
        if len(body) > limit or _declared_size(parser_context) > limit:
            raise TooLarge(f"The body is larger than {limit:,} bytes.")
        try:
            return parse_json(bytes(body).decode("utf-8"))
        except UnicodeDecodeError:
            raise ParseError("The body is not UTF-8.") from None


class OctetStreamParser(parsers.BaseParser):
    """Bytes, at most the setting that the view names in `upload_limit`, by default the limit of one
    part of an upload."""

    media_type = "application/offset+octet-stream"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        view = (parser_context or {})["view"]
        limit: int = getattr(settings, getattr(view, "upload_limit", "UPLOAD_CHUNK_BYTES"))
        body = stream.read(limit + 1) if _declared_size(parser_context) <= limit else b""
        if len(body) > limit or _declared_size(parser_context) > limit:
            raise TooLarge(f"The body has at most {limit:,} bytes.")
        return bytes(body)


class BoundedMultiPartParser(parsers.MultiPartParser):
    """`multipart/form-data`, refused unread if its declared length is over the limit of intakes."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> parsers.DataAndFiles[Any, Any]:
        limit = settings.INTAKE_MAX_BYTES + MULTIPART_OVERHEAD
        if _declared_size(parser_context) > limit:
            raise TooLarge(f"The body is larger than {limit:,} bytes.")
        return super().parse(stream, media_type, parser_context)
