"""Manifests: the sorted list of a version's files, and its digest.

Pure: uses only files and bytes, no Django and no database, so that workers can verify the bytes
that they load.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from governance.errors import DomainError, InvalidInput
from registry.canonical import canonical_json

CHUNK_BYTES = 1024 * 1024
MAX_PATH_CHARACTERS = 240
# Maximum bytes of a file or folder name on common file systems.
MAX_PART_BYTES = 255
MAX_FILES = 10_000
# The only file of a hosted version (`registry.catalog.hosted`).
HOSTED_FILE = "hosted.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ManifestMismatch(DomainError):
    """Bytes on disk differ from the manifest (409). `path` is the file."""

    code = "digest_mismatch"
    status = 409
    title = "Bytes differ from the manifest"

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(
            message, hint="Import the version again from its source; do not use these files."
        )
        self.path = path


class FilesUnreadable(DomainError):
    """Files are missing or cannot be read (503), so that their bytes could not be checked.

    The cause is a disk, a mount or a permission; trying again may help. `path` is the file.
    """

    code = "files_unreadable"
    status = 503
    title = "Files cannot be read"

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message, hint="Check that the data volume is mounted and readable.")
        self.path = path


def check_path(path: str) -> str:
    """Return `path` if it is a safe relative POSIX path in Unicode form NFC.

    Raises:
        InvalidInput: it is absolute, empty or too long, or has a step upward, a backslash or a
            control character.
    """
    reason = ""
    if not path or len(path) > MAX_PATH_CHARACTERS:
        reason = f"must have 1 to {MAX_PATH_CHARACTERS} characters"
    elif any(unicodedata.category(character) in {"Cc", "Cf", "Cs"} for character in path):
        reason = "holds a control character"
    elif "\\" in path:
        reason = "holds a backslash"
    elif path.startswith("/") or re.match(r"[A-Za-z]:", path):
        reason = "is absolute"
    elif any(part in {"", ".", ".."} for part in path.split("/")):
        reason = "steps out of its folder or has an empty part"
    elif unicodedata.normalize("NFC", path) != path:
        reason = "is not in Unicode form NFC"
    elif any(len(part.encode()) > MAX_PART_BYTES for part in path.split("/")):
        reason = f"has a part of over {MAX_PART_BYTES} bytes"
    if reason:
        raise InvalidInput(
            f"The file name {path[:MAX_PATH_CHARACTERS]!r} {reason}; it was rejected.",
            code="unsafe_path",
            hint="Use plain relative names such as tokenizer/vocab.json.",
        )
    return path


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: its relative POSIX path, size in bytes, and SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of one version; for a fine-tune, also the digest of its base.

    Files are always sorted by path.

    Raises:
        InvalidInput: a path is unsafe or repeated, a digest is malformed, a size is negative, or
            the manifest has no files.
    """

    files: tuple[ManifestFile, ...]
    base_digest: str | None = None

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.files, key=lambda file: file.path))
        object.__setattr__(self, "files", ordered)
        if not 1 <= len(ordered) <= MAX_FILES:
            raise InvalidInput(f"A manifest names 1 to {MAX_FILES} files; this has {len(ordered)}.")
        if len({file.path for file in ordered}) != len(ordered):
            raise InvalidInput("A manifest names each file once; a path is repeated.")
        for file in ordered:
            check_path(file.path)
            if file.size < 0 or not _SHA256.fullmatch(file.sha256):
                raise InvalidInput(f"The manifest's entry for {file.path} is malformed.")
        if self.base_digest is not None and not _SHA256.fullmatch(self.base_digest):
            raise InvalidInput("The manifest's base digest is not 64 hexadecimal digits.")

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form of `to_json()`, 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical).hexdigest()

    @property
    def canonical(self) -> bytes:
        """The bytes whose SHA-256 is `digest`."""
        return canonical_json(self.to_json())

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return {"base": digest or None, "files": [{"path", "sha256", "size"}, …]}."""
        return {
            "base": self.base_digest,
            "files": [
                {"path": file.path, "sha256": file.sha256, "size": file.size} for file in self.files
            ],
        }

    @classmethod
    def from_json(cls, data: Any) -> Manifest:
        """Return the manifest in JSON from `to_json`. Raises InvalidInput for anything else."""
        try:
            files = tuple(
                ManifestFile(path=entry["path"], size=entry["size"], sha256=entry["sha256"])
                for entry in data["files"]
            )
            base = data["base"]
            typed = all(
                isinstance(file.path, str)
                and isinstance(file.sha256, str)
                and type(file.size) is int
                for file in files
            )
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"This is not a manifest: {error!r}.") from error
        if not typed or not (base is None or isinstance(base, str)):
            raise InvalidInput("This is not a manifest: a field has the wrong type.")
        return cls(files=files, base_digest=base)


def walk_files(folder: Path) -> Iterator[str]:
    """Yield the relative POSIX paths of all files below `folder`, without following links.

    Raises:
        InvalidInput: it contains a symbolic link, a device, a socket or an unsafe name.
    """
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                path = check_path(f"{prefix}{entry.name}")
                if entry.is_symlink():
                    raise InvalidInput(
                        f"{path} is a symbolic link; it was rejected.", code="symbolic_link"
                    )
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                elif entry.is_file(follow_symlinks=False):
                    yield path
                else:
                    raise InvalidInput(
                        f"{path} is neither a file nor a folder; it was rejected.",
                        code="special_file",
                    )


@contextlib.contextmanager
def open_beneath(folder: Path, path: str) -> Iterator[BinaryIO]:
    """Open `folder`/`path` for reading, without following any symbolic link below `folder`.

    Raises:
        OSError: it does not exist, or a part of the path is a link.
    """
    *steps, name = check_path(path).split("/")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for step in steps:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(step, flags, dir_fd=at)
            os.close(at)
            at = below
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at
        )
    finally:
        os.close(at)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is not a plain file")
        yield file


def _chunks(folder: Path, path: str) -> Iterator[bytes]:
    with open_beneath(folder, path) as source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


def _expected_chunks(folder: Path, path: str) -> Iterator[bytes]:
    # Only reading is inside the `try`, so that a full disk of the target raises its own error.
    try:
        yield from _chunks(folder, path)
    except OSError as error:
        raise FilesUnreadable(
            f"{path} cannot be read: {error.strerror or error}.", path=path
        ) from error


def _hash(chunks: Iterable[bytes], target: BinaryIO | None = None) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return size, digest.hexdigest()


def build_manifest(folder: Path, base_digest: str | None = None) -> Manifest:
    """Return the manifest of all files currently below `folder`.

    Raises:
        InvalidInput: it contains a link or an unsafe name, or no files.
    """
    files = []
    for path in walk_files(folder):
        size, sha256 = _hash(_chunks(folder, path))
        files.append(ManifestFile(path=path, size=size, sha256=sha256))
    return Manifest(files=tuple(files), base_digest=base_digest)


def check_names(folder: Path, manifest: Manifest) -> None:
    """Check that `folder` has exactly the names of `manifest`, without reading any bytes.

    Raises:
        ManifestMismatch: names the first file that is extra.
        FilesUnreadable: names the first file that is missing.
    """
    try:
        present = set(walk_files(folder))
    except FileNotFoundError as error:
        raise FilesUnreadable(f"The folder {folder.name} does not exist.", path="") from error
    except OSError as error:
        raise FilesUnreadable(
            f"The folder {folder.name} cannot be read: {error.strerror or error}.", path=""
        ) from error
    except InvalidInput as error:
        raise ManifestMismatch(error.message, path="") from error
    expected = {file.path for file in manifest.files}
    if extra := sorted(present - expected):
        raise ManifestMismatch(
            f"{extra[0]} is not in the manifest {manifest.digest[:12]}.", path=extra[0]
        )
    if missing := sorted(expected - present):
        raise FilesUnreadable(
            f"{missing[0]} is in the manifest {manifest.digest[:12]} but is missing.",
            path=missing[0],
        )


def check_chunks(
    chunks: Iterable[bytes], expected: ManifestFile, target: BinaryIO | None = None
) -> None:
    """Write `chunks` to `target` and hash them; raise ManifestMismatch unless size and hash are the
    expected file's."""
    size, sha256 = _hash(chunks, target)
    if (size, sha256) != (expected.size, expected.sha256):
        raise ManifestMismatch(
            f"{expected.path} has SHA-256 {sha256[:12]}… and {size} bytes; the manifest says "
            f"{expected.sha256[:12]}… and {expected.size} bytes.",
            path=expected.path,
        )


