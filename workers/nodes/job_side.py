"""Limit a node's compute workers to their claimed jobs and the files of their orders."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from governance.errors import InvalidInput, NotFound, WrongState
from registry.manifests import Manifest
from workers.control.direct_jobs import DirectJobs
from workers.control.jobs import Cause, Claim
from workers.jobs import workspace
from workers.jobs.arrivals import arrival_read, arrivals_locked, arrivals_place
from workers.jobs.leases import (
    attempts_left,
    claim_of,
    job_checkpoint,
    job_claim,
    job_deliver,
    job_fail,
)
from workers.jobs.line import Bound
from workers.jobs.models import Job, JobState
from workers.jobs.resources import GIB
from workers.nodes.engine_side import worker_of
from workers.nodes.models import Node, NodeState
from workers.nodes.order_files import JobFile, order_file, order_files_write
from workers.nodes.states import node_working
from workers.run.order import Order
from workers.run.outcome import MAX_RESULT_BYTES

logger = logging.getLogger(__name__)
# A message may stay in the queue for this long after its job has ended.
_LATELY = timedelta(hours=1)


def node_job_claim(*, node: Node, job_id: UUID, worker: str) -> tuple[Claim, Order] | None:
    """Claim the first job in line for a worker of the node; return None if none is claimable.

    `job_id` comes from the message that woke the worker.

    Raises:
        InvalidInput: the worker's name is not valid.
        NotAuthenticated: the node was revoked.
        NotFound: no recent message named the job.
        WrongState: the node gets no new work, or runs the maximum number of jobs.
    """
    rows = Job.objects.filter(
        Q(dispatches__gt=0) | Q(started_at__isnull=False),
        Q(finished_at__isnull=True) | Q(finished_at__gte=timezone.now() - _LATELY),
        pk=job_id,
    )
    if not rows.exists():
        raise NotFound(f"No recent message named a job {job_id}.")
    name = worker_of(node, worker)
    with node_working(node) as state:
        if state is not NodeState.ENROLLED:
            raise WrongState(f"Node {node.name} is {state}; it gets no new jobs.")
        claim = job_claim(job_id=job_id, worker=name, bound=_bound(node))
    order = None if claim is None else DirectJobs().order(claim)
    if claim is None or order is None:
        return None
    try:
        order_files_write(claim, order)
    except (OSError, sqlite3.Error) as error:
        logger.warning("The files of job %s cannot be written down: %s", claim.job_id, error)
        sentence = f"The control plane has no folder for the attempt: {error}."
        job_fail(claim, sentence, retry=True, cause=Cause.MACHINE)
        return None
    return claim, order


def _bound(node: Node) -> Bound:
    """Return the node's bounds for jobs. A node without devices runs processes on its CPUs."""
    memory = node.facts.get("memory_bytes", 0) // GIB
    return Bound(
        node.prefix,
        settings.NODE_JOBS_AT_ONCE,
        devices=len(node.facts.get("devices", ())) or None,
        memory_gib=memory or None,
    )


def node_job(*, node: Node, job_id: UUID, fence: int) -> Claim:
    """Return the claim of a running job that a worker of the node has under `fence`.

    Raises:
        NotFound: no worker of the node has claimed the job.
    """
    job = Job.objects.filter(
        pk=job_id, fence=fence, state=JobState.RUNNING, worker__startswith=node.prefix
    ).first()
    if job is None:
        raise NotFound(f"Node {node.name} holds no job {job_id} under fence {fence}.")
    return claim_of(job)


def node_job_fail(
    *, claim: Claim, sentence: str, retry: bool, cause: Cause = Cause.WORK, lines: str = ""
) -> JobState:
    """End an attempt without a result.

    Even without `retry`, attempts follow until they are used up: one node must not decide that a
    job cannot succeed.

    Raises:
        LeaseLost: the claim no longer holds.
    """
    left = attempts_left(Job.objects.get(pk=claim.job_id))
    return job_fail(claim, sentence, retry=retry or left, cause=cause, lines=lines)


def node_job_file(*, node: Node, job_id: UUID, fence: int, sha256: str) -> JobFile:
    """Return the location of a file of a claimed job's order.

    Raises:
        NotFound: the order has no such file, or no worker of the node has claimed the job.
    """
    claim = node_job(node=node, job_id=job_id, fence=fence)
    file = order_file(claim, sha256)
    if file is None:
        raise NotFound(f"The order of job {job_id} names no file {sha256[:12]}….")
    return file


def node_job_checkpoint(
    *, claim: Claim, name: str, manifest: Manifest, remaining: Collection[str]
) -> None:
    """Store and record a checkpoint whose files have arrived; remove those not in `remaining`.

    Raises:
        InvalidInput: a file has not arrived.
        ArrivalsBusy: another request works on the attempt's files.
        LeaseLost: the claim no longer holds.
    """
    folder = workspace.checkpoints_folder(claim.job_id)
    with arrivals_locked(claim) as ledger:
        arrivals_place(claim, manifest=manifest, target=folder / name)
        job_checkpoint(claim, name=name, manifest=manifest.to_json(), remaining={*remaining, name})
        for old in folder.iterdir():
            if old.name not in {*remaining, name}:
                shutil.rmtree(old, ignore_errors=True)
        ledger.forget()


def node_job_deliver(*, claim: Claim, sha256: str) -> JobState:
    """Deliver the result in the arrived file `sha256`; the output files have arrived, too.

    Raises:
        InvalidInput: the result is malformed, or a file has not arrived.
        ArrivalsBusy: another request works on the attempt's files.
        LeaseLost: the claim no longer holds.
    """
    try:
        result = json.loads(arrival_read(claim, sha256=sha256, most=MAX_RESULT_BYTES))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The result is not JSON.") from error
    if not isinstance(result, dict):
        raise InvalidInput("The result is not an object.")
    with arrivals_locked(claim) as ledger:
        if "manifest" in result:
            manifest = Manifest.from_json(result["manifest"])
            target = workspace.output_folder(claim.job_id, claim.fence)
            arrivals_place(claim, manifest=manifest, target=target)
        state = job_deliver(claim, result)
        ledger.forget()
    return state
