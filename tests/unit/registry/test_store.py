"""The store keeps what it was given under its digest, once, and read-only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from governance.errors import InvalidInput
from registry import store
from registry.manifests import ManifestMismatch, build_manifest


def test_adopting_twice_keeps_one_read_only_folder_that_can_be_deleted(tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "pooling").mkdir(parents=True)
    (made / "pooling" / "config.json").write_bytes(b"{}")
    manifest = build_manifest(made)
    root = tmp_path / "artifacts"
    final = store.adopt(made, manifest, at=root)
    assert store.adopt(made, manifest, at=root) == final
    assert build_manifest(final) == manifest
    assert (final / "pooling" / "config.json").stat().st_mode & 0o777 == 0o444
    assert [path.name for path in final.parent.iterdir()] == [manifest.digest]
    shutil.rmtree(root)


def test_what_was_tampered_with_in_the_store_is_not_adopted_over(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "a.json").write_bytes(b"{}")
    manifest = build_manifest(made)
    final = store.adopt(made, manifest, at=tmp_path / "artifacts")
    (final / "a.json").chmod(0o644)
    (final / "a.json").write_bytes(b"[]")
    with pytest.raises(ManifestMismatch, match=r"a\.json"):
        store.adopt(made, manifest, at=tmp_path / "artifacts")


def test_a_folder_that_is_not_what_its_manifest_says_leaves_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "a.json").write_bytes(b"{}")
    manifest = build_manifest(made)
    (made / "a.json").write_bytes(b"[]")
    with pytest.raises(ManifestMismatch):
        store.adopt(made, manifest, at=tmp_path / "artifacts")
    assert list((tmp_path / "artifacts" / "versions").iterdir()) == []


def test_a_digest_is_never_a_path() -> None:
    with pytest.raises(InvalidInput):
        store.version_folder("../../etc")
