"""Files of datasets: JSON lines, and archives in the layout of ImageFolder and AudioFolder."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any


def media_archive(files: list[tuple[str, bytes]], texts: list[str]) -> bytes:
    """Return an archive of the files, and of a `metadata.csv` with one text for each file."""
    stream, table = io.BytesIO(), io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file_name", "text"])
    with zipfile.ZipFile(stream, "w") as archive:
        for (name, content), text in zip(files, texts, strict=True):
            archive.writestr(zipfile.ZipInfo(name), content)
            writer.writerow([name, text])
        archive.writestr(zipfile.ZipInfo("metadata.csv"), table.getvalue())
    return stream.getvalue()


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the rows as JSON lines."""
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
