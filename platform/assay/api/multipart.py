"""Types for fields of forms with files."""

from __future__ import annotations

from typing import Annotated, Any

from django.core.files.uploadedfile import UploadedFile
from pydantic import WithJsonSchema

from governance.bounds import FILENAME_MAX
from governance.faults import broken_rule
from governance.schemas import rejecting

File = Annotated[
    Any,
    rejecting(lambda value: not isinstance(value, UploadedFile), "not a file"),
    rejecting(
        lambda file: not 0 < len(file.name or "") <= FILENAME_MAX,
        f"the name of the file must have 1 to {FILENAME_MAX} characters",
    ),
    WithJsonSchema({"type": "string", "format": "binary"}),
]
FilledFile = Annotated[
    File, rejecting(lambda file: not file.size, "the file is empty", broken_rule)
]
