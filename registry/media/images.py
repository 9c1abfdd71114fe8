"""Bounded reading of an image: first its header, then all of it."""

from __future__ import annotations

from typing import IO

from PIL import Image

from registry.media.errors import MediaRejected
from registry.media.limits import MediaLimits

_FORMATS_OF = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
}
FORMATS = frozenset(_FORMATS_OF.values())
_RESAVE = "Save the image again, as PNG or JPEG."


def read_image(file: IO[bytes], content_type: str, limits: MediaLimits, what: str) -> Image.Image:
    """Return the decoded image. Raises MediaRejected."""
    name = _FORMATS_OF[content_type]
    try:
        # Only this decoder; Pillow would try all of its decoders, many of them rare and old.
        image = Image.open(file, formats=[name])
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(what, limits) from error
    # Decoders raise nearly any exception for a malicious file, even struct.error.
    except Exception as error:
        raise MediaRejected(f"{what} is not a readable {name} image.", hint=_RESAVE) from error
    width, height = image.size
    if width < 1 or height < 1:
        raise MediaRejected(f"{what} is an image without pixels.", hint="Send an image.")
    if width * height > limits.pixels:
        raise _too_many_pixels(what, limits, f"{width:,} × {height:,} pixels")
    if max(width, height) > limits.side:
        raise MediaRejected(
            f"{what} is {width:,} × {height:,} pixels; a side has at most {limits.side:,}.",
            hint="Scale the image down. ASSAY_MEDIA_MAX_SIDE sets the limit.",
        )
    try:
        # Phones write JPEG with a second picture (a depth map); only the first one counts.
        animated = name != "JPEG" and getattr(image, "is_animated", False)
        if not animated:
            image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise MediaRejected(
            f"{what} is a truncated or damaged {name} image.", hint=_RESAVE
        ) from error
    if animated:
        raise MediaRejected(
            f"{what} is an animated {name} image; a single picture is expected.",
            hint="Save one of its frames as a separate image.",
        )
    return image


def _too_many_pixels(what: str, limits: MediaLimits, size: str = "") -> MediaRejected:
    return MediaRejected(
        f"{what} has {size or 'far too many pixels'}; at most {limits.pixels:,} pixels "
        "are accepted, and it was not decoded.",
        hint="Scale the image down. ASSAY_MEDIA_MAX_PIXELS sets the limit.",
    )
