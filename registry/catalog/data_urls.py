"""Images inside JSON bodies, as `data:` URLs or base64; never fetched from another server."""

from __future__ import annotations

import base64
import binascii

from registry.catalog.inputs import MediaInput
from registry.catalog.requests import RequestInvalid, printable

_START = "data:image/"


def read_image_url(url: str, param: str) -> MediaInput:
    """Return the image that a `data:` URL holds; `param` names the field in errors.

    Raises:
        RequestInvalid: it is not an image in a `data:` URL, or is not base64.
    """
    if url[:5].lower() != "data:":
        raise RequestInvalid(
            f"{param} is {printable(url, 60)!r}. Images are never fetched from other servers; send "
            "the image itself as data:image/png;base64,….",
            param=param,
            code="unsupported_value",
        )
    head, comma, text = url.partition(",")
    if not head.lower().startswith(_START) or not head.lower().endswith(";base64") or not comma:
        raise RequestInvalid(
            f"{param} must start with data:image/…;base64, and go on with the image in base64.",
            param=param,
        )
    return MediaInput("image", decoded(text, param), param)


def read_image_text(text: str, param: str) -> MediaInput:
    """Return the image in a `data:` URL or in plain base64. Raises RequestInvalid."""
    if ":" in text[:16]:
        return read_image_url(text, param)
    return MediaInput("image", decoded(text, param), param)


def decoded(text: str, param: str) -> bytes:
    """Return the bytes of base64 text. Raises RequestInvalid."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestInvalid(f"{param} is not valid base64.", param=param) from None
    if not data:
        raise RequestInvalid(f"{param} holds an empty file.", param=param)
    return data
