"""The store keeps what it was given under its SHA-256, once, and read-only."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from governance.errors import InvalidInput
from registry.manifests import FilesUnreadable, Manifest, ManifestMismatch, build_manifest
from registry.storage import store
from registry.storage.backend import Source, StoreUnavailable, file_key
from registry.storage.folder import FolderBackend
from tests.stored import stored_file


@pytest.fixture(autouse=True)
def root(tmp_path: Path, settings: Any) -> Path:
    """The folder of the store."""
    settings.STORE_URL = (tmp_path / "artifacts").as_uri()
    return tmp_path / "artifacts"


def made(folder: Path, **files: str) -> Manifest:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return build_manifest(folder)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_adopting_twice_keeps_each_file_once_and_read_only(tmp_path: Path, root: Path) -> None:
    manifest = made(tmp_path / "made", a="same", pooling__b="same", c="other")
    store.adopt(tmp_path / "made", manifest)
    store.adopt(tmp_path / "made", manifest)
    assert store.has_version(manifest.digest)
    assert names(root) == sorted({manifest.digest, *(file.sha256 for file in manifest.files)})
    assert stored_file(manifest.digest).stat().st_mode & 0o777 == 0o444
    store.copy_version(manifest, tmp_path / "copy")
    assert build_manifest(tmp_path / "copy") == manifest
    shutil.rmtree(root)


def test_versions_share_equal_files(tmp_path: Path, root: Path) -> None:
    first = made(tmp_path / "one", weights="w", config="1")
    second = made(tmp_path / "two", weights="w", config="2")
    store.adopt(tmp_path / "one", first)
    store.adopt(tmp_path / "two", second)
    assert len(names(root)) == 5


def test_what_was_tampered_with_in_the_store_is_not_used_until_it_is_adopted_again(
    tmp_path: Path,
) -> None:
    manifest = made(tmp_path / "made", **{"a.json": "{}"})
    store.adopt(tmp_path / "made", manifest)
    file = stored_file(manifest.files[0].sha256)
    file.chmod(0o644)
    file.write_bytes(b"[]")
    with pytest.raises(ManifestMismatch, match=r"a\.json"):
        store.verify_version(manifest)
    with pytest.raises(ManifestMismatch):
        store.file_bytes(manifest.files[0].sha256)
    with pytest.raises(ManifestMismatch):
        store.copy_version(manifest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    store.adopt(tmp_path / "made", manifest)
    store.verify_version(manifest)


def test_a_folder_that_is_not_what_its_manifest_says_leaves_nothing(
    tmp_path: Path, root: Path
) -> None:
    manifest = made(tmp_path / "made", **{"a.json": "{}"})
    (tmp_path / "made" / "a.json").write_bytes(b"[]")
    with pytest.raises(ManifestMismatch):
        store.adopt(tmp_path / "made", manifest)
    assert names(root) == []


def test_a_link_in_a_workers_folder_is_not_followed(tmp_path: Path, root: Path) -> None:
    manifest = made(tmp_path / "made", a="{}")
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "made" / "a").unlink()
    (tmp_path / "made" / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(ManifestMismatch, match="symbolic link"):
        store.adopt(tmp_path / "made", manifest)
    assert names(root) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    manifest = made(tmp_path / "made", a="{}")
    store.adopt(tmp_path / "made", manifest)
    stored_file(manifest.files[0].sha256).unlink()
    with pytest.raises(FilesUnreadable, match="a is missing from the artifact store"):
        store.verify_version(manifest)


def test_a_digest_is_never_a_path() -> None:
    with pytest.raises(InvalidInput):
        store.file_open("../../etc")


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "file").write_text("not a folder")
    settings.STORE_URL = (tmp_path / "file" / "store").as_uri()
    manifest = made(tmp_path / "made", a="{}")
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        store.adopt(tmp_path / "made", manifest)


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = syncs(monkeypatch)
    (tmp_path / "upload").write_text("weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    root.mkdir()
    store.file_put(tmp_path / "upload", sha256)
    folder = stored_file(sha256).parent
    assert synced == [
        (tmp_path / "upload", False),
        (root, False),
        (folder.parent, False),
        (folder, True),
    ]
    synced.clear()
    backend = FolderBackend(root)
    (tmp_path / "old").write_text("old")
    other = hashlib.sha256(b"old").hexdigest()
    with (tmp_path / "old").open("rb") as file:
        backend.link(file_key(other), Source(file, "old", other), tmp_path / "old")
    assert synced[0][0] == tmp_path / "old"
    assert synced[-1] == (stored_file(other).parent, True)


def syncs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, bool]]:
    """Note each path that is synced from now on, and whether a file lies in it, if a folder."""
    synced: list[tuple[Path, bool]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        synced.append((path, path.is_dir() and any(each.is_file() for each in path.iterdir())))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return synced


def test_a_store_that_is_away_is_told_from_one_without_files(root: Path) -> None:
    backend = FolderBackend(root)
    backend.check()
    with pytest.raises(StoreUnavailable, match="does not exist"):
        FolderBackend(root / "not" / "mounted").check()
