"""Unpack archives, Parquet files and their media in a separate process, which writes to one folder
and is bounded in time, memory and bytes (`registry.sandbox.readers`).
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

# Less than the 600 s after which PostgreSQL ends the request's idle transaction.
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

    With `gather`, the name of a features column, all columns of a Parquet file are read.
    With `masks`, pixel values are recorded.

    Raises:
        InvalidInput, TooLarge: the file cannot be read or exceeds a bound; the message says where.
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
    """Write a small picture of each checked file into the empty folder `target`: `<name>.jpg` for
    an image, `<name>.mask.png` in colors for a mask. Raises as `unpack`."""
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


def _do(order: dict[str, Any]) -> None:
    if "images" in order:
        target = Path(order["target"])
        for file in map(Path, order["images"]):
            write_preview(file, target / f"{file.name}.jpg")
        for file in map(Path, order["masks"]):
            write_mask_preview(file, target / f"{file.name}.mask.png")
        return
    limit: int = order["max_bytes"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit + 1024**2, limit + 1024**2))
    kinds = frozenset(order["media"].values())
    folder = MediaFolder(
        Path(order["target"]), MediaLimits(**order["limits"]), kinds, masks=order["masks"]
    )
    if order["suffix"] == ".zip":
        unpack_archive(Path(order["source"]), folder, limit)
    else:
        unpack_parquet(
            Path(order["source"]),
            folder,
            limit,
            columns=order["columns"],
            optional=order["optional"],
            media=order["media"],
            gather=order["gather"],
        )
    folder.close()


if __name__ == "__main__":
    json.dump(bound_process(_do, json.load(sys.stdin)), sys.stdout)
