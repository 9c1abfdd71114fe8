"""Request bodies: strict, bounded schemas, and a clear error for the first fault.

A field of type `None` is an OpenAI parameter that Assay does not support: null is accepted, any
other value is rejected with `unsupported_parameter`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import PydanticCustomError

from governance.errors import InvalidInput
from governance.faults import about, words

MAX_INPUTS = 2048
# A body with more faults is rejected without a list of them.
MAX_FAULTS = 1000
# Maximum objects and lists in a body. Each costs as much as a thousand bytes of text, and all other
# requests wait while it is read.
MAX_CONTAINERS = 50_000
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
# A token of ordinary text is seldom shorter than three bytes.
BYTES_PER_TOKEN = 3
# Tags of a union's variants, left out of paths, like all tags that begin with a tilde.
_VARIANTS = {"one", "many"}

# A short name in a request, such as that of a deployment.
Name = Annotated[str, Field(min_length=1, max_length=200)]
# A text of a request.
Text = Annotated[str, Field(min_length=1, max_length=1_000_000)]
# A caller's name for its user.
User = Annotated[str, Field(max_length=512)]
# Short texts, by name, attached to a request by its caller.
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
    """A raw request body. `parameters` are those of the content type, such as `boundary=…`."""

    content_type: str
    data: bytes
    parameters: str = ""


class Strict(BaseModel):
    """Base of request schemas, which reject unknown fields and wrong types."""

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


def as_list(texts: str | list[str]) -> list[str]:
    """Return one text or many as a list."""
    return [texts] if isinstance(texts, str) else list(texts)


def estimate_tokens(texts: list[str]) -> int:
    """Return an upper estimate of the number of tokens in the texts; at least one."""
    return max(1, sum(len(text.encode("utf-8", "replace")) for text in texts) // BYTES_PER_TOKEN)


def printable(text: str, limit: int = 80) -> str:
    """Return untrusted text, shortened and printable, for a message, log or database column."""
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
    """Return the request in `body`.

    Raises:
        RequestInvalid: the body is not JSON (`invalid_json`), or the first fault in it.
    """
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


def idle(message: str, param: str) -> PydanticCustomError:
    """Return the error for a field without effect; raised by validators of a whole request."""
    return PydanticCustomError("idle_field", "{sentence}", {"sentence": message, "param": param})


def invalid(error: ValidationError) -> RequestInvalid:
    """Return the error for the first fault."""
    if (faults := error.error_count()) > MAX_FAULTS:
        # Listing them would delay all other requests of this process.
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
        # A rule about several fields of the inputs.
        return RequestInvalid(f"The request is invalid: {words(first)}.")
    if not path:
        return RequestInvalid("The request body must be a JSON object.", code="invalid_json")
    code = "unsupported_value" if kind == "literal_error" else "invalid_value"
    note = f" (got {printable(repr(value), 40)})" if isinstance(value, (int, float, str)) else ""
    return RequestInvalid(f"{about(path, words(first))}{note}.", param=path, code=code)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in _VARIANTS and not step.startswith("~"):
            path += f".{step}" if path else step
    return printable(path)
