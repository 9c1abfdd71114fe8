"""The error that every check of a media file raises."""

from __future__ import annotations

from governance.errors import InvalidInput, Unavailable


class MediaRejected(InvalidInput):
    """A media file was rejected: the message says why, the hint how to fix it."""

    code = "media_rejected"
    title = "Media rejected"


class MediaBusy(Unavailable):
    """As many files are being decoded as may be at the same time."""
