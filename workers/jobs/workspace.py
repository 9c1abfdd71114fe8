"""Folders of a job: `ASSAY_DATA_DIR`/work/<job>/, shared by workers and the controller."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path
from uuid import UUID

from django.conf import settings

logger = logging.getLogger(__name__)
# For so long the checkpoints of a failed or paused job are kept.
KEPT_DAYS = 7


def job_folder(job_id: UUID) -> Path:
    """Everything of one job; removed when it is over."""
    return Path(settings.DATA_DIR) / "work" / str(job_id)


def attempt_folder(job_id: UUID, fence: int) -> Path:
    """Return the folder that one holder of the lease reads and writes, and no other."""
    return job_folder(job_id) / str(fence)


def inputs_folder(job_id: UUID, fence: int) -> Path:
    """The attempt's own verified copy of what it reads."""
    return attempt_folder(job_id, fence) / "inputs"


def output_folder(job_id: UUID, fence: int) -> Path:
    """Return the folder of the attempt's output."""
    return attempt_folder(job_id, fence) / "output"


def checkpoints_folder(job_id: UUID) -> Path:
    """Shared by all attempts, so that a later one resumes."""
    return job_folder(job_id) / "checkpoints"


def discard(job_id: UUID, *, keep_checkpoints: bool = False) -> None:
    """Remove what is left of a job that is over; its checkpoints may be kept for a retry."""
    if not keep_checkpoints:
        shutil.rmtree(job_folder(job_id), ignore_errors=True)
        return
    checkpoints = checkpoints_folder(job_id)
    for path in job_folder(job_id).glob("*"):
        if path != checkpoints:
            shutil.rmtree(path, ignore_errors=True)


def checkpoints_move(old: UUID, new: UUID) -> None:
    """Move the checkpoints of one job to another that has none; without them it starts over."""
    if checkpoints_folder(new).exists():
        return
    try:
        job_folder(new).mkdir(parents=True, exist_ok=True)
        checkpoints_folder(old).rename(checkpoints_folder(new))
    except OSError as error:
        logger.warning("Job %s starts without the checkpoints of %s: %s", new, old, error)


def folders() -> list[UUID]:
    """Return the jobs that have a folder."""
    found = []
    for path in (Path(settings.DATA_DIR) / "work").glob("*"):
        with contextlib.suppress(ValueError):
            found.append(UUID(path.name))
    return found
