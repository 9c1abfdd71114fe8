"""Decode one file in this process to measure it.

Only for bounded processes that read untrusted files (`registry/sandbox`), because decoders are
native code with a history of vulnerabilities. The structure of a file is checked first, then its
header; then the whole file is decoded, to detect truncation. Only the decoder for the format of the
first bytes is used. Loads neither Django nor torch.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from registry.media.audio import read_audio
from registry.media.checks import CONTAINERS, Kind, Media, check_head
from registry.media.containers import read_container
from registry.media.images import read_image
from registry.media.limits import MediaLimits
from registry.media.structure import Extent, check_structure
from registry.media.videos import read_video

# Called before decoding with the extent in a file's header; may set resource limits.
Allow = Callable[[Extent], None]


def inspect_media(
    path: Path, limits: MediaLimits, *, kind: Kind | None = None, what: str = "The file"
) -> tuple[Media, Image.Image | None]:
    """Check one file by its content; also return the decoded image, which the caller closes.

    `kind` is the expected kind; `what` names the file in messages. An animated image counts as a
    video if a video is expected, and is rejected otherwise.

    Raises:
        MediaRejected: the file is of another kind, out of bounds, animated, empty or truncated.
    """
    media, image = measure_media(path, limits, kind=kind, what=what)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return replace(media, sha256=digest), image


def measure_media(
    path: Path,
    limits: MediaLimits,
    *,
    kind: Kind | None,
    what: str,
    allow: Allow = lambda extent: None,
) -> tuple[Media, Image.Image | None]:
    """Check as `inspect_media` does, without a SHA-256."""
    # Pass a file object: some decoders infer the format from a name.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        content_type, kind = check_head(file.read(64), size, limits, kind=kind, what=what)
        file.seek(0)
        media = Media("", kind, content_type, size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if kind == "audio":
                audio = read_audio(
                    file,
                    data,
                    content_type,
                    limits,
                    what,
                    lambda seconds: allow(Extent(seconds=seconds)),
                )
                return (
                    replace(
                        media,
                        seconds=audio.seconds,
                        sample_rate=audio.sample_rate,
                        channels=audio.channels,
                    ),
                    None,
                )
            if content_type not in CONTAINERS:
                allow(check_structure(data, content_type, limits, what))
        if kind == "image":
            image = read_image(file, content_type, limits, what)
            return replace(media, width=image.width, height=image.height), image
        if content_type in CONTAINERS:
            video = read_container(path, content_type, limits, what)
        else:
            video = read_video(file, content_type, limits, what)
        return (
            replace(
                media,
                width=video.width,
                height=video.height,
                seconds=video.seconds,
                frames=video.frames,
            ),
            None,
        )
