"""Archives, Parquet files and the media in them, read in a process of its own with bounds on time,
memory and bytes (`registry.sandbox.readers`). It writes to one folder.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from registry.datasets.archives import unpack_archive
from registry.datasets.media_files import MediaFolder, write_mask_preview, write_preview
from registry.datasets.parquet import unpack_parquet
from registry.media.limits import MediaLimits
from registry.sandbox.readers import Reach, bound_process, run_bounded, upload_places

# The request's transaction is idle meanwhile, which PostgreSQL ends after 600 s.
SECONDS = 480
MEMORY_BYTES = 3 * 1024**3
_places = upload_places()


def unpack(
    *,
    source: Path,
    suffix: str,
    target: Path,
    limits: MediaLimits,
    max_bytes: int,
    columns: list[str],
    optional: list[str],
    media: dict[str, str],
    gather: str = "",
    masks: bool = False,
    owner: str = "",
) -> None:
    """Unpack `source`, a `.zip` or `.parquet` file, into the empty folder `target`, for `owner`.

    With `gather`, the name of a column of features, all columns of a Parquet file are taken.
    With `masks`, the values of pixels are recorded.

    Raises:
        InvalidInput, TooLarge: it cannot be read or exceeds a bound; the sentence says where.
        QuotaExceeded, Unavailable: too many uploads are being read.
    """
    _run(
        {
            "source": str(source),
            "suffix": suffix,
            "target": str(target),
            "limits": asdict(limits),
            "max_bytes": max_bytes,
            "columns": columns,
            "optional": optional,
            "media": media,
            "gather": gather,
            "masks": masks,
        },
        Reach(read=[source], own=[target]),
        owner,
    )


def make_previews(images: list[Path], masks: list[Path], target: Path, *, owner: str = "") -> None:
    """Write a small picture of each checked file into the empty folder `target`: an image's as
    `<name>.jpg`, a mask's in colors as `<name>.mask.png`. Raises as `unpack`."""
    files = [*images, *masks]
    request = {
        "images": list(map(str, images)),
        "masks": list(map(str, masks)),
        "target": str(target),
    }
    _run(request, Reach(read=files, own=[target]), owner)


def _run(request: dict[str, Any], reach: Reach, owner: str) -> None:
    run_bounded(
        "registry.datasets.unpacking",
        request,
        reach=reach,
        seconds=SECONDS,
        memory_bytes=MEMORY_BYTES,
        places=_places,
        owner=owner,
    )


def _do(given: dict[str, Any]) -> None:
    if "images" in given:
        target = Path(given["target"])
        for file in map(Path, given["images"]):
            write_preview(file, target / f"{file.name}.jpg")
        for file in map(Path, given["masks"]):
            write_mask_preview(file, target / f"{file.name}.mask.png")
        return
    limit: int = given["max_bytes"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit + 1024**2, limit + 1024**2))
    kinds = frozenset(given["media"].values())
    folder = MediaFolder(
        Path(given["target"]), MediaLimits(**given["limits"]), kinds, masks=given["masks"]
    )
    if given["suffix"] == ".zip":
        unpack_archive(Path(given["source"]), folder, limit)
    else:
        unpack_parquet(
            Path(given["source"]),
            folder,
            limit,
            columns=given["columns"],
            optional=given["optional"],
            media=given["media"],
            gather=given["gather"],
        )
    folder.close()


if __name__ == "__main__":
    json.dump(bound_process(_do, json.load(sys.stdin)), sys.stdout)
