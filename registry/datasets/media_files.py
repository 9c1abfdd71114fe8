"""Media files of one upload: each is checked, kept once under its SHA-256, and described.

Runs in the bounded process of `unpacking.py`; knows no Django.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from PIL import Image, ImageOps

from registry.datasets.similar import difference_hash
from registry.media.checks import Kind, Media, inspect_media
from registry.media.limits import MediaLimits

PREVIEW_SIDE = 320


@dataclass(frozen=True, slots=True)
class MediaRecord:
    """A file of a dataset version. `looks` is an image's difference hash, in hexadecimal."""

    media: Media
    looks: str = ""

    def line(self) -> str:
        """Return the record as a line that begins with the file's SHA-256."""
        found = {**self.media.to_json(), **({"looks": self.looks} if self.looks else {})}
        return f"{self.media.sha256}\t{json.dumps(found, sort_keys=True)}\n"

    @classmethod
    def from_line(cls, line: str) -> MediaRecord:
        """Read what `line` wrote."""
        found: dict[str, Any] = json.loads(line.split("\t", 1)[1])
        looks = found.pop("looks", "")
        return cls(Media.from_json(found), looks)


class MediaFolder:
    """A folder that takes files: `files/<sha256>` and, once all are there, `media.tsv`."""

    def __init__(self, root: Path, limits: MediaLimits, kinds: frozenset[str]) -> None:
        self.root = root
        self.limits = limits
        # A task that takes one kind of media rejects a file of another kind as it is read.
        self._kind: Kind | None = None
        for kind in get_args(Kind):
            if kinds == {kind}:
                self._kind = kind
        self._records: dict[str, MediaRecord] = {}
        (root / "files").mkdir()

    def take(self, file: Path, *, what: str) -> Media:
        """Check `file` and move it to its place. Raises MediaRejected."""
        media, image = inspect_media(file, self.limits, kind=self._kind, what=what)
        looks = ""
        if image is not None:
            with image:
                looks = "" if media.sha256 in self._records else f"{difference_hash(image):016x}"
        if media.sha256 not in self._records:
            self._records[media.sha256] = MediaRecord(media, looks)
            file.rename(self.root / "files" / media.sha256)
        return media

    def close(self) -> None:
        """Describe all files, in the order of their SHA-256."""
        with (self.root / "media.tsv").open("w", encoding="utf-8") as listing:
            for _, record in sorted(self._records.items()):
                listing.write(record.line())


def write_preview(source: Path, target: Path) -> None:
    """Write a small JPEG of a checked image, or of a video's first frame: pixels alone, without
    what cameras add to a file."""
    with Image.open(source) as image:
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
