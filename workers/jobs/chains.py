"""Chains of steps after a fine-tune: evaluations and a final release draft (`chain_drafts.py`).

A step starts once the previous one has succeeded. The controller starts it as the person who
requested the chain, authorized again under the policy in force. An error in one step stops the rest
of the chain and is recorded as a sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from governance.errors import DomainError, InvalidInput, Unavailable
from governance.people.selectors import principal_for_person
from governance.principals import Principal
from registry.catalog import get_task
from registry.datasets.models import DatasetVersion
from registry.versions.models import Model, ModelVersion
from workers.jobs.chain_drafts import (
    chain_draft_add,
    chain_draft_advance,
    chain_draft_checked,
    chain_draft_stop,
    record_stop,
    refusal_reason,
)
from workers.jobs.models import (
    ChainDraft,
    ChainDraftState,
    ChainLink,
    ChainState,
    Job,
    JobPriority,
    JobState,
)
from workers.jobs.requests import check_data, evaluate_request, fine_tune_request
from workers.jobs.states import TERMINAL

logger = logging.getLogger(__name__)
LINKS_MAX = 5
_BATCH = 20


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation of a new chain, on `dataset_version` or on its first `max_rows` rows."""

    dataset_version: DatasetVersion
    max_rows: int | None = None


@transaction.atomic
def fine_tune_then(
    *,
    actor: Principal,
    model: Model,
    then: Sequence[Step] = (),
    release: Mapping[str, Any] | None = None,
    **request: Any,
) -> Job:
    """Queue a fine-tune as `fine_tune_request` does, and the steps that follow it: evaluations, and
    with `release` a release draft with its `environment`, `departments` and `deployment_name`.

    Raises:
        InvalidInput: more than `LINKS_MAX` evaluations, data that do not fit, or no rows.
        DomainError: see `fine_tune_request` and `chain_draft_checked`.
    """
    measured = [step.dataset_version for step in then]
    job = fine_tune_request(actor=actor, model=model, measured=measured, **request)
    content = chain_checked(actor, model, then, release)
    ChainLink.objects.bulk_create(
        ChainLink(
            first=job,
            position=position,
            dataset_version=step.dataset_version,
            max_rows=step.max_rows,
            after=job if position == 1 else None,
        )
        for position, step in enumerate(then, 1)
    )
    if content is not None:
        chain_draft_add(job, content, after=None if then else job)
    return job


def chain_checked(
    actor: Principal, model: Model, then: Sequence[Step], release: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Check the steps of a chain; return the initial content of its release draft, or None.

    Raises:
        DomainError: see `fine_tune_then`, apart from the fine-tune itself.
    """
    if len(then) > LINKS_MAX:
        raise _invalid(f"A chain has at most {LINKS_MAX} evaluations.")
    if then and get_task(model.task).evaluation is None:
        raise _invalid(f"{model.name} is of task {model.task}, which is not evaluated.")
    for step in then:
        check_data(actor, model, step.dataset_version)
        if step.max_rows is not None and step.max_rows < 1:
            raise _invalid("An evaluation needs at least one row.")
    return None if release is None else chain_draft_checked(actor, model, release)


def _invalid(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, fields={"then": [sentence]})


def chains_advance() -> int:
    """Start or stop every step whose previous job is over; return the number of steps."""
    links = ChainLink.objects.filter(state=ChainState.WAITING, after__state__in=TERMINAL)
    drafts = ChainDraft.objects.filter(state=ChainDraftState.WAITING, after__state__in=TERMINAL)
    due: list[tuple[Callable[[int], None], int]] = [
        # In random order, so that steps that fail repeatedly do not hold up others for long.
        *((_advance, key) for key in links.order_by("?").values_list("pk", flat=True)[:_BATCH]),
        *(
            (chain_draft_advance, key)
            for key in drafts.order_by("?").values_list("pk", flat=True)[:_BATCH]
        ),
    ]
    for advance, key in due:
        try:
            advance(key)
        except Unavailable as error:
            logger.warning("Step %d of a chain waits: %s", key, error.message)
        except Exception:
            logger.exception("Step %d of a chain failed", key)
    return len(due)


@transaction.atomic
def _advance(key: int) -> None:
    link = (
        ChainLink.objects.select_for_update(of=("self",), skip_locked=True)
        .select_related("first__created_by", "first__department", "after", "dataset_version")
        .filter(pk=key, state=ChainState.WAITING)
        .first()
    )
    if link is None or link.after is None:
        return
    if link.after.state != JobState.SUCCEEDED:
        _stop(link, f"{link.after.title} ended as {link.after.state}.")
        return
    try:
        job = _start(link)
    except Unavailable:
        raise
    except DomainError as error:
        _stop(link, refusal_reason(error))
        return
    link.job, link.state, link.decided_at = job, ChainState.STARTED, timezone.now()
    link.save(update_fields=["job", "state", "decided_at"])
    following = ChainLink.objects.filter(first=link.first, position=link.position + 1)
    if not following.update(after=job):
        ChainDraft.objects.filter(first=link.first).update(after=job)


@transaction.atomic
def _start(link: ChainLink) -> Job:
    made = int((link.first.result or {})["version"])
    version = ModelVersion.objects.select_related("model__department").get(pk=made)
    return evaluate_request(
        actor=principal_for_person(link.first.created_by),
        version=version,
        dataset_version=link.dataset_version,
        max_rows=link.max_rows,
        # High priority needs a separate permission, which may cover only the first job.
        priority=JobPriority(min(link.first.priority, JobPriority.NORMAL)),
    )


def _stop(link: ChainLink, reason: str) -> None:
    """Stop the link and all that follow it."""
    ChainLink.objects.filter(
        first=link.first, position__gte=link.position, state=ChainState.WAITING
    ).update(state=ChainState.STOPPED, reason=reason[:500], decided_at=timezone.now())
    chain_draft_stop(link.first, reason)
    record_stop(link.first, reason, position=link.position)


def chain_of(job: Job) -> tuple[Job, list[ChainLink]]:
    """Return the first job of the job's chain, and the chain's links in order.

    The list is empty if no evaluations follow the job.
    """
    own = ChainLink.objects.select_related("first").filter(job=job).first()
    first = job if own is None else own.first
    links = first.chain.select_related("dataset_version__dataset", "job").order_by("position")
    return first, list(links)


def chain_draft_of(first: Job) -> ChainDraft | None:
    """Return the release draft that ends the chain of `first`, or None."""
    return ChainDraft.objects.filter(first=first).first()
