"""The compute worker's only task: `celery -A workers.app worker -I workers.celery_tasks.jobs
-Q compute -P threads -c JOBS`. A message only wakes a worker, which claims the first job in line.

The task supervises the work, which runs in a separate process (`workers.run`).
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from celery.signals import worker_ready, worker_shutdown
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from governance.errors import Unavailable
from governance.principals import serving
from registry.storage import store
from workers import tracing
from workers.app import app
from workers.broker import node_client
from workers.celery_tasks.capacity import machine_memory
from workers.control.direct_jobs import DirectJobs, StoreFiles
from workers.control.jobs import Files, JobControl, LeaseLost, NoAnswer
from workers.launchers.local import LocalLauncher
from workers.launchers.protocol import Launcher
from workers.launchers.slurm import SlurmLauncher, SlurmSettings
from workers.offers.reporting import OfferReports
from workers.offers.values import Offers
from workers.remote.jobs import NodeFiles, RemoteJobs
from workers.supervision.supervisor import Supervisor
from workers.wire import JOB_TASK

logger = logging.getLogger(__name__)
# Interval between searches for runs that no worker supervises.
LOST_RUNS_S = 60.0
# Limit on a worker's name without the node's name, which the control plane puts before it.
WORKER_CHARACTERS = 79


@cache
def supervisor() -> Supervisor:
    """Return the supervisor of this process."""
    control, files = job_control()
    return Supervisor(
        control=control, files=files, launcher=launcher(), threads=settings.COMPUTE_THREADS
    )


def job_control() -> tuple[JobControl, Files]:
    """Return the control plane of this process: over HTTP on a node, else through its services.

    Raises:
        InvalidInput: the node's URL or key file is not usable.
    """
    if not settings.NODE_URL:
        return DirectJobs(), StoreFiles()
    client = node_client()
    files = NodeFiles(client, store.cache(), work_folder())
    return RemoteJobs(client, files), files


def work_folder() -> Path:
    """Return the folder of all runs of this installation, or of this node.

    Nodes may share a file system and a cluster. The control plane tells a node only about its own
    jobs, so in a shared folder a node would mistake runs of other nodes for lost ones.

    Raises:
        InvalidInput: the node's URL or key file is not usable.
    """
    folder = Path(settings.DATA_DIR) / "work"
    return folder / node_client().node if settings.NODE_URL else folder


def launcher() -> Launcher:
    """Return the launcher named in the settings. Raises ImproperlyConfigured."""
    if settings.LAUNCHER == "local":
        return LocalLauncher(machine_memory() * settings.JOB_MEMORY_PERCENT // 100)
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
    if settings.LAUNCHER == "kubernetes":
        # These imports take 2 s, and other launchers do not need them.
        from workers.launchers.kubernetes import KubernetesLauncher
        from workers.launchers.trainjobs import KubernetesSettings

        return KubernetesLauncher(
            KubernetesSettings(
                namespace=settings.KUBERNETES_NAMESPACE,
                root=Path(settings.DATA_DIR) / "work",
                runtime=settings.KUBERNETES_RUNTIME,
                device=settings.KUBERNETES_DEVICE,
                queue=settings.KUBERNETES_QUEUE,
                wait_minutes=settings.KUBERNETES_WAIT_MINUTES,
                config=settings.KUBERNETES_CONFIG,
            )
        )
    raise ImproperlyConfigured(
        f"ASSAY_LAUNCHER={settings.LAUNCHER!r} is not local, slurm or kubernetes."
    )


@worker_ready.connect  # type: ignore[untyped-decorator]
def _begin_traces(**_: Any) -> None:
    # Celery logs "succeeded" even for a failed attempt; the supervisor logs the real outcome.
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    tracing.start("assay-compute")


@worker_ready.connect  # type: ignore[untyped-decorator]
def _begin_ending_lost_runs(**_: Any) -> None:
    if settings.LAUNCHER != "local":
        threading.Thread(target=_end_lost_runs, name="lost-runs", daemon=True).start()


def _end_lost_runs() -> None:
    own_supervisor = supervisor()
    while True:
        try:
            own_supervisor.end_lost(work_folder())
        except (Unavailable, NoAnswer) as error:
            logger.warning("The search for lost runs failed: %s", error)
        except Exception:
            logger.exception("The search for lost runs failed")
        finally:
            own_supervisor.control.close()
        time.sleep(LOST_RUNS_S)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _end_traces(**_: Any) -> None:
    tracing.stop()


def own_name() -> str:
    """Return the name under which this process claims jobs."""
    return f"compute@{socket.gethostname()}-{os.getpid()}"[:WORKER_CHARACTERS]


def _report(offers: Offers) -> None:
    control = supervisor().control
    control.tasks_report(own_name(), offers)


_reports = OfferReports(_report, lambda: supervisor().control.close())


@worker_ready.connect  # type: ignore[untyped-decorator]
def _begin_reports(**_: Any) -> None:
    _reports.start()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _end_reports(**_: Any) -> None:
    _reports.close()


@app.task(name=JOB_TASK)  # type: ignore[untyped-decorator]
def run(job_id: str) -> None:
    """Claim a job and run it; return immediately if no job is claimable."""
    own_supervisor = supervisor()
    began_ns = time.time_ns()
    if not _reports.begun():
        # The control plane would assign jobs of any task to a worker that has not reported its own.
        logger.warning("Woken for job %s before the tasks of this worker were reported", job_id)
        return
    claimed = own_supervisor.control.claim(job_id, own_name())
    if claimed is None:
        logger.info("Woken for job %s: no job is claimable", job_id)
        return
    claim, order = claimed
    traced = tracing.job_attempt(
        job_id=claim.job_id, kind=claim.kind, attempt=claim.attempt, claim_began_ns=began_ns
    )
    with serving(f"job-{claim.job_id}"), traced:
        logger.info("Job %s: %s, attempt %d", claim.job_id, claim.title, claim.attempt)
        try:
            own_supervisor.run(claim, order)
        except LeaseLost as error:
            logger.warning("%s", error.message)
        except NoAnswer as error:
            # The job's lease runs out, and the controller queues it again.
            logger.warning("Job %s was not handed over: %s", claim.job_id, error)
