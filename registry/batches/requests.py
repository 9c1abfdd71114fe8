"""Read a batch's input lines with bounded memory, and collect their faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from registry.batches.models import CUSTOM_ID_MAX, ERRORS_MAX
from registry.catalog.requests import RequestInvalid, printable
from registry.catalog.routes import find_route

# Maximum bytes of a line besides its body.
_AROUND = 16 * 1024
JSON = "application/json"
_FIELDS = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the input; `line` counts from 1, None for the whole input."""

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
    """A line is not a valid request of the batch."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


@dataclass(frozen=True, slots=True)
class Line:
    """A raw line of the file. `number` counts all lines, including blank ones, from 1."""

    number: int
    offset: int
    data: bytes

    @property
    def following(self) -> int:
        """Return the offset of the next line."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class LineRequest:
    """The request in a line."""

    custom_id: str
    model: str
    body: dict[str, Any]


@dataclass(slots=True)
class Validated:
    """Summary of an input: the number of requests, their common model, and the faults."""

    total: int = 0
    model: str = ""
    faults: list[Fault] = field(default_factory=list)


def line_limit(body_max: int) -> int:
    """Return the maximum bytes of a line whose body may have `body_max`."""
    return body_max + _AROUND


def check_endpoint(endpoint: str) -> None:
    """Raise RequestInvalid unless the path is a task's and takes JSON, which a line's body is."""
    route, _ = find_route(endpoint)
    if route is None or not endpoint.isprintable():
        raise RequestInvalid(
            f"endpoint is {printable(endpoint)}, which no task has. Use the path of an online "
            "request, with the deployment if it has one: /v1/chat/completions, "
            "/v1/tasks/image-classification/my-deployment.",
            param="endpoint",
        )
    if JSON not in route.content_types:
        raise RequestInvalid(
            f"endpoint {printable(endpoint)} takes {', '.join(route.content_types)}; the lines of "
            "a batch are JSON.",
            param="endpoint",
        )


def read_lines(path: Path, limit: int, *, number: int = 1, offset: int = 0) -> Iterator[Line]:
    """Yield the nonblank lines from `offset` on, where line `number` begins.

    A line of more than `limit` bytes is cut off, and is the last one.

    Raises:
        FileNotFoundError: the content does not exist.
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
        LineInvalid: it is not a valid request for `endpoint`.
    """
    if len(line.data) > limit:
        raise LineInvalid("line_too_long", f"The line has more than {limit:,} bytes.")
    try:
        fields = from_json(line.data, allow_inf_nan=False, cache_strings="none")
    except ValueError:
        raise LineInvalid("invalid_json_line", "The line is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise LineInvalid("invalid_json_line", "The line is not a JSON object.")
    if unknown := sorted(fields.keys() - _FIELDS):
        name = printable(unknown[0])
        raise LineInvalid("unknown_parameter", f"{name} is not a field of a line.", name)
    custom_id = fields.get("custom_id")
    if (
        not isinstance(custom_id, str)
        or not 1 <= len(custom_id) <= CUSTOM_ID_MAX
        or not custom_id.isprintable()
    ):
        raise LineInvalid(
            "invalid_custom_id",
            f"custom_id must be a text of 1 to {CUSTOM_ID_MAX} printable characters.",
            "custom_id",
        )
    if fields.get("method") != "POST":
        raise LineInvalid("invalid_method", "method must be POST.", "method")
    if fields.get("url") != endpoint:
        raise LineInvalid("invalid_url", f"url must be {endpoint}, the batch's endpoint.", "url")
    body = fields.get("body")
    if not isinstance(body, dict):
        raise LineInvalid("missing_required_parameter", "body must be a JSON object.", "body")
    _, deployment = find_route(endpoint)
    model = deployment or body.get("model")
    if not isinstance(model, str) or not 1 <= len(model) <= 200 or not model.isprintable():
        raise LineInvalid(
            "missing_required_parameter", "body.model must name a model.", "body.model"
        )
    if body.get("stream"):
        raise LineInvalid("invalid_stream", "Answers of a batch are not streamed.", "body.stream")
    return LineRequest(custom_id, model, body)


def validate_input(path: Path, endpoint: str, *, limit: int, lines_max: int) -> Validated:
    """Read the whole input and return a summary with at most `ERRORS_MAX` faults.

    Raises:
        FileNotFoundError: the content does not exist.
    """
    summary = Validated()
    seen: set[int] = set()
    for line in read_lines(path, limit):
        summary.total += 1
        if summary.total > lines_max:
            summary.faults = [
                Fault("too_many_requests", f"A batch has at most {lines_max:,} requests.")
            ]
            return summary
        try:
            _take(summary, seen, read_request(line, endpoint, limit))
        except LineInvalid as fault:
            summary.faults.append(Fault(fault.code, fault.message, line.number, fault.param))
            if len(summary.faults) >= ERRORS_MAX:
                return summary
    if not summary.total:
        summary.faults.append(Fault("empty_file", "The input file holds no request."))
    return summary


def _take(summary: Validated, seen: set[int], request: LineRequest) -> None:
    # 64-bit hashes, so that 50,000 long names need little memory.
    name = hash(request.custom_id)
    if name in seen:
        raise LineInvalid("duplicate_custom_id", "Another line has this custom_id.", "custom_id")
    seen.add(name)
    summary.model = summary.model or request.model
    if request.model != summary.model:
        raise LineInvalid(
            "mismatched_model",
            f"The line names {request.model[:80]}; all lines of a batch name one model.",
            "body.model",
        )
