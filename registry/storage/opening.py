"""Select the backend for a URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from registry.storage.backend import Backend
from registry.storage.folder import FolderBackend


def open_backend(url: str) -> Backend:
    """Return the backend of `file:///folder` or `s3://bucket/prefix`, without contacting it.

    Raises:
        ImproperlyConfigured: the URL is not valid for a store, or a setting of S3 is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FolderBackend(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc and not (parts.query or parts.fragment):
        return _bucket(parts.netloc, parts.path)
    raise ImproperlyConfigured(
        f"ASSAY_STORE_URL={url!r} is neither file:///folder nor s3://bucket/prefix."
    )


def _bucket(bucket: str, prefix: str) -> Backend:
    # Imported here: boto3 takes a third of a second to load, and many installations do not need it.
    from registry.storage.s3 import S3Backend, S3Options

    options = S3Options(
        endpoint=settings.STORE_S3_ENDPOINT_URL,
        region=settings.STORE_S3_REGION,
        path_style=settings.STORE_S3_PATH_STYLE,
        timeout_s=settings.STORE_TIMEOUT_S,
        access_key=settings.STORE_ACCESS_KEY_ID,
        secret_key=settings.STORE_SECRET_ACCESS_KEY,
    )
    try:
        return S3Backend(bucket, prefix, options)
    except ValueError as error:
        # The endpoint is not a URL, or the bucket's name is malformed.
        raise ImproperlyConfigured(f"The artifact store cannot be used: {error}.") from None
