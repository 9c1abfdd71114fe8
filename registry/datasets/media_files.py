"""Media files of one upload: checked, deduplicated by SHA-256, and described.

Runs in the bounded process of `unpacking.py`; knows no Django.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from PIL import Image, ImageOps

from registry.datasets.similar import difference_hash
from registry.media.checks import Kind, Media, container_type_of
from registry.media.containers import container_frames
from registry.media.images import FORMATS
from registry.media.inspection import inspect_media
from registry.media.limits import MediaLimits

PREVIEW_SIDE = 320
_ORIENTATION = 0x0112
_TURNED = {5, 6, 7, 8}
_MASK_OPACITY = 150


@dataclass(frozen=True, slots=True)
class MediaRecord:
    """A file of a dataset version. `looks` is an image's difference hash, in hexadecimal.

    `levels` has, in hexadecimal, one bit for each pixel value that occurs in a mask; empty for a
    file that cannot be a mask. A `turned` image is upright only after a quarter turn (EXIF).
    """

    media: Media
    looks: str = ""
    levels: str = ""
    turned: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright image; 0 for a recording."""
        size = self.media.width or 0, self.media.height or 0
        return (size[1], size[0]) if self.turned else size

    def line(self) -> str:
        """Return the record as a line that begins with the file's SHA-256."""
        more = {"looks": self.looks, "levels": self.levels, "turned": self.turned}
        fields = {**self.media.to_json(), **{name: value for name, value in more.items() if value}}
        return f"{self.media.sha256}\t{json.dumps(fields, sort_keys=True)}\n"

    @classmethod
    def from_line(cls, line: str) -> MediaRecord:
        """Return the record in a line from `line`."""
        fields: dict[str, Any] = json.loads(line.split("\t", 1)[1])
        more = {name: fields.pop(name) for name in ("looks", "levels", "turned") if name in fields}
        return cls(Media.from_json(fields), **more)


class MediaFolder:
    """A folder of checked files, `files/<sha256>`, with a list of them in `media.tsv` at the end.

    With `masks`, the pixel values of each possible mask are recorded.
    """

    def __init__(
        self, root: Path, limits: MediaLimits, kinds: frozenset[str], *, masks: bool = False
    ) -> None:
        self.root = root
        self.limits = limits
        self._masks = masks
        # Reject files of other kinds at once if the task accepts only one kind of media.
        self._kind: Kind | None = None
        for kind in get_args(Kind):
            if kinds == {kind}:
                self._kind = kind
        self._records: dict[str, MediaRecord] = {}
        (root / "files").mkdir()

    def take(self, file: Path, *, what: str) -> Media:
        """Check `file` and move it into the folder. Raises MediaRejected."""
        media, image = inspect_media(file, self.limits, kind=self._kind, what=what)
        if media.sha256 in self._records:
            if image is not None:
                image.close()
            return media
        record = MediaRecord(media)
        if image is not None:
            with image:
                record = MediaRecord(
                    media,
                    f"{difference_hash(image):016x}",
                    _levels(image) if self._masks else "",
                    image.getexif().get(_ORIENTATION, 1) in _TURNED,
                )
        self._records[media.sha256] = record
        file.rename(self.root / "files" / media.sha256)
        return media

    def close(self) -> None:
        """Write the list of all files, in the order of their SHA-256."""
        with (self.root / "media.tsv").open("w", encoding="utf-8") as listing:
            for _, record in sorted(self._records.items()):
                listing.write(record.line())


def _levels(image: Image.Image) -> str:
    """Return one bit for each pixel value, in hexadecimal; empty for more than one channel.

    A bilevel image has the values 0 and 1.
    """
    if image.format != "PNG" or image.mode not in {"1", "L", "P"}:
        return ""
    # With one channel, a value is a number, not a tuple.
    values = {value for _, value in image.getcolors(256) or () if isinstance(value, int)}
    if image.mode == "1":
        values = {min(value, 1) for value in values}
    return f"{sum(1 << value for value in values):x}"


def write_preview(source: Path, target: Path) -> None:
    """Write a small JPEG of a checked image, or of a video's first frame, without metadata."""
    with _picture(source) as image:
        image.draft("RGB", (PREVIEW_SIDE * 2, PREVIEW_SIDE * 2))
        small: Image.Image = ImageOps.exif_transpose(image)
        if small.mode.startswith(("I", "F")):
            small = small.convert("F").point(lambda value: value / 256).convert("L")
        if small.has_transparency_data:
            paper = Image.new("RGBA", small.size, "white")
            small = Image.alpha_composite(paper, small.convert("RGBA"))
        small = small.convert("RGB")
        small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        small.save(target, "JPEG", quality=80)


def _picture(source: Path) -> Image.Image:
    """Open a checked image, or the first frame of a checked video."""
    with source.open("rb") as file:
        head = file.read(64)
    if container_type_of(head) is None:
        return Image.open(source, formats=list(FORMATS))
    (frame,) = container_frames(source, [0], "The video")
    return frame


def write_mask_preview(source: Path, target: Path) -> None:
    """Write a small PNG of a checked mask, in translucent colors.

    Pixels of value 0, usually the background, and pixels without a category are transparent.
    """
    # Imported here because the catalog loads pydantic, which takes longer than most checks.
    from registry.catalog.regions import HUES

    with Image.open(source, formats=["PNG"]) as image:
        if image.mode not in {"1", "L", "P"}:
            return
        small = image.copy()
    if small.mode == "1":
        small = small.convert("L").point(lambda value: min(value, 1))
    # Nearest neighbor: interpolation would mix the values at edges.
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.NEAREST)
    mask = Image.frombytes("P", small.size, small.tobytes())
    mask.putpalette(b"".join(bytes.fromhex(HUES[(value - 1) % len(HUES)]) for value in range(256)))
    clear = bytes([0, *[_MASK_OPACITY] * 254, 0])
    mask.save(target, "PNG", transparency=clear)
