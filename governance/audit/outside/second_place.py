"""The second place of the audit log, from the settings."""

from __future__ import annotations

import functools
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from governance.audit.outside.places import Folder, Place


def second_place() -> Place:
    """Return the place that checkpoints and tiles are published to.

    Raises:
        ImproperlyConfigured: ASSAY_AUDIT_PUBLISH_URL is neither a folder nor `s3://bucket/prefix`,
            or ASSAY_AUDIT_S3_RETENTION_DAYS is less than 1.
    """
    url: str = settings.AUDIT_PUBLISH_URL
    if not url:
        return Folder(Path(settings.AUDIT_PUBLISH_DIR))
    if "://" not in url:
        return Folder(Path(url))
    return _bucket(
        url,
        settings.AUDIT_S3_ENDPOINT_URL,
        settings.AUDIT_S3_REGION,
        settings.AUDIT_S3_RETENTION_DAYS,
    )


@functools.lru_cache(maxsize=4)
def _bucket(url: str, endpoint: str, region: str, retention_days: int) -> Place:
    # Imported here: boto3 takes a third of a second to load, and most installations do not use it.
    from governance.audit.outside.s3 import Bucket

    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise ImproperlyConfigured(
            f"ASSAY_AUDIT_PUBLISH_URL={url!r} is neither a folder nor s3://bucket/prefix."
        )
    if retention_days < 1:
        raise ImproperlyConfigured(
            f"ASSAY_AUDIT_S3_RETENTION_DAYS={retention_days} locks nothing; set it to 1 or more."
        )
    return Bucket(
        parts.netloc, parts.path, endpoint=endpoint, region=region, retention_days=retention_days
    )
