"""The compute worker's one task: `celery -A workers.app worker -I workers.tasks.jobs -Q compute
-P threads -c JOBS`. A message only wakes a worker, which claims the job that is first in line.

The task supervises; the work runs in a process of its own (`workers.run`).
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from functools import cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from governance.principals import serving
from workers.app import app
from workers.control.direct_jobs import DirectJobs, StoreFiles
from workers.control.jobs import LeaseLost
from workers.launchers.local import LocalLauncher
from workers.launchers.protocol import Launcher
from workers.launchers.slurm import SlurmLauncher, SlurmSettings
from workers.supervision.supervisor import Supervisor
from workers.wire import JOB_TASK

logger = logging.getLogger(__name__)


@cache
def supervisor() -> Supervisor:
    """Return the supervisor of this process."""
    return Supervisor(
        control=DirectJobs(),
        files=StoreFiles(),
        launcher=launcher(),
        threads=settings.COMPUTE_THREADS,
    )


def launcher() -> Launcher:
    """Return the launcher that the settings name. Raises ImproperlyConfigured."""
    if settings.LAUNCHER == "local":
        return LocalLauncher()
    if settings.LAUNCHER == "slurm":
        return SlurmLauncher(
            SlurmSettings(
                python=settings.SLURM_PYTHON or sys.executable,
                partition=settings.SLURM_PARTITION,
                account=settings.SLURM_ACCOUNT,
                gpus=settings.SLURM_GPUS,
                port=settings.SLURM_PORT,
            )
        )
    raise ImproperlyConfigured(f"ASSAY_LAUNCHER={settings.LAUNCHER!r} is not local or slurm.")


@app.task(name=JOB_TASK)  # type: ignore[untyped-decorator]
def run(job_id: str) -> None:
    """Claim a job and run it; return at once if none is claimable."""
    supervises = supervisor()
    worker = f"{socket.gethostname()}:{os.getpid()}"
    taken = supervises.control.claim(job_id, worker)
    if taken is None:
        logger.info("Woken for job %s: no job is claimable", job_id)
        return
    claim, order = taken
    with serving(f"job-{claim.job_id}"):
        logger.info("Job %s: %s, attempt %d", claim.job_id, claim.title, claim.attempt)
        try:
            supervises.run(claim, order)
        except LeaseLost as error:
            logger.warning("%s", error.message)
