"""Evaluations of hosted versions: their expected tokens, and checks while they run."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.errors import InvalidInput, NotFound, QuotaExceeded, WrongState
from governance.people.models import Department
from governance.quotas.kinds import amount_words
from governance.usage.records import MOST_TOKENS
from registry.catalog.columns import media_columns
from registry.catalog.declaration import Task
from registry.catalog.generation import SamplingOptions
from registry.catalog.hosted import HostedDescription
from registry.datasets.models import DatasetVersion
from registry.versions.hosted import check_cleared, check_provider_runs, hosted_of
from registry.versions.models import ModelVersion, VersionKind, VersionState
from workers.control.jobs import Claim
from workers.jobs.budgets import budget_use
from workers.jobs.leases import held
from workers.jobs.models import Job, JobKind, JobState

# High estimate of prompt tokens: one for two bytes of text, plus a constant for each request and
# each image.
_BYTES_PER_TOKEN, _TOKENS_PER_REQUEST, _TOKENS_PER_IMAGE = 2, 32, 2_048


def provider_spec(
    task: Task,
    version: ModelVersion,
    description: HostedDescription,
    data: DatasetVersion,
    *,
    max_rows: int | None,
) -> dict[str, Any]:
    """Return the provider, and the highest expected number of tokens with their prices, for an
    evaluation's spec.

    Raises:
        InvalidInput: a usage record cannot state so many tokens.
    """
    rows = data.rows if max_rows is None else max_rows
    images = _TOKENS_PER_IMAGE * len(media_columns(task.row))
    size = data.size_bytes * rows // max(data.rows, 1)
    prompt = size // _BYTES_PER_TOKEN + rows * (_TOKENS_PER_REQUEST + images)
    answers = rows
    if version.kind == VersionKind.PROMPT:
        # Also answered without the prompt, which is the baseline.
        prompt = 2 * prompt + rows * version.size_bytes // _BYTES_PER_TOKEN
        answers = 2 * rows
    completion = answers * _answer_tokens(task, description)
    if prompt + completion > MOST_TOKENS:
        raise InvalidInput(
            f"{data} may need {prompt + completion:,} tokens at {description.provider}; one "
            f"evaluation uses at most {MOST_TOKENS:,}.",
            hint="Evaluate on fewer rows, or on a smaller dataset.",
            fields={"dataset": ["Too many tokens for one evaluation."]},
        )
    return {
        "provider": {
            "name": description.provider,
            "host": description.host,
            "model": description.model,
        },
        "tokens": {
            "prompt": prompt,
            "completion": completion,
            "prompt_price": description.prices.prompt,
            "completion_price": description.prices.completion,
        },
    }


def _answer_tokens(task: Task, description: HostedDescription) -> int:
    """Return the longest answer to one row, in tokens."""
    if not {"max_tokens", "max_completion_tokens"} & set(description.parameters):
        return description.max_tokens
    files = {name: BytesIO() for name in media_columns(task.row)}
    limits = [
        options.max_tokens
        for row in task.examples
        if task.evaluation is not None
        and isinstance(options := task.evaluation.request({**row, **files})[1], SamplingOptions)
        and options.max_tokens
    ]
    return min(max(limits, default=description.max_tokens), description.max_tokens)


def provider_used(claim: Claim, *, prompt_tokens: int, completion_tokens: int) -> None:
    """Record tokens that a running evaluation used at its provider, and check that it may continue.

    Raises:
        LeaseLost: the claim no longer holds; nothing was recorded.
        WrongState: the version was recalled, or its provider has ended it.
        InvalidInput: the data may no longer be sent to the provider.
        QuotaExceeded: the tokens cost more than was reserved.
    """
    with transaction.atomic():
        job = held(claim)
        excess = budget_use(job, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    if excess:
        over = amount_words("money_per_month", excess, settings.CURRENCY)
        raise QuotaExceeded(
            f"The answers of the provider cost {over} more than was reserved for the evaluation; "
            "nothing more is sent.",
            hint="Compare the prices and the longest answer of the description with the provider's "
            "own, or evaluate on fewer rows.",
        )
    version = ModelVersion.objects.select_related("model", "base__model").get(
        pk=job.spec["version"]
    )
    for each in filter(None, (version, version.base)):
        if each.state != VersionState.TRUSTED:
            raise WrongState(f"{each} is {each.state}; nothing more is sent to its provider.")
    description = hosted_of(version)
    if description is not None:
        check_provider_runs(description)
        data = DatasetVersion.objects.select_related("dataset").get(pk=job.spec["dataset_version"])
        check_cleared(description, data)


def evaluation_department(*, worker: str, job_id: str) -> Department:
    """Return the department of an evaluation of a hosted version that `worker` runs.

    Raises:
        NotFound: the worker does not run it.
    """
    job = (
        Job.objects.select_related("department")
        .filter(
            pk=UUID(job_id),
            kind=JobKind.EVALUATE,
            state=JobState.RUNNING,
            worker=worker[:120],
            lease_until__gt=timezone.now(),
            spec__has_key="provider",
        )
        .first()
    )
    if job is None:
        raise NotFound(f"Worker {worker} does not evaluate for job {job_id}.")
    return job.department
