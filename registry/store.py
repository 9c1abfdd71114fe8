"""The artifact store: folders and files under their own digest, written once.

MLflow serves the same root as its artifact destination. It registers only sources inside a run's
own artifact folder, so `expose` puts a link to the version's folder there: no byte is stored twice.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from django.conf import settings

from governance.errors import InvalidInput
from registry.manifests import Manifest, copy_verified, verify_folder


def root() -> Path:
    """Return the folder of artifacts: `ASSAY_DATA_DIR`/artifacts."""
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


def dataset_media_file(digest: str, *, at: Path | None = None) -> Path:
    """The list of media files that a dataset version's rows name, whether it exists or not."""
    return dataset_file(digest, at=at).with_name("media.tsv")


def media_file(sha256: str, *, at: Path | None = None) -> Path:
    """The image or recording with this SHA-256, whether it exists or not."""
    return (at or root()) / "media" / _checked(sha256)[:2] / sha256


def media_preview_file(sha256: str, *, at: Path | None = None) -> Path:
    """A small JPEG of the image with this SHA-256; images of a dataset's first rows have one."""
    file = media_file(sha256, at=at)
    return file.with_name(f"{file.name}.jpg")


def mask_preview_file(sha256: str, *, at: Path | None = None) -> Path:
    """A small picture in colors of the mask with this SHA-256, for masks of a dataset's first
    rows."""
    file = media_file(sha256, at=at)
    return file.with_name(f"{file.name}.mask.png")


def document_file(sha256: str, *, at: Path | None = None) -> Path:
    """The uploaded document, or the text taken out of one, with this SHA-256, whether it exists or
    not."""
    return (at or root()) / "documents" / _checked(sha256)[:2] / sha256


def quarantine_folder(intake_id: int) -> Path:
    """Return the folder of one delivery. Never below the artifact root, which MLflow serves."""
    return Path(settings.DATA_DIR) / "quarantine" / str(intake_id)


def expose(digest: str, artifact_uri: str) -> str:
    """Link a version's folder into a run's artifacts; returns the source that MLflow accepts.

    Args:
        digest: Of a version in the store.
        artifact_uri: The run's, `mlflow-artifacts:/<experiment>/<run>/artifacts`.

    Raises:
        InvalidInput: MLflow keeps the run's artifacts anywhere else.
    """
    scheme, _, path = artifact_uri.partition(":/")
    parts = PurePosixPath(path.lstrip("/")).parts
    if scheme != "mlflow-artifacts" or not parts or ".." in parts:
        raise InvalidInput(
            f"MLflow keeps the run's artifacts at {artifact_uri[:200]!r}, not in Assay's store.",
            hint="Start MLflow with --artifacts-destination naming ASSAY_DATA_DIR/artifacts.",
        )
    link = root().joinpath(*parts) / "model"
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(version_folder(digest), link.parent)
    if not (link.is_symlink() and os.readlink(link) == target):
        link.symlink_to(target, target_is_directory=True)
    return f"{artifact_uri}/model"


def adopt(folder: Path, manifest: Manifest, *, at: Path | None = None) -> Path:
    """Copy `folder` into the store under the manifest's digest; once, atomically, read-only.

    Files become 0444; folders stay writable by their owner, so that they can be deleted whole.

    Raises:
        ManifestMismatch: `folder`, or what the store already holds, is not what the manifest says.
        FilesUnreadable: a file of either is missing or cannot be read.
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
    return adopt_file(file, dataset_file(digest, at=at))


def adopt_file(file: Path, final: Path) -> Path:
    """Move `file` to `final`, a place of the store that its content decides; once, read-only.

    `file` must lie on the store's filesystem.
    """
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
