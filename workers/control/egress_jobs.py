"""Job operations of an egress worker, which claims only evaluations of hosted versions."""

from __future__ import annotations

from workers.control.direct_jobs import DirectJobs, answered
from workers.control.jobs import Claim
from workers.jobs.hosted import provider_used
from workers.jobs.leases import job_claim_first
from workers.run.order import Order


class EgressJobs(DirectJobs):
    """Implements `workers.egress.evaluations.EvaluationControl`."""

    @answered
    def claim_first(self, worker: str) -> tuple[Claim, Order] | None:
        claim = job_claim_first(worker=worker, egress=True)
        order = None if claim is None else self.order(claim)
        return None if claim is None or order is None else (claim, order)

    @answered
    def used(self, claim: Claim, *, prompt_tokens: int, completion_tokens: int) -> None:
        provider_used(claim, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
