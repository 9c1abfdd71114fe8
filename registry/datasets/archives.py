"""Unpack a zip archive of media: every entry is held against bounds, and every file checked.

Runs in the bounded process of `unpacking.py`; knows no Django.
"""

from __future__ import annotations

import json
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from governance.errors import InvalidInput, TooLarge
from registry.datasets.media_files import MediaFolder

MAX_ENTRIES = 100_000
MAX_NAME_BYTES = 500
MAX_DEPTH = 6
MAX_METADATA_BYTES = 256 * 1024**2
METADATA = ("metadata.jsonl", "metadata.csv")
# Text compresses ten to twenty times, media hardly at all. Beyond this an entry is a bomb.
MAX_RATIO = 200
RATIO_FROM_BYTES = 1024**2
CHUNK = 1024 * 1024
# Entries that desktops add to archives by themselves.
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
_END = struct.Struct("<4s4H2LH")
_HINT = "Lay out the archive as docs/how-to/datasets.md shows, and send it again."


def unpack_archive(source: Path, folder: MediaFolder, max_bytes: int) -> None:
    """Check every entry of `source` and write what it holds below `folder`.

    Its metadata file, if any, is written under its own name; `entries.jsonl` names the SHA-256 of
    each media file by its entry. At most `max_bytes` are unpacked.

    Raises:
        InvalidInput, TooLarge: the sentence names the entry.
    """
    _check_count(source)
    try:
        with zipfile.ZipFile(source) as archive:
            entries = list(_checked(archive.infolist()))
            base = _common_folder([name for name, _ in entries])
            left = max_bytes
            with (folder.root / "entries.jsonl").open("w", encoding="utf-8") as listing:
                for name, entry in entries:
                    left -= _unpack(archive, entry, name, base, folder, listing, left)
    except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, UnicodeError) as error:
        raise InvalidInput(
            f"The archive cannot be read as a zip file: {str(error)[:200] or 'it is damaged'}.",
            hint="Make the archive again; it may have been cut off on its way.",
        ) from error


def _check_count(source: Path) -> None:
    """Read how many entries the archive states, before its directory is read into memory."""
    size = source.stat().st_size
    with source.open("rb") as file:
        file.seek(max(0, size - _END.size - 65_535))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise InvalidInput("The file is not a zip archive.", hint="Send a zip archive.")
    stated = _END.unpack_from(tail, at)[4]
    # 0xFFFF stands for more; the record that counts further is 20 + 56 bytes before.
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    if stated == 0xFFFF and wide >= 0 and wide + 40 <= len(tail):
        stated = struct.unpack_from("<Q", tail, wide + 32)[0]
    _bound_count(stated)


def _bound_count(count: int) -> None:
    if count > MAX_ENTRIES:
        raise TooLarge(
            f"The archive has {count:,} entries; at most {MAX_ENTRIES:,} are accepted.",
            hint="Send the files as Parquet, or split them into several datasets.",
        )


def _checked(infos: list[zipfile.ZipInfo]) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Yield the files that count, with names that are safe, in the order of their names."""
    _bound_count(len(infos))
    seen: set[str] = set()
    for entry in infos:
        # `filename` ends at a NUL, and may differ from what other programs show.
        name = entry.orig_filename
        shown = repr(name[:120])
        if reason := _why_not(name, entry):
            raise InvalidInput(f"The archive's entry {shown} {reason}.", hint=_HINT)
        if name.rstrip("/") in seen:
            raise InvalidInput(f"The archive's entry {shown} is there twice.", hint=_HINT)
        seen.add(name.rstrip("/"))
    files = [entry for entry in infos if not entry.is_dir() and not _IGNORED.search(entry.filename)]
    if not files:
        raise InvalidInput("The archive holds no file.", hint=_HINT)
    yield from sorted((entry.filename, entry) for entry in files)


def _why_not(name: str, entry: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(entry.external_attr >> 16)
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
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return "is compressed by a method other than deflate"
    if entry.file_size > RATIO_FROM_BYTES and entry.file_size > MAX_RATIO * max(
        entry.compress_size, 1
    ):
        return f"would unpack to more than {MAX_RATIO} times its size"
    return ""


def _common_folder(names: list[str]) -> str:
    """Return the folder, such as `train/`, that the metadata file lies in, or that holds all."""
    given = [name for name in names if PurePosixPath(name).name in METADATA]
    if len(given) > 1:
        raise InvalidInput(
            f"The archive has two metadata files, {given[0][:120]!r} and {given[1][:120]!r}.",
            hint="Send one part of the data at a time, such as train and test as two datasets.",
        )
    if given:
        return given[0].removesuffix(PurePosixPath(given[0]).name)
    first = names[0].split("/")
    # <label>/<file> stays unchanged; <folder>/<label>/<file> loses the folder that all share.
    if len(first) > 2 and all(name.startswith(f"{first[0]}/") for name in names):
        return f"{first[0]}/"
    return ""


def _unpack(
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    name: str,
    base: str,
    folder: MediaFolder,
    listing: IO[str],
    left: int,
) -> int:
    """Write one entry; return how many bytes it has."""
    if not name.startswith(base):
        raise InvalidInput(
            f"The archive's entry {name[:120]!r} lies outside {base!r}, "
            "the folder of the metadata file.",
            hint=_HINT,
        )
    relative = name.removeprefix(base)
    metadata = relative in METADATA
    limit = min(left, MAX_METADATA_BYTES if metadata else folder.limits.bytes)
    target = folder.root / (relative if metadata else "entry.part")
    size = _copy(archive, entry, name, target, limit)
    if not metadata:
        with target.open("rb") as file:
            if file.read(8).startswith(_ARCHIVE_HEADS):
                raise InvalidInput(
                    f"The archive's entry {name[:120]!r} is an archive itself.", hint=_HINT
                )
        media = folder.take(target, what=f"The archive's entry {name[:120]!r}")
        print(json.dumps({"name": relative, "sha256": media.sha256}), file=listing)
    return size


def _copy(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, target: Path, limit: int
) -> int:
    size = 0
    # The unpacked bytes count: the sizes in the directory are only the sender's claim.
    with archive.open(entry) as source, target.open("wb") as output:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            if size > limit:
                raise TooLarge(
                    f"The archive's entry {name[:120]!r} unpacks to more than the {limit:,} bytes "
                    "that are left for it.",
                    hint="Send smaller files, or fewer of them at a time.",
                )
            if size > RATIO_FROM_BYTES and size > MAX_RATIO * max(entry.compress_size, 1):
                raise InvalidInput(
                    f"The archive's entry {name[:120]!r} unpacks to more than {MAX_RATIO} times "
                    "its size.",
                    hint=_HINT,
                )
            output.write(chunk)
    return size
