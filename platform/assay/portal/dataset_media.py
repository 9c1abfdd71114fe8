"""Addresses of images, recordings and videos of a dataset, and the answers with their bytes.

An address is signed for the person who unmasked the rows, and ends after `VALID_S`: unmasking again
is asking again, and is an event. It is no credential: the session, the policy and the department
are checked as on every page.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from governance.errors import NotFound
from governance.principals import Principal
from registry.datasets.models import DatasetVersion
from registry.datasets.preview import Cell, File, OpenedMedia, RowsPreview

VALID_S = 15 * 60
SALT = "assay.dataset-media"


def with_addresses(preview: RowsPreview, version: DatasetVersion, actor: Principal) -> RowsPreview:
    """Return the preview with an address for each file that is shown."""

    def cell(given: Cell) -> Cell:
        return [
            _addressed(each, version, actor) if isinstance(each, File) and each.shown else each
            for each in given
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
        NotFound: it was not made for this person and version, or too long ago.
    """
    try:
        given = signing.loads(request.GET.get("key", ""), salt=SALT, max_age=VALID_S)
    except signing.BadSignature as error:
        raise NotFound(
            "This address of a file has expired or is not valid.",
            hint="Show the rows of the dataset again.",
        ) from error
    person, pk, sha256 = given
    if (person, pk) != (actor.id, version.pk):
        raise NotFound("This address of a file was made for another person or version.")
    return str(sha256)


def media_answer(request: HttpRequest, opened: OpenedMedia) -> HttpResponse:
    """Answer with the bytes, or with the range that a player asks for."""
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
    # Of a file that is opened by itself nothing may run, whatever it holds.
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _span(header: str, total: int) -> range | None:
    """Return the one range of bytes that a header asks for; None for the whole file."""
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
