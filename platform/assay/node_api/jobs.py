"""The control plane of a node's compute workers. `workers/remote/jobs.py` is its client."""

from __future__ import annotations

from uuid import UUID

from assay.node_api.endpoint import NodeRoutes
from workers.control.jobs import (
    CheckpointBody,
    Claim,
    ClaimReply,
    DeliverBody,
    FailBody,
    JobStateAnswer,
    Lease,
    Reports,
)
from workers.control.messages import WorkerBody
from workers.jobs.leases import job_canceled, job_heartbeat, job_paused, job_report
from workers.nodes.job_side import (
    node_job_checkpoint,
    node_job_claim,
    node_job_deliver,
    node_job_fail,
)
from workers.nodes.models import Node

routes = NodeRoutes()


@routes.post("jobs/<uuid:job_id>/claim", "Claim the job that is first in line")
def job_claim(node: Node, job_id: UUID, body: WorkerBody) -> ClaimReply:
    """Claim the next job, which may differ from the one in the path that woke the worker."""
    taken = node_job_claim(node=node, job_id=job_id, worker=body.worker)
    return ClaimReply() if taken is None else ClaimReply(claim=taken[0], order=taken[1])


@routes.job("heartbeat", "Renew a job's lease")
def job_lease(claim: Claim) -> Lease:
    return Lease(job_heartbeat(claim))


@routes.job("reports", "Report on a job")
def job_reports(claim: Claim, body: Reports) -> Lease:
    return Lease(job_report(claim, reports=body.reports, phase=body.phase))


@routes.job("checkpoints", "Record a checkpoint")
def job_checkpoint(claim: Claim, body: CheckpointBody) -> None:
    node_job_checkpoint(claim=claim, name=body.name, manifest=body.manifest, remaining=body.there)


@routes.job("deliver", "Deliver a result")
def job_deliver(claim: Claim, body: DeliverBody) -> JobStateAnswer:
    return JobStateAnswer(state=node_job_deliver(claim=claim, sha256=body.result))


@routes.job("fail", "Fail an attempt")
def job_fail(claim: Claim, body: FailBody) -> JobStateAnswer:
    return JobStateAnswer(state=node_job_fail(claim=claim, **dict(body)))


@routes.job("canceled", "Confirm that a job stopped")
def job_cancels(claim: Claim) -> None:
    job_canceled(claim)


@routes.job("paused", "Confirm that a run stopped after its checkpoint")
def job_pauses(claim: Claim) -> JobStateAnswer:
    return JobStateAnswer(state=job_paused(claim))
