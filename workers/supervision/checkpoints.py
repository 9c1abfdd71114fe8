"""Choose the checkpoint that a run resumes from: only one whose bytes match its record.

Checkpoints are on a volume that several workers may write to. Their manifests are in the job's row,
written under the fence of the attempt that made them.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from governance.errors import DomainError
from registry.manifests import Manifest, copy_verified, verify_folder
from workers.run.order import Order
from workers.supervision.lease import LeaseKeeper

_NAME = re.compile(r"checkpoint-(\d{1,12})")


def checkpoint_copy(order: Order, folder: Path, target: Path, lease: LeaseKeeper) -> Path | None:
    """Copy and verify the newest recorded checkpoint in `folder` into `target`; return its folder.

    Return None if the run must start from the beginning. Unrecorded checkpoints are removed. If one
    differs from its record, all are removed: the trainer may also load an older one, as the best,
    and an intruder who changed one may have changed others.
    """
    recorded = {name: Manifest.from_json(manifest) for name, manifest in order.checkpoints.items()}
    for name in _names(folder):
        if name not in recorded:
            lease.log(f"{name} was not recorded when it was written; it is not used.")
            shutil.rmtree(folder / name, ignore_errors=True)
    names = _names(folder)
    if not names:
        return None
    copy = target / names[-1]
    try:
        for name in names[:-1]:
            verify_folder(folder / name, recorded[name])
        copy_verified(folder / names[-1], copy, recorded[names[-1]])
    except DomainError as error:
        lease.log(
            f"A checkpoint differs from what was recorded when it was written ({error.message}) "
            "No checkpoint is used; the run starts from the beginning."
        )
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(copy, ignore_errors=True)
        return None
    return copy


def _names(folder: Path) -> list[str]:
    """Return the names of checkpoints in a folder, oldest first."""
    matches = [match for path in folder.glob("*") if (match := _NAME.fullmatch(path.name))]
    return [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]
