"""Read named files out of a package's archive, within limits; nothing else is unpacked.

Members are read by their exact name, and the caller writes them under its own names, so paths in an
archive never reach the disk. An archive with an absolute path or `..` is refused nevertheless: it
was made to escape from a folder, so none of it can be trusted.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import IO

MAX_MEMBER_BYTES = 256 * 1024 * 1024
# Limits on a whole tar archive: the size of a compressed one is unknown before it is read.
MAX_TAR_BYTES = 1024 * 1024 * 1024
MAX_TAR_MEMBERS = 10_000


class BadArchive(RuntimeError):
    """The archive lacks a member, exceeds a limit, or contains a path that escapes its folder."""


def read_members(stream: IO[bytes], name: str, members: Iterable[str]) -> dict[str, bytes]:
    """Return the content of `members` of a zip (or wheel) or gzipped tar archive.

    Args:
        stream: The archive's bytes, at their start.
        name: The archive's file name; its suffix determines the format.
        members: Exact paths in the archive.

    Raises:
        BadArchive: A member is missing or too large, or a path leaves the archive's folder.
    """
    names = set(members)
    try:
        contents = _of_tar(stream, names) if name.endswith(".tar.gz") else _of_zip(stream, names)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise BadArchive(f"{name} cannot be read: {error}") from error
    if missing := sorted(names - set(contents)):
        raise BadArchive(f"{name} does not contain {missing[0]}.")
    return contents


def read_inner(content: bytes, name: str, members: Iterable[str]) -> dict[str, bytes]:
    """Return the content of `members` of an archive that is itself a member."""
    return read_members(io.BytesIO(content), name, members)


def _of_zip(stream: IO[bytes], names: set[str]) -> dict[str, bytes]:
    """Read a zip archive. zipfile checks each member's CRC; sizes are checked before reading."""
    contents: dict[str, bytes] = {}
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            _check_path(entry.filename)
            if entry.filename in names:
                _check_size(entry.filename, entry.file_size)
                contents[entry.filename] = archive.read(entry)
    return contents


def _of_tar(stream: IO[bytes], names: set[str]) -> dict[str, bytes]:
    """Read the regular files of a tar archive; links are never followed."""
    contents: dict[str, bytes] = {}
    total = 0
    with tarfile.open(fileobj=stream, mode="r:gz") as archive:
        for number, entry in enumerate(archive):
            _check_path(entry.name)
            total += entry.size
            if number >= MAX_TAR_MEMBERS or total > MAX_TAR_BYTES:
                raise BadArchive(
                    f"The archive has over {MAX_TAR_MEMBERS} members or {MAX_TAR_BYTES} bytes."
                )
            if entry.name in names and entry.isreg():
                _check_size(entry.name, entry.size)
                content = archive.extractfile(entry)
                contents[entry.name] = content.read() if content is not None else b""
    return contents


def _check_path(path: str) -> None:
    if path.startswith(("/", "\\")) or ".." in PurePosixPath(path.replace("\\", "/")).parts:
        raise BadArchive(f"The archive contains {path!r}, which is outside its folder.")


def _check_size(path: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise BadArchive(f"{path} is {size} bytes, over {MAX_MEMBER_BYTES}.")
