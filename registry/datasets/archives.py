"""Unpack a zip archive of media: check every entry against bounds, and every file.

Runs in the bounded process of `unpacking.py`; knows no Django.
"""

from __future__ import annotations

import json
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from governance.errors import InvalidInput, TooLarge
from governance.zips import (
    DEFLATED,
    STORED,
    Entry,
    ZipRefused,
    ZipTooMany,
    zip_entries,
    zip_unpacked,
)
from registry.datasets.media_files import MediaFolder

MAX_ENTRIES = 100_000
MAX_NAME_BYTES = 500
MAX_DEPTH = 6
MAX_METADATA_BYTES = 256 * 1024**2
METADATA = ("metadata.jsonl", "metadata.csv")
# Text compresses ten to twenty times, media hardly at all; a higher ratio means a zip bomb.
MAX_RATIO = 200
RATIO_FROM_BYTES = 1024**2
# Entries that desktop systems add to archives automatically.
_IGNORED = re.compile(r"(^|/)(__MACOSX/.*|\.DS_Store|Thumbs\.db|desktop\.ini|\.gitattributes)$")
_ARCHIVE_HEADS = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"7z\xbc\xaf",
    b"Rar!",
    b"BZh",
    b"\xfd7zXZ",
)
_HINT = "Lay out the archive as docs/how-to/datasets.md shows, and send it again."


def unpack_archive(source: Path, folder: MediaFolder, max_bytes: int) -> None:
    """Check every entry of `source` and write its contents below `folder`.

    A metadata file keeps its name; `entries.jsonl` maps the entry of each media file to its
    SHA-256. At most `max_bytes` are unpacked.

    Raises:
        InvalidInput, TooLarge: an entry is not acceptable; the message names it.
    """
    try:
        with source.open("rb") as file:
            entries = list(_checked(zip_entries(file, most=MAX_ENTRIES)))
            base = _common_folder([entry.name for entry in entries])
            remaining = max_bytes
            with (folder.root / "entries.jsonl").open("w", encoding="utf-8") as listing:
                for entry in entries:
                    remaining -= _unpack(file, entry, base, folder, listing, remaining)
    except ZipTooMany as error:
        raise TooLarge(
            f"The archive has {error.entries:,} entries; at most {MAX_ENTRIES:,} are accepted.",
            hint="Send the files as Parquet, or split them into several datasets.",
        ) from error
    except ZipRefused as error:
        raise InvalidInput(
            f"The archive cannot be read as a zip file: {error}.",
            hint="Create the archive again, or with another program; it may have been cut off in "
            "transit.",
        ) from error


def _checked(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the relevant entries, whose names are safe, in the order of their names."""
    names: dict[str, str] = {}
    for entry in entries:
        quoted = repr(entry.name[:120])
        if reason := _fault_of(entry):
            raise InvalidInput(f"Archive entry {quoted} {reason}.", hint=_HINT)
        # Compare like a file system that ignores case and Unicode composition.
        plain = entry.name.rstrip("/")
        other = names.setdefault(unicodedata.normalize("NFC", plain).casefold(), plain)
        if other is not plain:
            clash = "occurs twice" if other == plain else f"and {other[:120]!r} differ only in case"
            raise InvalidInput(f"Archive entry {quoted} {clash}.", hint=_HINT)
    files = [each for each in entries if not each.is_folder and not _IGNORED.search(each.name)]
    if not files:
        raise InvalidInput("The archive holds no file.", hint=_HINT)
    _check_folders(entries)
    yield from sorted(files, key=lambda each: each.name)


def _check_folders(entries: Sequence[Entry]) -> None:
    """Raise InvalidInput if a file and a folder have the same name."""
    files = {each.name for each in entries if not each.is_folder}
    for each in entries:
        for parent in PurePosixPath(each.name).parents:
            if str(parent) in files:
                raise InvalidInput(
                    f"Archive entry {str(parent)[:120]!r} is a file and a folder.",
                    hint=_HINT,
                )


def _fault_of(entry: Entry) -> str:
    name, kind = entry.name, stat.S_IFMT(entry.mode)
    parts = name.rstrip("/").split("/")
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    if re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", name):
        return "has a control character or a backslash in its name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in parts or "." in parts or "" in parts:
        return "has a path that leads elsewhere ('..', '.' or an empty part)"
    if len(parts) > MAX_DEPTH:
        return f"is more than {MAX_DEPTH} folders deep"
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "is neither a file nor a folder"
    if entry.encrypted:
        return "is encrypted"
    if entry.method not in (STORED, DEFLATED):
        return "is compressed by a method other than deflate"
    if entry.size > RATIO_FROM_BYTES and entry.size > MAX_RATIO * max(entry.packed, 1):
        return f"would unpack to more than {MAX_RATIO} times its size"
    return ""


def _common_folder(names: list[str]) -> str:
    """Return the folder of the metadata file, or of all entries, such as `train/`; else empty."""
    metadata = [name for name in names if PurePosixPath(name).name in METADATA]
    if len(metadata) > 1:
        raise InvalidInput(
            f"The archive has two metadata files, {metadata[0][:120]!r} and {metadata[1][:120]!r}.",
            hint="Send one part of the data at a time, such as train and test as two datasets.",
        )
    if metadata:
        return metadata[0].removesuffix(PurePosixPath(metadata[0]).name)
    first = names[0].split("/")
    # <label>/<file> stays unchanged; <folder>/<label>/<file> loses the common folder.
    if len(first) > 2 and all(name.startswith(f"{first[0]}/") for name in names):
        return f"{first[0]}/"
    return ""


def _unpack(
    file: BinaryIO, entry: Entry, base: str, folder: MediaFolder, listing: IO[str], remaining: int
) -> int:
    """Write one entry and return its size in bytes."""
    name = entry.name
    if not name.startswith(base):
        raise InvalidInput(
            f"Archive entry {name[:120]!r} lies outside {base!r}, the folder of the metadata file.",
            hint=_HINT,
        )
    relative = name.removeprefix(base)
    metadata = relative in METADATA
    limit = min(remaining, MAX_METADATA_BYTES if metadata else folder.limits.bytes)
    target = folder.root / (relative if metadata else "entry.part")
    size = _copy(file, entry, target, limit)
    if not metadata:
        with target.open("rb") as unpacked:
            if unpacked.read(8).startswith(_ARCHIVE_HEADS):
                raise InvalidInput(
                    f"Archive entry {name[:120]!r} is an archive itself.", hint=_HINT
                )
        media = folder.take(target, what=f"Archive entry {name[:120]!r}")
        print(json.dumps({"name": relative, "sha256": media.sha256}), file=listing)
    return size


def _copy(file: BinaryIO, entry: Entry, target: Path, limit: int) -> int:
    size = 0
    # Count the unpacked bytes, because the sizes in the directory are only the sender's claim.
    with target.open("wb") as output:
        for chunk in zip_unpacked(file, entry):
            size += len(chunk)
            if size > limit:
                raise TooLarge(
                    f"Archive entry {entry.name[:120]!r} unpacks to more than the {limit:,} "
                    "bytes that are left for it.",
                    hint="Send smaller files, or fewer of them at a time.",
                )
            if size > RATIO_FROM_BYTES and size > MAX_RATIO * max(entry.packed, 1):
                raise InvalidInput(
                    f"Archive entry {entry.name[:120]!r} unpacks to more than {MAX_RATIO} "
                    "times its size.",
                    hint=_HINT,
                )
            output.write(chunk)
    return size
