"""Read named files out of a package's archive, within limits; nothing else is unpacked.

Members are read by their exact name and written by the caller under names of its own, so no path
of an archive reaches the disk. An archive that holds an absolute path or `..` is refused anyway: it
was made to escape from a folder, and nothing in it deserves trust.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import IO

MAX_MEMBER_BYTES = 256 * 1024 * 1024
# Of a tar archive as a whole: a compressed one says nothing of its size before it is read.
MAX_TAR_BYTES = 1024 * 1024 * 1024
MAX_TAR_MEMBERS = 10_000


class BadArchive(RuntimeError):
    """The archive lacks a member, exceeds a limit, or holds a path that escapes its folder."""


def read_members(stream: IO[bytes], name: str, wanted: Iterable[str]) -> dict[str, bytes]:
    """Return the content of the `wanted` members of a zip (or wheel) or gzipped tar archive.

    Args:
        stream: The archive's bytes, at their start.
        name: The archive's file name; its suffix decides how it is read.
        wanted: Exact paths in the archive.

    Raises:
        BadArchive: A member is missing or too large, or a path leaves the archive's folder.
    """
    names = set(wanted)
    try:
        found = _of_tar(stream, names) if name.endswith(".tar.gz") else _of_zip(stream, names)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise BadArchive(f"{name} cannot be read: {error}") from error
    if missing := sorted(names - set(found)):
        raise BadArchive(f"{name} holds no {missing[0]}.")
    return found


def read_inner(content: bytes, name: str, wanted: Iterable[str]) -> dict[str, bytes]:
    """The same for an archive that was itself a member."""
    return read_members(io.BytesIO(content), name, wanted)


def _of_zip(stream: IO[bytes], wanted: set[str]) -> dict[str, bytes]:
    """zipfile checks each member's CRC; its size is checked before it is read."""
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            _check_path(entry.filename)
            if entry.filename in wanted:
                _check_size(entry.filename, entry.file_size)
                found[entry.filename] = archive.read(entry)
    return found


def _of_tar(stream: IO[bytes], wanted: set[str]) -> dict[str, bytes]:
    """Links are never followed: only regular files are read."""
    found: dict[str, bytes] = {}
    total = 0
    with tarfile.open(fileobj=stream, mode="r:gz") as archive:
        for number, entry in enumerate(archive):
            _check_path(entry.name)
            total += entry.size
            if number >= MAX_TAR_MEMBERS or total > MAX_TAR_BYTES:
                raise BadArchive(
                    f"The archive has over {MAX_TAR_MEMBERS} members or {MAX_TAR_BYTES} bytes."
                )
            if entry.name in wanted and entry.isreg():
                _check_size(entry.name, entry.size)
                content = archive.extractfile(entry)
                found[entry.name] = content.read() if content is not None else b""
    return found


def _check_path(path: str) -> None:
    if path.startswith(("/", "\\")) or ".." in PurePosixPath(path.replace("\\", "/")).parts:
        raise BadArchive(f"The archive holds {path!r}, which leads out of its folder.")


def _check_size(path: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise BadArchive(f"{path} is {size} bytes, over {MAX_MEMBER_BYTES}.")
