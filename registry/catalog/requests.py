"""Reading request bodies: strict, bounded schemas, and one clear error for the first fault.

A field typed `None` is one of OpenAI's that Assay does not honor: null is accepted, a value is
refused with `unsupported_parameter`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import PydanticCustomError

from governance.errors import InvalidInput

MAX_INPUTS = 2048
# A body with more faults than this is refused without a list of them.
MAX_FAULTS = 1000
# Objects and lists of a body. Each costs a thousand times what a byte of text does, and is read
# while every other request waits.
MAX_CONTAINERS = 50_000
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
# A token of ordinary text is seldom shorter than three bytes.
BYTES_PER_TOKEN = 3
# Tags of a union's variants, which are no part of a path; so are those that begin with a tilde.
_VARIANTS = {"one", "many"}

# A short name in a request, such as that of a deployment.
Name = Annotated[str, Field(min_length=1, max_length=200)]
# A text of a request.
Text = Annotated[str, Field(min_length=1, max_length=1_000_000)]
# A name that a caller gives its user.
User = Annotated[str, Field(max_length=512)]
# Short texts by name that a caller attaches to a request.
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


class RequestInvalid(InvalidInput):
    """One parameter of the request is wrong (400); `param` is its path, as `messages[0].role`."""

    code = "invalid_value"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.param = param


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body as it came. `parameters` are those of the content type, such as
    `boundary=…`."""

    content_type: str
    data: bytes
    parameters: str = ""


class Strict(BaseModel):
    """Base of request schemas: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def one_or_many(value: Any) -> str:
    """Tag of a union of a value and a list of values."""
    return "many" if isinstance(value, list) else "one"


# One text, or a list of texts.
Texts = Annotated[
    Annotated[Text, Tag("one")]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS), Tag("many")],
    Discriminator(one_or_many),
]


def as_list(given: str | list[str]) -> list[str]:
    """Return one text or many as a list."""
    return [given] if isinstance(given, str) else list(given)


def estimate_tokens(texts: list[str]) -> int:
    """Return an upper estimate of the number of tokens in the texts; at least one."""
    return max(1, sum(len(text.encode("utf-8", "replace")) for text in texts) // BYTES_PER_TOKEN)


def printable(text: str, limit: int = 80) -> str:
    """Text from outside, fit for a sentence, a log line and a database column."""
    if len(text) <= limit and text.isprintable():
        return text
    clean = "".join(c if c.isprintable() else "�" for c in text[: limit + 1])
    return clean if len(clean) <= limit else f"{clean[:limit]}…"


Request = TypeVar("Request", bound=Strict)


def check_containers(body: bytes) -> None:
    """Raise RequestInvalid if a body in JSON has more than `MAX_CONTAINERS` objects and lists."""
    if _containers(body) > MAX_CONTAINERS and _containers(_STRING.sub(b"", body)) > MAX_CONTAINERS:
        raise RequestInvalid(
            f"The request body has more than {MAX_CONTAINERS:,} objects and lists.",
            code="too_many_values",
        )


def _containers(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def parse(schema: type[Request], body: bytes) -> Request:
    """Return the request that `body` holds.

    Raises:
        RequestInvalid: it is not JSON (`invalid_json`), or the first thing wrong with it.
    """
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


def idle(message: str, param: str) -> PydanticCustomError:
    """Return the fault of a field that would have no effect with the others; a validator of the
    whole request raises it."""
    return PydanticCustomError("idle_field", "{sentence}", {"sentence": message, "param": param})


def invalid(error: ValidationError) -> RequestInvalid:
    """Return the refusal that names the first fault."""
    if (faults := error.error_count()) > MAX_FAULTS:
        # Listing them would hold up every other request of this process.
        return RequestInvalid(f"The request body has {faults:,} faults; it was not read further.")
    first = error.errors(include_url=False, include_context=True)[0]
    kind, value = first["type"], first["input"]
    path = _path(first["loc"])
    if kind == "json_invalid":
        detail = first["ctx"].get("error", "it ends too early")
        return RequestInvalid(f"The request body is not valid JSON: {detail}.", code="invalid_json")
    if kind == "extra_forbidden":
        return RequestInvalid(
            f"Unrecognized request argument supplied: {path}.",
            param=path,
            code="unknown_parameter",
        )
    if kind == "none_required":
        return RequestInvalid(
            f"{path} is not supported here; leave it out.",
            param=path,
            code="unsupported_parameter",
        )
    if kind == "idle_field":
        return RequestInvalid(first["ctx"]["sentence"], param=first["ctx"]["param"])
    if kind == "missing":
        return RequestInvalid(
            f"You must provide the parameter {path}.", param=path, code="missing_parameter"
        )
    if not path and kind == "value_error":
        # A rule about several parts of the inputs.
        return RequestInvalid(f"The request is invalid: {first['ctx']['error']}.")
    if not path:
        return RequestInvalid("The request body must be a JSON object.", code="invalid_json")
    code = "unsupported_value" if kind == "literal_error" else "invalid_value"
    shown = f" (got {printable(repr(value), 40)})" if isinstance(value, (int, float, str)) else ""
    return RequestInvalid(f"{path} is invalid: {first['msg']}{shown}.", param=path, code=code)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in _VARIANTS and not step.startswith("~"):
            path += f".{step}" if path else step
    return printable(path)
