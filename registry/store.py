"""The artefact store: folders and files under their own digest, written once.

MLflow serves the same root as its artefact destination, so a version's source there is
`artifact_uri(digest)`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from django.conf import settings

from governance.errors import InvalidInput
from registry.manifests import Manifest, copy_verified, verify_folder


def root() -> Path:
    """Where artefacts lie: `ASSAY_DATA_DIR`/artifacts."""
    return Path(settings.DATA_DIR) / "artifacts"


def _checked(digest: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InvalidInput(f"{digest[:80]!r} is not a digest of 64 hexadecimal digits.")
    return digest


def version_folder(digest: str, *, at: Path | None = None) -> Path:
    """The folder of the version whose manifest has this digest, whether it exists or not."""
    return (at or root()) / "versions" / _checked(digest)


def dataset_file(digest: str, *, at: Path | None = None) -> Path:
    """The JSON lines of the dataset version with this digest, whether they exist or not."""
    return (at or root()) / "datasets" / _checked(digest) / "data.jsonl"


def quarantine_folder(intake_id: int) -> Path:
    """Where one delivery waits. Never below the artefact root, which MLflow serves."""
    return Path(settings.DATA_DIR) / "quarantine" / str(intake_id)


def artifact_uri(digest: str) -> str:
    """What MLflow calls the same folder."""
    return f"mlflow-artifacts:/versions/{_checked(digest)}"


def adopt(folder: Path, manifest: Manifest, *, at: Path | None = None) -> Path:
    """Copy `folder` into the store under the manifest's digest; once, atomically, read-only.

    Files become 0444; folders stay writable by their owner, so that they can be deleted whole.

    Raises:
        ManifestMismatch: `folder`, or what the store already holds, is not what the manifest says.
    """
    final = version_folder(manifest.digest, at=at)
    if final.exists():
        verify_folder(final, manifest)
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".adopting-", dir=final.parent))
    try:
        copy = scratch / "files"
        copy_verified(folder, copy, manifest)
        for file in manifest.files:
            (copy / file.path).chmod(0o444)
        _rename_once(copy, final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return final


def adopt_dataset(file: Path, digest: str, *, at: Path | None = None) -> Path:
    """Move `file`, whose SHA-256 is `digest`, into the store; once, atomically, read-only.

    `file` must lie on the store's filesystem.
    """
    final = dataset_file(digest, at=at)
    if final.exists():
        file.unlink()
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    file.chmod(0o444)
    os.replace(file, final)
    return final


def _rename_once(source: Path, final: Path) -> None:
    try:
        source.rename(final)
    except OSError:
        # Someone else adopted the same bytes in between; theirs are as good, when they are there.
        if not final.is_dir():
            raise
