"""Input schemas of uploads."""

from __future__ import annotations

from pydantic import Field

from governance.bounds import FILENAME_MAX, NAME_MAX
from governance.schemas import Choice, Line, Schema, Slug
from registry.uploads.models import UploadKind


class NewUpload(Schema):
    """A file to upload for `target`, the name of a model (intake) or dataset. The `sha256` of the
    whole file is verified after the last byte.
    """

    kind: Choice[UploadKind]
    target: Slug = Field(max_length=NAME_MAX)
    filename: Line = Field(max_length=FILENAME_MAX)
    size: int = Field(ge=1, le=2**63 - 1)
    sha256: Line | None = Field(default=None, max_length=64)
