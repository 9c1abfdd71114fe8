"""Signed addresses of a dataset's images, recordings and videos, and the responses that serve them.

An address is signed for the person who unmasked the rows and expires after `VALID_S`; unmasking
again writes another audit event. It is not a credential: session, policy and department are checked
as on every page.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from governance.errors import NotFound
from governance.principals import Principal
from registry.datasets.cells import Cell, File
from registry.datasets.models import DatasetVersion
from registry.datasets.preview import OpenedMedia, RowsPreview

VALID_S = 15 * 60
SALT = "assay.dataset-media"


def with_addresses(preview: RowsPreview, version: DatasetVersion, actor: Principal) -> RowsPreview:
    """Return the preview with an address for each visible file."""

    def cell(parts: Cell) -> Cell:
        return [
            _addressed(each, version, actor) if isinstance(each, File) and each.shown else each
            for each in parts
        ]

    return replace(preview, rows=[[cell(each) for each in row] for row in preview.rows])


def _addressed(file: File, version: DatasetVersion, actor: Principal) -> File:
    mask = file.overlay.mask if file.overlay is not None else ""
    return replace(
        file,
        address=_address(version, file.media.sha256, actor),
        mask_address=_address(version, mask, actor) if mask else "",
    )


def _address(version: DatasetVersion, sha256: str, actor: Principal) -> str:
    token = signing.dumps([actor.id, version.pk, sha256], salt=SALT)
    path = reverse("portal:dataset_media", args=[version.dataset.name, version.number])
    return f"{path}?{urlencode({'key': token})}"


def file_named(request: HttpRequest, version: DatasetVersion, actor: Principal) -> str:
    """Return the SHA-256 of the file that the address names.

    Raises:
        NotFound: the address is invalid, expired, or for another person or version.
    """
    try:
        payload = signing.loads(request.GET.get("key", ""), salt=SALT, max_age=VALID_S)
    except signing.BadSignature as error:
        raise NotFound(
            "This file address is invalid or has expired.",
            hint="Show the rows of the dataset again.",
        ) from error
    person, pk, sha256 = payload
    if (person, pk) != (actor.id, version.pk):
        raise NotFound("This file address belongs to another person or version.")
    return str(sha256)


def media_answer(request: HttpRequest, opened: OpenedMedia) -> HttpResponse:
    """Respond with the whole file, or with the range of bytes that a player requested."""
    total = len(opened.data)
    span = _span(request.headers.get("Range", ""), total)
    if span is None:
        response = HttpResponse(opened.data, content_type=opened.content_type)
    elif span.start >= total:
        response = HttpResponse(status=416, headers={"Content-Range": f"bytes */{total}"})
    else:
        part = opened.data[span.start : span.stop]
        response = HttpResponse(part, status=206, content_type=opened.content_type)
        response["Content-Range"] = f"bytes {span.start}-{span.start + len(part) - 1}/{total}"
    response["Accept-Ranges"] = "bytes"
    response["Cache-Control"] = "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Disposition"] = "inline"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    # A file opened in its own tab runs no script, whatever it contains.
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _span(header: str, total: int) -> range | None:
    """Return the range of bytes that a header requests; None for the whole file."""
    first, dash, last = header.removeprefix("bytes=").partition("-")
    if not header.startswith("bytes=") or not dash or "," in header:
        return None
    if not (first.isdecimal() or (not first and last.isdecimal())) or len(header) > 60:
        return None
    if not first:
        return range(max(0, total - int(last)), total) if int(last) else range(total, total)
    if last and (not last.isdecimal() or int(last) < int(first)):
        return None
    return range(int(first), min(int(last) + 1, total) if last else total)
