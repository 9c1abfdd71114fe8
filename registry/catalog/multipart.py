"""Multipart request bodies (RFC 7578), for endpoints that take files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from registry.catalog.header_values import header_value
from registry.catalog.requests import Body, RequestInvalid

if TYPE_CHECKING:
    # The package defines it for type checkers only.
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 64
MAX_HEADER_BYTES = 4_096
MAX_FIELD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Form:
    """Text fields by name, in order, and the single file of each file field, with its file name."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    filenames: dict[str, str] = field(default_factory=dict)


def parse_form(body: Body) -> Form:
    """Return the form in a multipart body.

    Raises:
        RequestInvalid: the body is malformed, has more than 64 parts, a field is over 64 KiB or not
            UTF-8, or two file fields have the same name.
    """
    stream = FormStream(f"{body.content_type}; {body.parameters}")
    stream.feed(body.data)
    return stream.end()


class FormStream:
    """Incremental reader of a multipart body.

    Args:
        content_type: the body's content type, with its boundary.
        sink: receives the bytes of files as they arrive; `Form.files` then has only their names.

    Raises:
        RequestInvalid: as in `parse_form`, also from `feed` and `end`.
    """

    def __init__(self, content_type: str, sink: Callable[[bytes], None] | None = None) -> None:
        header = header_value(content_type)
        boundary = "" if header is None else header.parameters.get("boundary", "")
        if not boundary:
            raise RequestInvalid("The multipart body names no boundary.", code="invalid_multipart")
        self._reader = _Reader(sink)
        try:
            self._parser = MultipartParser(
                boundary.encode("latin-1", "replace"), self._reader.callbacks()
            )
        except FormParserError as error:
            raise _unreadable(error) from None

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the body."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _unreadable(error) from None

    def end(self) -> Form:
        """Return the form once the body is complete."""
        try:
            self._parser.finalize()
        except FormParserError as error:
            raise _unreadable(error) from None
        if not self._reader.ended:
            raise RequestInvalid("The multipart body ends too early.", code="invalid_multipart")
        return self._reader.form


def _unreadable(error: FormParserError) -> RequestInvalid:
    return RequestInvalid(f"The multipart body cannot be read: {error}.", code="invalid_multipart")


class _Reader:
    """Collector of the parts that the parser reports."""

    def __init__(self, sink: Callable[[bytes], None] | None) -> None:
        self.form = Form()
        self.ended = False
        self._sink = sink
        self._name = ""
        self._filename: str | None = None
        self._parts = 0
        self._header = bytearray()
        self._value = bytearray()
        self._headers: dict[str, str] = {}
        self._data = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._grow(self._header, data[start:end]),
            "on_header_value": lambda data, start, end: self._grow(self._value, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_data,
            "on_part_data": lambda data, start, end: self._take(data[start:end]),
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise RequestInvalid(
                f"The multipart body has more than {MAX_PARTS} parts.", code="invalid_multipart"
            )
        self._headers, self._data = {}, bytearray()

    def _grow(self, target: bytearray, data: bytes) -> None:
        target.extend(data)
        if len(target) > MAX_HEADER_BYTES:
            raise RequestInvalid(
                "A header of the multipart body is too long.", code="invalid_multipart"
            )

    def _end_header(self) -> None:
        name = self._header.decode("latin-1").strip().lower()
        self._headers[name] = self._value.decode("utf-8", "replace").strip()
        self._header, self._value = bytearray(), bytearray()

    def _begin_data(self) -> None:
        header = header_value(self._headers.get("content-disposition", ""))
        parameters = {} if header is None else header.parameters
        name = parameters.get("name*", parameters.get("name", ""))
        if not name:
            raise RequestInvalid(
                "A part of the multipart body has no name.", code="invalid_multipart"
            )
        self._name = name
        self._filename = parameters.get("filename*", parameters.get("filename"))
        if self._filename is not None:
            if name in self.form.files:
                raise RequestInvalid(f"The file {name[:80]} comes twice.", param=name[:80])
            self.form.files[name] = b""
            self.form.filenames[name] = self._filename

    def _take(self, data: bytes) -> None:
        if self._filename is None:
            self._data.extend(data)
            if len(self._data) > MAX_FIELD_BYTES:
                name = self._name[:80]
                raise RequestInvalid(f"The field {name} is too long.", param=name)
        elif self._sink is None:
            self._data.extend(data)
        else:
            self._sink(data)

    def _end_part(self) -> None:
        name, data = self._name, bytes(self._data)
        if self._filename is not None:
            self.form.files[name] = data
            return
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise RequestInvalid(f"The field {name[:80]} is not UTF-8.", param=name[:80]) from None
        self.form.fields.setdefault(name, []).append(text)

    def _end(self) -> None:
        self.ended = True
