"""Media types of views that write their answers themselves: texts, files, archives.

For negotiation alone; what a view refuses is still a problem in JSON.
"""

from __future__ import annotations

from typing import Any

from rest_framework.renderers import BaseRenderer


class PlainText(BaseRenderer):
    """A text, or lines of one."""

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


class File(BaseRenderer):
    """A file as it lies."""

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
    """A zip."""

    media_type = "application/zip"
    format = "zip"


class Pdf(File):
    """Pages to print."""

    media_type = "application/pdf"
    format = "pdf"


class Page(File):
    """A page to read."""

    media_type = "text/html"
    format = "html"


class CycloneDX(File):
    """A bill of materials."""

    media_type = "application/vnd.cyclonedx+json"
    format = "cdx"


class Spdx(File):
    """A bill of materials, as SPDX writes it."""

    media_type = "application/spdx+json"
    format = "spdx"
