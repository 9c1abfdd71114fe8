"""Folders of a job: `ASSAY_DATA_DIR`/work/<job>/, shared by workers and the controller."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

from django.conf import settings


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


def discard(job_id: UUID) -> None:
    """Remove what is left of a job that is over."""
    shutil.rmtree(job_folder(job_id), ignore_errors=True)
