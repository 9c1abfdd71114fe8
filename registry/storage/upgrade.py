"""Move a store of the first layout, one folder for each version, into files under their SHA-256.

Hard links, so that nothing is stored twice; every file is hashed before it gets its name. It may
be interrupted and run again. Nothing reads the first layout any more.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from governance.errors import DomainError
from registry.manifests import Manifest, build_manifest, check_names, open_beneath
from registry.storage.backend import Source, file_key, record_key
from registry.storage.folder import FolderBackend

logger = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FOLDERS = ("versions", "datasets", "media", "documents")
_PREVIEWS = (".mask.png", ".jpg")


@dataclass(slots=True)
class Upgraded:
    """Moved versions and single files, and a sentence for each that stays where it is."""

    versions: int = 0
    files: int = 0
    left: list[str] = field(default_factory=list)


def is_old(backend: FolderBackend) -> bool:
    """Return whether the folder holds anything of the first layout."""
    return any((backend.root / name).is_dir() for name in _FOLDERS)


def store_upgrade(backend: FolderBackend, manifests: Mapping[str, Manifest]) -> Upgraded:
    """Move everything into the present layout; `manifests` are the recorded ones by digest.

    Raises:
        StoreUnavailable: the folder cannot be written.
    """
    done = Upgraded()
    for folder in _children(backend.root / "versions"):
        if _DIGEST.fullmatch(folder.name):
            _try(done, folder, lambda each: _version(backend, each, manifests, done))
    for folder in _children(backend.root / "datasets"):
        if _DIGEST.fullmatch(folder.name):
            _try(done, folder, lambda each: _dataset(backend, each, done))
    for kind in ("media", "documents"):
        for shard in _children(backend.root / kind):
            for file in _children(shard):
                _try(done, file, lambda each: _single(backend, each, done))
    _remove_links(backend.root)
    for name in _FOLDERS:
        _remove_empty(backend.root / name)
    for sentence in done.left:
        logger.warning("Not moved: %s", sentence)
    return done


def _try(done: Upgraded, path: Path, move: Callable[[Path], None]) -> None:
    try:
        move(path)
    except DomainError as error:
        done.left.append(f"{path}: {error.message}")


def _version(
    backend: FolderBackend, folder: Path, manifests: Mapping[str, Manifest], done: Upgraded
) -> None:
    manifest = manifests.get(folder.name)
    if manifest is None:
        manifest = build_manifest(folder)
    if manifest.digest != folder.name:
        done.left.append(f"{folder}: no version with this digest is recorded.")
        return
    check_names(folder, manifest)
    for file in manifest.files:
        _move(backend, folder, file.path, file_key(file.sha256), file.sha256)
    text = Source(BytesIO(manifest.canonical), "the manifest", manifest.digest)
    backend.write(file_key(manifest.digest), text)
    # Half a folder would not fit its manifest at the next start; `_remove_empty` takes this one.
    scratch = folder.with_name(f".adopting-{folder.name}")
    folder.rename(scratch)
    shutil.rmtree(scratch)
    done.versions += 1


def _dataset(backend: FolderBackend, folder: Path, done: Upgraded) -> None:
    if (folder / "media.tsv").is_file():
        key = record_key("media-lists", folder.name, ".tsv")
        _move(backend, folder, "media.tsv", key, None)
        (folder / "media.tsv").unlink()
    if (folder / "data.jsonl").is_file():
        _move(backend, folder, "data.jsonl", file_key(folder.name), folder.name)
        (folder / "data.jsonl").unlink()
    done.files += 1
    with suppress(OSError):
        folder.rmdir()


def _single(backend: FolderBackend, file: Path, done: Upgraded) -> None:
    sha256, suffix = file.name[:64], file.name[64:]
    if not _DIGEST.fullmatch(sha256) or suffix not in ("", *_PREVIEWS):
        done.left.append(f"{file}: not a file of the store.")
        return
    if suffix:
        _move(backend, file.parent, file.name, record_key("previews", sha256, suffix), None)
    else:
        _move(backend, file.parent, file.name, file_key(sha256), sha256)
    file.unlink()
    done.files += 1


def _move(backend: FolderBackend, folder: Path, name: str, key: str, sha256: str | None) -> None:
    """Link a file to its key once it was hashed. Raises ManifestMismatch for other bytes."""
    with open_beneath(folder, name) as file:
        source = Source(file, name, sha256)
        if backend.find(key) is None:
            backend.link(key, source, folder / name)


def _children(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from sorted(folder.iterdir())


def _remove_links(root: Path) -> None:
    """Remove the links to versions that were put into MLflow's artifact folders."""
    for link in root.glob("*/*/artifacts/model"):
        if link.is_symlink():
            link.unlink()
            for folder in list(link.parents)[:3]:
                with suppress(OSError):
                    folder.rmdir()


def _remove_empty(folder: Path) -> None:
    for scratch in _children(folder):
        if scratch.name.startswith((".incoming-", ".adopting-")):
            shutil.rmtree(scratch, ignore_errors=True)
    for part, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(part)
