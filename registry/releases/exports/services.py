"""Export a release's dossier in one of several formats."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from governance.errors import WrongState
from governance.principals import Principal
from governance.rowsecurity import lifted
from registry.canonical import canonical_json, json_digest
from registry.releases.evidence_mlbom import mlbom
from registry.releases.exports.page import dossier_html
from registry.releases.exports.pdf import dossier_pdf
from registry.releases.exports.people import named_sections
from registry.releases.exports.spdx import spdx_document
from registry.releases.models import Release
from registry.releases.selectors import release_get
from registry.validation import checked_choice


class Format(NamedTuple):
    """One export format; `make` gives the same bytes for the same dossier and names of people."""

    title: str
    about: str
    suffix: str
    content_type: str
    make: Callable[[Release], bytes]


FORMATS = {
    "pdf": Format(
        "PDF",
        "To read, to print and to file.",
        "pdf",
        "application/pdf",
        lambda release: dossier_pdf(
            release.dossier,
            named_sections(release.dossier),
            digest=release.dossier_digest,
            frozen_at=release.created_at,
        ),
    ),
    "html": Format(
        "HTML",
        "One page to read and to print.",
        "html",
        "text/html; charset=utf-8",
        lambda release: dossier_html(
            release.dossier, named_sections(release.dossier), release.dossier_digest
        ),
    ),
    "json": Format(
        "JSON",
        "Exactly the bytes that approvals name; their SHA-256 is the digest.",
        "json",
        "application/json",
        lambda release: canonical_json(release.dossier),
    ),
    "cyclonedx": Format(
        "CycloneDX 1.6",
        "The model as a bill of materials.",
        "cdx.json",
        "application/vnd.cyclonedx+json; version=1.6",
        mlbom,
    ),
    "spdx": Format(
        "SPDX 3.0.1",
        "Model, files and data with the AI and dataset profiles.",
        "spdx.json",
        "application/spdx+json",
        spdx_document,
    ),
}


@dataclass(frozen=True, slots=True)
class Export:
    """The file, and its name, which contains the beginning of the digest."""

    name: str
    content_type: str
    content: bytes

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.content).digest()


def release_export(*, actor: Principal, release_id: int, format: str) -> Export:  # noqa: A002
    """Return the frozen dossier in one of `FORMATS`, for anyone who may see the release.

    Raises:
        InvalidInput: the format is unknown.
        NotFound: the release does not exist, or the policy refuses.
        WrongState: the dossier does not have its digest.
    """
    chosen = FORMATS[checked_choice(format, list(FORMATS), field="format")]
    release = release_get(actor=actor, id=release_id)
    if json_digest(release.dossier) != release.dossier_digest:
        raise WrongState(
            f"The dossier of release {release.pk} does not have the digest that was decided on; "
            "it was not exported.",
            hint="`assay audit verify` shows whether the log is intact.",
        )
    # The dossier may name objects of other departments, such as the base.
    with lifted():
        content = chosen.make(release)
    return Export(
        name=f"assay-release-{release.pk}-{release.dossier_digest[:12]}.{chosen.suffix}",
        content_type=chosen.content_type,
        content=content,
    )
