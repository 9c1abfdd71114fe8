"""Manifests name bytes; what differs by one bit is not the same version."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from governance.errors import InvalidInput
from registry.manifests import (
    FilesUnreadable,
    Manifest,
    ManifestFile,
    ManifestMismatch,
    build_manifest,
    check_path,
    copy_verified,
    verify_folder,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "version"
    (made / "pooling").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "pooling" / "config.json").write_bytes(b"{}")
    return made


def test_the_digest_depends_on_content_and_base_and_not_on_order(folder: Path) -> None:
    manifest = build_manifest(folder)
    again = Manifest(files=tuple(reversed(manifest.files)))
    assert again.digest == manifest.digest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert build_manifest(folder, base_digest="a" * 64).digest != manifest.digest
    (folder / "model.safetensors").write_bytes(b"weightz")
    assert build_manifest(folder).digest != manifest.digest


def test_the_digest_is_the_documented_one() -> None:
    manifest = Manifest(files=(ManifestFile("a.txt", 1, "0" * 64),))
    import hashlib

    text = '{"base":null,"files":[{"path":"a.txt","sha256":"' + "0" * 64 + '","size":1}]}'
    assert manifest.digest == hashlib.sha256(text.encode()).hexdigest()


def test_one_changed_byte_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    manifest = build_manifest(folder)
    (folder / "pooling" / "config.json").write_bytes(b"{ ")
    with pytest.raises(ManifestMismatch, match=r"pooling/config\.json has SHA-256") as refused:
        verify_folder(folder, manifest)
    assert refused.value.path == "pooling/config.json"
    with pytest.raises(ManifestMismatch, match=r"pooling/config\.json"):
        copy_verified(folder, tmp_path / "copy", manifest)
    assert not (tmp_path / "copy").exists()


def test_an_extra_and_a_missing_file_are_refused_by_name(folder: Path) -> None:
    manifest = build_manifest(folder)
    (folder / "extra.json").write_bytes(b"{}")
    with pytest.raises(ManifestMismatch, match=r"extra\.json is not in the manifest"):
        verify_folder(folder, manifest)
    (folder / "extra.json").unlink()
    (folder / "model.safetensors").unlink()
    # A missing file proves no damage, because a volume may not be mounted.
    with pytest.raises(FilesUnreadable, match=r"model\.safetensors .* is missing"):
        verify_folder(folder, manifest)
    with pytest.raises(FilesUnreadable, match="does not exist"):
        verify_folder(folder / "nowhere", manifest)


def test_a_file_that_cannot_be_read_is_no_mismatch(folder: Path, tmp_path: Path) -> None:
    manifest = build_manifest(folder)
    pooling = folder / "pooling"
    pooling.rename(tmp_path / "aside")
    pooling.write_bytes(b"a file in the place of a folder")
    with pytest.raises(ManifestMismatch, match="pooling is not in the manifest"):
        verify_folder(folder, manifest)
    with pytest.raises(FilesUnreadable, match="cannot be read: Not a directory"):
        verify_folder(pooling, manifest)


def test_a_symbolic_link_is_refused_wherever_it_points(folder: Path, tmp_path: Path) -> None:
    manifest = build_manifest(folder)
    (tmp_path / "same").write_bytes(b"weights")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "same")
    with pytest.raises(ManifestMismatch, match="symbolic link"):
        copy_verified(folder, tmp_path / "copy", manifest)
    with pytest.raises(InvalidInput, match="symbolic link"):
        build_manifest(folder)


def test_a_pipe_is_refused_without_waiting_for_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidInput, match="neither a file nor a folder"):
        build_manifest(folder)


def test_a_copy_is_what_was_hashed(folder: Path, tmp_path: Path) -> None:
    manifest = build_manifest(folder)
    copy_verified(folder, tmp_path / "copy", manifest)
    assert build_manifest(tmp_path / "copy") == manifest


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../up", "a/../b", "a//b", "./a", "a\\b", "C:/a", "a\nb", "a\0b", "e\u0301",
     "a\u202eb", "x" * 241],
)  # fmt: skip
def test_an_unsafe_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        check_path(path)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"base": None, "files": []},
        {"base": 7, "files": [{"path": "a", "size": 1, "sha256": "0" * 64}]},
        {"base": None, "files": [{"path": "a", "size": True, "sha256": "0" * 64}]},
        {"base": None, "files": [{"path": "a", "size": 1, "sha256": "0" * 63}]},
        {"base": None, "files": [{"path": "a", "size": 1, "sha256": "0" * 64}] * 2},
        {"base": None, "files": [{"path": "../a", "size": 1, "sha256": "0" * 64}]},
    ],
)
def test_what_is_no_manifest_is_refused(data: object) -> None:
    with pytest.raises(InvalidInput):
        Manifest.from_json(data)


def test_a_copy_that_finds_no_room_is_no_mismatch(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"w" * 100_000)
    manifest = build_manifest(folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            copy_verified(folder, tmp_path / "copy", manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "copy").exists()
    verify_folder(folder, manifest)
