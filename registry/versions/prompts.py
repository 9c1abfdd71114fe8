"""The document of a prompt version in its row, checked against the hash of its file.

The row has it so that pages, dossiers and the gateway can read it without the store.
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
        ManifestMismatch: the row's document does not match the file in the manifest.
    """
    if version.kind != VersionKind.PROMPT:
        return None
    try:
        document = PromptDocument.read(version.parameters)
    except InvalidInput as error:
        raise ManifestMismatch(f"{version}: {error.message}", path=PROMPT_FILE) from error
    files = {file["path"]: file["sha256"] for file in version.manifest["files"]}
    if files != {PROMPT_FILE: hashlib.sha256(document.canonical()).hexdigest()}:
        raise ManifestMismatch(
            f"The prompt recorded for {version} does not match its digest.",
            path=PROMPT_FILE,
        )
    return document


def prompt_served(version: ModelVersion) -> PromptDocument | None:
    """Return the document that callers of a serving prompt version fill in, for a page; None for
    other kinds and for unreadable rows. Only the worker's copy is verified."""
    if version.kind != VersionKind.PROMPT:
        return None
    try:
        return PromptDocument.read(version.parameters)
    except InvalidInput:
        return None


def prompt_settings(document: PromptDocument) -> dict[str, Any]:
    """Return the document as `ModelVersion.parameters` stores it."""
    return document.model_dump(mode="json")
