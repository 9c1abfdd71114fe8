"""Files in the artifact store of the tests, for tests that damage or lose them."""

from __future__ import annotations

import json
from pathlib import Path

from registry.manifests import Manifest
from registry.storage import store
from registry.storage.backend import file_key, record_key
from registry.storage.folder import INCOMING


def stored_file(sha256: str) -> Path:
    """Return the place of a file, whether it exists or not."""
    path = store.backend().path(file_key(sha256))
    assert path is not None
    return path


def version_manifest(digest: str) -> Manifest:
    """Return the manifest that the store holds under a version's digest."""
    return Manifest.from_json(json.loads(store.file_bytes(digest)))


def version_part(digest: str, path: str) -> Path:
    """Return the place of one file of a version."""
    return stored_file(
        next(file.sha256 for file in version_manifest(digest).files if file.path == path)
    )


def media_list(dataset_digest: str) -> Path:
    """Return the place of the list of a dataset version's media."""
    path = store.backend().path(record_key("media-lists", dataset_digest, ".tsv"))
    assert path is not None
    return path


def preview(sha256: str) -> Path:
    """Return the place of an image's preview."""
    path = store.backend().path(store.preview_key(sha256))
    assert path is not None
    return path


def incoming() -> list[Path]:
    """Return what uploads left behind."""
    folder = store.backend().path(INCOMING)
    assert folder is not None
    return list(folder.glob("*"))
