"""The lines of a batch's input, read with bounded memory, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from registry.batches.models import CUSTOM_ID_MAX, ERRORS_MAX
from registry.catalog.requests import printable

# Bytes of a line besides its body.
_AROUND = 16 * 1024
_FIELDS = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with the input; `line` counts from 1, None for the whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "line": self.line,
            "message": self.message,
            "param": self.param,
        }


class LineInvalid(Exception):
    """A line is not a request of the batch."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file as it stands there. `number` counts from 1, blank lines too."""

    number: int
    offset: int
    data: bytes

    @property
    def following(self) -> int:
        """Return the offset of the next line."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class LineRequest:
    """The request that a line holds."""

    custom_id: str
    model: str
    body: dict[str, Any]


@dataclass(slots=True)
class Validated:
    """Contents of a whole input: its requests, the one model that they name, and its faults."""

    total: int = 0
    model: str = ""
    faults: list[Fault] = field(default_factory=list)


def line_limit(body_max: int) -> int:
    """Return the most bytes of a line whose body may have `body_max`."""
    return body_max + _AROUND


def read_lines(path: Path, limit: int, *, number: int = 1, offset: int = 0) -> Iterator[Line]:
    """Return the lines that are not blank, from `offset` on, where line `number` begins.

    A line of more than `limit` bytes comes cut off, as the last one.

    Raises:
        FileNotFoundError: the content is gone.
    """
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.readline(limit + 1):
            if data.strip():
                yield Line(number, offset, data)
            if len(data) > limit:
                return
            number, offset = number + 1, offset + len(data)


def read_request(line: Line, endpoint: str, limit: int) -> LineRequest:
    """Return the request of a line.

    Raises:
        LineInvalid: it is not one for `endpoint`.
    """
    if len(line.data) > limit:
        raise LineInvalid("line_too_long", f"The line has more than {limit:,} bytes.")
    try:
        given = from_json(line.data, allow_inf_nan=False, cache_strings="none")
    except ValueError:
        raise LineInvalid("invalid_json_line", "The line is not valid JSON.") from None
    if not isinstance(given, dict):
        raise LineInvalid("invalid_json_line", "The line is not a JSON object.")
    if unknown := sorted(given.keys() - _FIELDS):
        name = printable(unknown[0])
        raise LineInvalid("unknown_parameter", f"{name} is not a field of a line.", name)
    custom_id = given.get("custom_id")
    if (
        not isinstance(custom_id, str)
        or not 1 <= len(custom_id) <= CUSTOM_ID_MAX
        or not custom_id.isprintable()
    ):
        raise LineInvalid(
            "invalid_custom_id",
            f"custom_id is a text of 1 to {CUSTOM_ID_MAX} printable characters.",
            "custom_id",
        )
    if given.get("method") != "POST":
        raise LineInvalid("invalid_method", "method is POST.", "method")
    if given.get("url") != endpoint:
        raise LineInvalid("invalid_url", f"url is {endpoint}, the batch's endpoint.", "url")
    body = given.get("body")
    if not isinstance(body, dict):
        raise LineInvalid("missing_required_parameter", "body is a JSON object.", "body")
    model = body.get("model")
    if not isinstance(model, str) or not 1 <= len(model) <= 200 or not model.isprintable():
        raise LineInvalid("missing_required_parameter", "body.model names a model.", "body.model")
    if body.get("stream"):
        raise LineInvalid("invalid_stream", "Answers of a batch are not streamed.", "body.stream")
    return LineRequest(custom_id, model, body)


def validate_input(path: Path, endpoint: str, *, limit: int, lines_max: int) -> Validated:
    """Read the whole input and return what it holds, with at most `ERRORS_MAX` faults.

    Raises:
        FileNotFoundError: the content is gone.
    """
    found = Validated()
    known: set[int] = set()
    for line in read_lines(path, limit):
        found.total += 1
        if found.total > lines_max:
            found.faults = [
                Fault("too_many_requests", f"A batch has at most {lines_max:,} requests.")
            ]
            return found
        try:
            _take(found, known, read_request(line, endpoint, limit))
        except LineInvalid as fault:
            found.faults.append(Fault(fault.code, fault.message, line.number, fault.param))
            if len(found.faults) >= ERRORS_MAX:
                return found
    if not found.total:
        found.faults.append(Fault("empty_file", "The input file holds no request."))
    return found


def _take(found: Validated, known: set[int], request: LineRequest) -> None:
    # Hashes of 64 bits, so that 50,000 long names take little memory.
    name = hash(request.custom_id)
    if name in known:
        raise LineInvalid("duplicate_custom_id", "Another line has this custom_id.", "custom_id")
    known.add(name)
    found.model = found.model or request.model
    if request.model != found.model:
        raise LineInvalid(
            "mismatched_model",
            f"The line names {request.model[:80]}; all lines of a batch name one model.",
            "body.model",
        )