def verify_folder(folder: Path, manifest: Manifest) -> None:
    """Check that `folder` contains exactly the files of `manifest`.

    Raises:
        ManifestMismatch: names the first file that is extra or different.
        FilesUnreadable: names the first file that is missing or cannot be read.
    """
    check_names(folder, manifest)
    for file in manifest.files:
        check_chunks(_expected_chunks(folder, file.path), file)


def copy_verified(source: Path, target: Path, manifest: Manifest) -> None:
    """Copy `source` to the new folder `target`, as `copy_files` does.

    Raises:
        ManifestMismatch: names the first file that is extra or different.
        FilesUnreadable: names the first file that is missing or cannot be read.
        OSError: `target` exists, or its disk is full.
    """
    check_names(source, manifest)

    def write(file: ManifestFile, output: BinaryIO) -> None:
        check_chunks(_expected_chunks(source, file.path), file, output)

    copy_files(write, target, manifest)


def copy_files(
    write: Callable[[ManifestFile, BinaryIO], None], target: Path, manifest: Manifest
) -> None:
    """Write the files of `manifest` to the new folder `target`; `write` hashes the bytes that it
    writes.

    So the bytes loaded from `target` are the hashed bytes, even if the source changes meanwhile. On
    an error `target` is removed.

    Raises:
        ManifestMismatch: names the first file that is different.
        OSError: `target` exists, or its disk is full.
    """
    target.mkdir(parents=True)
    try:
        for file in manifest.files:
            copy = target / file.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            with copy.open("xb") as output:
                write(file, output)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
