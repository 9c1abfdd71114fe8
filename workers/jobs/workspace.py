"""Folders of a job: `ASSAY_DATA_DIR`/work/<job>/, shared by workers and the controller."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path
from uuid import UUID

from django.conf import settings

logger = logging.getLogger(__name__)
# Days for which the checkpoints of a failed or paused job are kept.
RETENTION_DAYS = 7


def job_folder(job_id: UUID) -> Path:
    """Return the folder of a job, which is removed when the job is over."""
    return Path(settings.DATA_DIR) / "work" / str(job_id)


def attempt_folder(job_id: UUID, fence: int) -> Path:
    """Return the folder that only this holder of the lease reads and writes."""
    return job_folder(job_id) / str(fence)


def inputs_folder(job_id: UUID, fence: int) -> Path:
    """Return the folder of the attempt's own verified copies of its inputs."""
    return attempt_folder(job_id, fence) / "inputs"


def output_folder(job_id: UUID, fence: int) -> Path:
    """Return the folder of the attempt's output."""
    return attempt_folder(job_id, fence) / "output"


def checkpoints_folder(job_id: UUID) -> Path:
    """Return the folder of checkpoints, which all attempts of the job share to resume."""
    return job_folder(job_id) / "checkpoints"


def discard(job_id: UUID, *, keep_checkpoints: bool = False) -> None:
    """Remove the folder of a job that is over; optionally keep its checkpoints for a retry."""
    if not keep_checkpoints:
        shutil.rmtree(job_folder(job_id), ignore_errors=True)
        return
    checkpoints = checkpoints_folder(job_id)
    for path in job_folder(job_id).glob("*"):
        if path != checkpoints:
            shutil.rmtree(path, ignore_errors=True)


def checkpoints_move(old: UUID, new: UUID) -> None:
    """Move checkpoints from job `old` to `new` if that has none; on failure, `new` starts over."""
    if checkpoints_folder(new).exists():
        return
    try:
        job_folder(new).mkdir(parents=True, exist_ok=True)
        checkpoints_folder(old).rename(checkpoints_folder(new))
    except OSError as error:
        logger.warning("Job %s starts without the checkpoints of %s: %s", new, old, error)


def folders() -> list[UUID]:
    """Return the jobs that have a folder."""
    jobs = []
    for path in (Path(settings.DATA_DIR) / "work").glob("*"):
        with contextlib.suppress(ValueError):
            jobs.append(UUID(path.name))
    return jobs
