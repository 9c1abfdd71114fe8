"""Files of a dataset version in the artifact store: its rows, and the media that they name."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from pathlib import Path

from governance.errors import Unavailable
from registry import store
from registry.datasets.media_files import MediaRecord
from registry.datasets.models import DatasetVersion
from registry.datasets.parsing import ParsedDataset, read_rows
from registry.datasets.unpacking import make_previews

# Rows that the preview of a version shows.
PREVIEW_ROWS = 20


# A small picture, and its key in the store.
Preview = tuple[Path, str]


def prepare(parsed: ParsedDataset, canonical: Path) -> list[Preview]:
    """Make small pictures of the images, videos and masks in the first rows; return them with
    their keys in the store."""
    if parsed.files is None:
        return []
    shown: dict[Path, str] = {}
    images, masks = [], []
    for row in islice(read_rows(canonical.open("rb")), PREVIEW_ROWS):
        for value in row.values():
            record = parsed.media.get(value) if isinstance(value, str) else None
            if record is None or record.media.kind not in ("image", "video"):
                continue
            file = parsed.files / value
            if file in images or file in masks:
                continue
            key = store.preview_key(value)
            if store.backend().find(key) is None:
                images.append(file)
                shown[Path(f"{file}.jpg")] = key
            key = store.preview_key(value, mask=True)
            if record.levels and store.backend().find(key) is None:
                masks.append(file)
                shown[Path(f"{file}.mask.png")] = key
    if images or masks:
        make_previews(images, masks)
    return list(shown.items())


def adopt(parsed: ParsedDataset, canonical: Path, previews: list[Preview]) -> None:
    """Move the rows and every file that they name into the store. The rows go last, so that rows
    in the store always have their files."""
    if parsed.files is not None:
        listing = parsed.files.with_name("named.tsv")
        with listing.open("w", encoding="utf-8") as output:
            for _, record in sorted(parsed.media.items()):
                output.write(record.line())
        store.files_put({sha256: parsed.files / sha256 for sha256 in parsed.media})
        for preview, key in previews:
            store.preview_put(preview, key)
        store.media_list_put(listing, parsed.digest)
    store.file_put(canonical, parsed.digest)


def media_records(
    version: DatasetVersion, wanted: Collection[str] | None = None
) -> dict[str, MediaRecord]:
    """Return the files of a version by SHA-256, all or those `wanted`; none where its rows name
    no files.

    Raises:
        Unavailable: the store lacks the list of them.
    """
    if not version.profile.get("media"):
        return {}
    try:
        with store.media_list_open(version.digest) as listing:
            return {
                line[:64]: MediaRecord.from_line(line)
                for line in listing
                if wanted is None or line[:64] in wanted
            }
    except FileNotFoundError as error:
        raise Unavailable(
            f"The media of {version} are not in the artifact store.",
            hint=store.RESTORE,
        ) from error
