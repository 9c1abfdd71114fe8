"""The backend that a URL names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from registry.storage.backend import Backend
from registry.storage.folder import FolderBackend


def open_backend(url: str) -> Backend:
    """Return the backend of `file:///folder`.

    Raises:
        ImproperlyConfigured: the URL names none.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FolderBackend(Path(unquote(parts.path)))
    raise ImproperlyConfigured(f"ASSAY_STORE_URL={url!r} is not file:///folder.")
