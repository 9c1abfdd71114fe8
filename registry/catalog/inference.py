"""Hugging Face's inference format for one file: its bytes, or JSON that contains them.

An unmodified `huggingface_hub.InferenceClient` sends a file as the whole body. If it does not know
the file's type, it declares JSON, so the body's first byte decides between the two.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, TypeVar

from pydantic import Field

from registry.catalog.inputs import MediaInput, MediaKind
from registry.catalog.requests import Body, RequestInvalid, Strict, parse


class MediaRequest(Strict):
    """JSON with a file in base64. A task's request adds its `parameters`."""

    inputs: Annotated[str, Field(min_length=1)]


Request = TypeVar("Request", bound=MediaRequest)


def content_types(kind: MediaKind) -> tuple[str, ...]:
    """Return the content types of a body of `kind`."""
    # An animated image is a video, too.
    animated = ("image/*",) if kind == "video" else ()
    return (f"{kind}/*", *animated, "application/octet-stream", "application/json")


def read_file(
    body: Body, kind: MediaKind, schema: type[Request]
) -> tuple[MediaInput, Request | None]:
    """Return the file in a body, and the request in JSON that contains it, if any.

    Raises:
        RequestInvalid: the body is empty, or is JSON that does not fit `schema`.
    """
    if not body.data.strip():
        raise RequestInvalid(
            f"The request body is empty; send the {kind} file.", code="missing_parameter"
        )
    is_json = body.content_type == "application/json" and body.data.lstrip()[:1] in b'{["'
    if not is_json:
        return MediaInput(kind, body.data, "inputs"), None
    request = parse(schema, body.data)
    return MediaInput(kind, _decoded(request.inputs), "inputs"), request


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestInvalid("inputs must be a file in base64.", param="inputs") from None
    if not data:
        raise RequestInvalid("inputs holds an empty file.", param="inputs")
    return data
