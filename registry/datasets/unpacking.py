"""Archives, Parquet files and the media in them, read in a process of its own with bounds on time,
memory and bytes: what a file makes a decoder do ends with that process. It has no environment of
ours, so no address and no password of a store, and it writes to one folder.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from governance.errors import DomainError, InvalidInput, TooLarge, Unavailable
from registry.datasets.archives import unpack_archive
from registry.datasets.media_files import MediaFolder, write_mask_preview, write_preview
from registry.datasets.parquet import unpack_parquet
from registry.media.limits import MediaLimits

# The request's transaction is idle meanwhile, which PostgreSQL ends after 600 s.
SECONDS = 480
MEMORY_BYTES = 3 * 1024**3
# Of one process of ours. Further uploads wait for so long, then they are asked to come again.
AT_ONCE = 2
WAIT_S = 30.0
_slots = threading.BoundedSemaphore(AT_ONCE)


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
) -> None:
    """Unpack `source`, a `.zip` or `.parquet` file, into the empty folder `target`.

    With `gather`, the name of a column of features, all columns of a Parquet file are taken.
    With `masks`, the values of pixels are recorded.

    Raises:
        InvalidInput, TooLarge: it cannot be read or exceeds a bound; the sentence says where.
        Unavailable: too many uploads are being read.
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
        }
    )


def make_previews(images: list[Path], masks: list[Path]) -> None:
    """Write a small picture of each checked file beside it: an image's as `<name>.jpg`, a mask's in
    colors as `<name>.mask.png`."""
    _run({"images": list(map(str, images)), "masks": list(map(str, masks))})


def _run(request: dict[str, Any]) -> None:
    if not _slots.acquire(timeout=WAIT_S):
        raise Unavailable("Too many uploads are being read at this moment.", retry_after=30)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "registry.datasets.unpacking"],
            input=json.dumps({**request, "memory": MEMORY_BYTES}).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                "LANG": "C.UTF-8",
                "PATH": os.defpath,
                # Threads of libraries reserve memory each, and count against the bound.
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "ARROW_DEFAULT_MEMORY_POOL": "system",
            },
            timeout=SECONDS,
            check=True,
        )
        error = json.loads(done.stdout)
    except subprocess.TimeoutExpired as expired:
        raise InvalidInput(
            f"Reading the file took longer than {SECONDS} seconds.",
            hint="Send fewer rows or files at a time.",
        ) from expired
    except (subprocess.CalledProcessError, ValueError) as broken:
        raise InvalidInput(
            "The file broke the process that reads it, or needed more than "
            f"{MEMORY_BYTES / 1024**3:g} GiB of memory.",
            hint="Check the file for damage, or send less at a time.",
        ) from broken
    finally:
        _slots.release()
    if error:
        kind = TooLarge if error["status"] == TooLarge.status else InvalidInput
        raise kind(
            error["message"],
            code=error["code"],
            hint=error["hint"],
            fields={"file": [error["message"]]},
        )


def main() -> None:
    """Do what standard input asks; what was refused goes to standard output."""
    given = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (given["memory"], given["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    error: dict[str, Any] | None = None
    try:
        _do(given)
    except DomainError as refused:
        error = {
            "status": refused.status,
            "code": refused.code,
            "message": refused.message,
            "hint": refused.hint,
        }
    json.dump(error, sys.stdout)


def _do(given: dict[str, Any]) -> None:
    if "images" in given:
        for name in given["images"]:
            write_preview(Path(name), Path(f"{name}.jpg"))
        for name in given["masks"]:
            write_mask_preview(Path(name), Path(f"{name}.mask.png"))
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
    main()
