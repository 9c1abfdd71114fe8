"""Media types of views that write their own answers: texts, files, archives.

They are only for content negotiation; refusals are still problems in JSON.
"""

from __future__ import annotations

from typing import Any

from rest_framework.renderers import BaseRenderer


class PlainText(BaseRenderer):
    """A text or its lines."""

    media_type = "text/plain"
    format = "txt"
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Any = None,
    ) -> str | bytes:
        return str(data)


class JsonLines(PlainText):
    """JSON values, one a line."""

    media_type = "application/jsonl"
    format = "jsonl"


class File(BaseRenderer):
    """An unchanged file."""

    media_type = "application/octet-stream"
    format = "bin"
    charset = None
    render_style = "binary"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Any = None,
    ) -> bytes:
        return bytes(data)


class Archive(File):
    """A zip archive."""

    media_type = "application/zip"
    format = "zip"


class Pdf(File):
    """A PDF document."""

    media_type = "application/pdf"
    format = "pdf"


class Page(File):
    """An HTML page."""

    media_type = "text/html"
    format = "html"


class CycloneDX(File):
    """A bill of materials in CycloneDX format."""

    media_type = "application/vnd.cyclonedx+json"
    format = "cdx"


class Spdx(File):
    """A bill of materials in SPDX format."""

    media_type = "application/spdx+json"
    format = "spdx"
