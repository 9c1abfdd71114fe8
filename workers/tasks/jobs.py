"""The compute worker's one task: `celery -A workers.app worker -I workers.tasks.jobs -Q compute
-P prefork -c JOBS`. The message carries only a job's id; coming twice, it runs once.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket

from governance.errors import DomainError, Unavailable
from governance.principals import serving
from workers.app import app
from workers.jobs import workspace
from workers.jobs.leases import (
    Claim,
    LeaseLost,
    job_cancelled,
    job_claim,
    job_deliver,
    job_fail,
)
from workers.tasks.execution import execute
from workers.tasks.progress import LeasedProgress
from workers.trainers.protocol import BadMaterial, Cancelled
from workers.wire import JOB_TASK

logger = logging.getLogger(__name__)


@app.task(name=JOB_TASK)  # type: ignore[untyped-decorator]
def run(job_id: str) -> None:
    """Claim the job and run it; return at once if it is not claimable."""
    with serving(f"job-{job_id}"[:64]):
        _run(job_id)


def _run(job_id: str) -> None:
    claim = job_claim(job_id=job_id, worker=f"{socket.gethostname()}:{os.getpid()}")
    if claim is None:
        logger.info("Job %s is not claimable", job_id)
        return
    logger.info("Job %s: %s, attempt %d", job_id, claim.title, claim.attempt)
    try:
        run_claim(claim)
    except LeaseLost as error:
        logger.warning("%s", error.message)
    finally:
        shutil.rmtree(workspace.inputs_folder(claim.job_id, claim.fence), ignore_errors=True)


def run_claim(claim: Claim) -> None:
    """Run a claimed job and hand over how it ended.

    Raises:
        LeaseLost: it is another worker's by now; nothing was delivered.
    """
    retry, sentence = False, ""
    with LeasedProgress(claim) as progress:
        try:
            result = execute(claim, progress)
        except Cancelled:
            result = None
        except BadMaterial as error:
            result, sentence = None, str(error)
        except DomainError as error:
            result, sentence, retry = None, error.message, isinstance(error, Unavailable)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # A panic of the tokenizers library is no Exception.
            logger.exception("Job %s broke", claim.job_id)
            result, sentence, retry = None, f"{type(error).__name__}: {error}", True
    if progress.lost:
        raise LeaseLost(f"Job {claim.title!r}: the lease could not be kept; nothing was delivered.")
    if sentence:
        job_fail(claim, sentence, retry=retry)
    elif result is None and progress.cancelled:
        job_cancelled(claim)
    elif result is None:
        job_fail(claim, "The run stopped without a request to stop.", retry=True)
    else:
        job_deliver(claim, result)
