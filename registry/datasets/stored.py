"""Files of a dataset version in the artifact store: its rows and their media."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from pathlib import Path

from governance.errors import Unavailable
from registry.datasets.media_files import MediaRecord
from registry.datasets.models import DatasetVersion
from registry.datasets.parsing import ParsedDataset, read_rows
from registry.datasets.unpacking import make_previews
from registry.storage import store

# Number of rows in the preview of a version.
PREVIEW_ROWS = 20


# A small picture, and its key in the store.
Preview = tuple[Path, str]


def prepare(parsed: ParsedDataset, canonical: Path, *, owner: str) -> list[Preview]:
    """Create small pictures of the images, videos and masks in the first rows, for `owner`; return
    them with their keys in the store.

    Raises:
        InvalidInput, TooLarge: a picture cannot be drawn.
        QuotaExceeded, Unavailable: too many uploads are being read.
    """
    if parsed.files is None:
        return []
    target = parsed.files.with_name("previews")
    previews: dict[Path, str] = {}
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
                previews[target / f"{value}.jpg"] = key
            key = store.preview_key(value, mask=True)
            if record.levels and store.backend().find(key) is None:
                masks.append(file)
                previews[target / f"{value}.mask.png"] = key
    if images or masks:
        target.mkdir()
        make_previews(images, masks, target, owner=owner)
    return list(previews.items())


def adopt(parsed: ParsedDataset, canonical: Path, previews: list[Preview]) -> str:
    """Move the rows and all of their files into the store, and return the SHA-256 of the media
    list, empty without media. The rows go last, so that rows in the store always have their
    files."""
    list_sha256 = ""
    if parsed.files is not None:
        listing = parsed.files.with_name("named.tsv")
        with listing.open("w", encoding="utf-8") as output:
            for _, record in sorted(parsed.media.items()):
                output.write(record.line())
        store.files_put({sha256: parsed.files / sha256 for sha256 in parsed.media})
        for preview, key in previews:
            store.preview_put(preview, key)
        list_sha256 = _put_list(listing, parsed)
    store.file_put(canonical, parsed.digest)
    return list_sha256


def _put_list(listing: Path, parsed: ParsedDataset) -> str:
    """Store the media list, unless an intact one exists; return the SHA-256 of the stored list.

    An existing list for the same rows may have more details, such as the pixel values of masks.
    """
    store.media_list_put(listing, parsed.digest)
    stored = store.media_list_read(parsed.digest, fresh=True)
    if stored.names != set(parsed.media):
        store.media_list_remove(parsed.digest)
        store.media_list_put(listing, parsed.digest)
        stored = store.media_list_read(parsed.digest, fresh=True)
    return stored.sha256


def media_records(
    version: DatasetVersion, digests: Collection[str] | None = None
) -> dict[str, MediaRecord]:
    """Return the media of a version by SHA-256, all or only `digests`; empty for rows without
    media.

    Raises:
        Unavailable: the media list is missing from the store.
    """
    if not version.profile.get("media"):
        return {}
    try:
        with store.media_list_open(version.digest) as listing:
            return {
                line[:64]: MediaRecord.from_line(line)
                for line in listing
                if digests is None or line[:64] in digests
            }
    except FileNotFoundError as error:
        raise Unavailable(
            f"The media of {version} are not in the artifact store.",
            hint=store.RESTORE,
        ) from error
