"""Chains: evaluations that follow a fine-tune, each after the one before it has succeeded.

The controller starts each as the person who requested the chain, authorized anew under the policy
in force. Whatever prevents one stops the rest of its chain, with a sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from governance.audit.services import audit_record
from governance.errors import (
    DomainError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    Unavailable,
)
from governance.people.selectors import principal_for_person
from governance.principals import Principal, background, service_principal
from registry.catalog import get_task
from registry.datasets.models import DatasetVersion
from registry.versions.models import Model, ModelVersion
from workers.jobs.models import ChainLink, ChainState, Job, JobPriority, JobState
from workers.jobs.requests import check_data, evaluate_request, fine_tune_request
from workers.jobs.states import TERMINAL, job_subject

logger = logging.getLogger(__name__)
LINKS_MAX = 5
_BATCH = 20
_CONTROLLER = service_principal("controller")


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation of a new chain, on `dataset_version` or on its first `max_rows` rows."""

    dataset_version: DatasetVersion
    max_rows: int | None = None


@transaction.atomic
def fine_tune_then(
    *, actor: Principal, model: Model, then: Sequence[Step] = (), **request: Any
) -> Job:
    """Queue a fine-tune as `fine_tune_request` does, and the evaluations that follow it.

    Raises:
        InvalidInput: more than `LINKS_MAX` evaluations, data that do not fit, or no rows.
        DomainError: as `fine_tune_request`.
    """
    job = fine_tune_request(actor=actor, model=model, **request)
    if len(then) > LINKS_MAX:
        raise _invalid(f"A chain has at most {LINKS_MAX} evaluations.")
    if then and get_task(model.task).evaluation is None:
        raise _invalid(f"{model.name} is of task {model.task}, which is not evaluated.")
    for step in then:
        check_data(actor, model, step.dataset_version)
        if step.max_rows is not None and step.max_rows < 1:
            raise _invalid("An evaluation measures at least one row.")
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
    return job


def _invalid(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, fields={"then": [sentence]})


def chains_advance() -> int:
    """Start or stop every link whose job before it is over; returns how many it acted on."""
    due = ChainLink.objects.filter(state=ChainState.WAITING, after__state__in=TERMINAL)
    keys = list(due.order_by("pk").values_list("pk", flat=True)[:_BATCH])
    for key in keys:
        try:
            _advance(key)
        except Unavailable as error:
            logger.warning("Link %d of a chain waits: %s", key, error.message)
        except Exception:
            # One that fails holds up no other; it is tried again.
            logger.exception("Link %d of a chain failed", key)
    return len(keys)


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
        _stop(link, _why_not(error))
        return
    link.job, link.state, link.decided_at = job, ChainState.STARTED, timezone.now()
    link.save(update_fields=["job", "state", "decided_at"])
    ChainLink.objects.filter(first=link.first, position=link.position + 1).update(after=job)


@transaction.atomic
def _start(link: ChainLink) -> Job:
    made = int((link.first.result or {})["version"])
    version = ModelVersion.objects.select_related("model__department").get(pk=made)
    return evaluate_request(
        actor=principal_for_person(link.first.created_by),
        version=version,
        dataset_version=link.dataset_version,
        max_rows=link.max_rows,
        # High is a right of its own, and may have been given to the first job alone.
        priority=JobPriority(min(link.first.priority, JobPriority.NORMAL)),
    )


def _why_not(error: DomainError) -> str:
    """Return why a step was refused, without a name: audit events keep it forever."""
    if isinstance(error, (NotAuthenticated, NotFound, NotPermitted)):
        return "The person who requested it may not start it now, or may not see what it needs."
    return f"It cannot start now: {error.message}"


def _stop(link: ChainLink, reason: str) -> None:
    """Stop the link and all that follow it."""
    ChainLink.objects.filter(
        first=link.first, position__gte=link.position, state=ChainState.WAITING
    ).update(state=ChainState.STOPPED, reason=reason[:500], decided_at=timezone.now())
    with background(f"job-{link.first_id}", _CONTROLLER):
        audit_record(
            actor=_CONTROLLER,
            action="job:stop_chain",
            subject=job_subject(link.first),
            outcome="failed",
            reason=reason[:500],
            department=link.first.department.slug,
            data={"position": link.position},
        )


def chain_of(job: Job) -> tuple[Job, list[ChainLink]]:
    """Return the first job of the chain that the job is part of, and the links in their order.

    The list is empty for a job without a chain.
    """
    own = ChainLink.objects.select_related("first").filter(job=job).first()
    first = job if own is None else own.first
    links = first.chain.select_related("dataset_version__dataset", "job").order_by("position")
    return first, list(links)
