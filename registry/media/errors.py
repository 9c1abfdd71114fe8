"""Errors of checks of media files."""

from __future__ import annotations

from governance.errors import InvalidInput, Unavailable


class MediaRejected(InvalidInput):
    """A media file was rejected; the message has the reason, the hint the fix."""

    code = "media_rejected"
    title = "Media rejected"


class MediaBusy(Unavailable):
    """The maximum number of files is being decoded."""
