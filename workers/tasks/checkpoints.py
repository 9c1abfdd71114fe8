"""Which checkpoint of an earlier attempt a run goes on from: only one whose bytes are as recorded.

Checkpoints lie on a volume that several workers write to. The manifest of each is in the job's row,
written under the fence of the attempt that made it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from governance.errors import DomainError
from registry.manifests import Manifest, copy_verified, verify_folder
from workers.jobs import workspace
from workers.jobs.leases import Claim
from workers.jobs.models import Job
from workers.tasks.progress import LeasedProgress

_NAME = re.compile(r"checkpoint-(\d{1,12})")


def checkpoint_to_resume(claim: Claim, progress: LeasedProgress) -> Path | None:
    """Return the attempt's own verified copy of the newest checkpoint; None starts over.

    A checkpoint that was not recorded is removed. When one differs from its record, all are: the
    trainer may also load an older one, as the best, and who changed one may have seen to others.
    """
    folder = workspace.checkpoints_folder(claim.job_id)
    recorded = {
        name: Manifest.from_json(manifest)
        for name, manifest in Job.objects.values_list("checkpoints", flat=True)
        .get(pk=claim.job_id)
        .items()
    }
    for name in _names(folder):
        if name not in recorded:
            progress.log(f"{name} was not recorded when it was written; it is not used.")
            shutil.rmtree(folder / name, ignore_errors=True)
    names = _names(folder)
    if not names:
        return None
    copy = workspace.inputs_folder(claim.job_id, claim.fence) / names[-1]
    try:
        for name in names[:-1]:
            verify_folder(folder / name, recorded[name])
        copy_verified(folder / names[-1], copy, recorded[names[-1]])
    except DomainError as error:
        progress.log(
            f"A checkpoint differs from what was recorded when it was written ({error.message}) "
            "No checkpoint is used; the run starts from the beginning."
        )
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(copy, ignore_errors=True)
        return None
    return copy


def _names(folder: Path) -> list[str]:
    """The checkpoints in a folder, oldest first."""
    found = [match for path in folder.glob("*") if (match := _NAME.fullmatch(path.name))]
    return [match[0] for match in sorted(found, key=lambda match: int(match[1]))]
