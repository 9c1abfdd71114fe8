"""The document of a prompt version, as its row keeps it: the very bytes of its file, by their hash.

The row holds it so that pages, dossiers and the gateway read it without the store.
"""

from __future__ import annotations

import hashlib
from typing import Any

from governance.errors import InvalidInput
from registry.catalog.prompt import PROMPT_FILE, PromptDocument
from registry.manifests import ManifestMismatch
from registry.versions.models import ModelVersion, VersionKind


def prompt_of(version: ModelVersion) -> PromptDocument | None:
    """Return the document of a prompt version; None for other kinds.

    Raises:
        ManifestMismatch: the row's document is not the file that the manifest names.
    """
    if version.kind != VersionKind.PROMPT:
        return None
    try:
        document = PromptDocument.read(version.parameters)
    except InvalidInput as error:
        raise ManifestMismatch(f"{version}: {error.message}", path=PROMPT_FILE) from error
    stated = {file["path"]: file["sha256"] for file in version.manifest["files"]}
    if stated != {PROMPT_FILE: hashlib.sha256(document.canonical()).hexdigest()}:
        raise ManifestMismatch(
            f"The prompt recorded for {version} is not the one that its digest names.",
            path=PROMPT_FILE,
        )
    return document


def prompt_served(version: ModelVersion) -> PromptDocument | None:
    """Return the document that callers of a serving prompt version fill in, for a page; None for
    other kinds and for a row that cannot be read. Only the worker's copy is verified."""
    if version.kind != VersionKind.PROMPT:
        return None
    try:
        return PromptDocument.read(version.parameters)
    except InvalidInput:
        return None


def prompt_settings(document: PromptDocument) -> dict[str, Any]:
    """Return the document as `ModelVersion.parameters` keeps it."""
    return document.model_dump(mode="json")
