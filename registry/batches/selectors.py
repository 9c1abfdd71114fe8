"""Queries for batches."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db.models import Count, QuerySet

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from registry.batches.models import Batch, BatchState, LineState
from registry.files.selectors import Page, page_after


class BatchUnknown(NotFound):
    """The batch does not exist, or the caller may not know of it."""

    code = "batch_not_found"


def batches_visible_to(actor: Principal, sender: str = "") -> QuerySet[Batch]:
    """Return the batches that `actor` may see, the newest first; with `sender`, the public ID of a
    key, only the batches of that key.
    """
    rows = Batch.objects.select_related("department")
    if sender:
        rows = rows.filter(sender=sender)
    return visible_to(actor, Action.BATCH_VIEW, rows, resource_type="batch")


def batch_get(*, actor: Principal, id: str, sender: str = "") -> Batch:  # noqa: A002
    """Return a batch; `sender` as for `batches_visible_to`.

    Raises:
        BatchUnknown: the batch does not exist, or `actor` may not see it.
    """
    # PostgreSQL rejects NUL even in comparisons.
    batch = None if "\0" in id else batches_visible_to(actor, sender).filter(pk=id[:64]).first()
    if batch is None:
        raise BatchUnknown(f"Batch {id[:64]!r} does not exist, or belongs to another department.")
    return batch


def batch_list(*, actor: Principal, sender: str = "", after: str = "", limit: int) -> Page:
    """Return up to `limit` batches that follow the batch with the ID `after`, the newest first;
    `sender` as for `batches_visible_to`.

    Raises:
        InvalidInput: the batch `after` does not exist.
    """
    return page_after(
        batches_visible_to(actor, sender), after=after, limit=limit, newest_first=True
    )


def batch_failures(batch: Batch) -> list[tuple[str, int]]:
    """Return the number of failed lines by code, the most frequent first."""
    if batch.ended_at is None:
        lines = batch.lines.filter(state=LineState.DONE).exclude(error="")
        counts = dict(lines.values_list("error").annotate(count=Count("pk")))
    else:
        counts = dict(batch.failures)
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def batch_moments(batch: Batch) -> list[tuple[str, datetime]]:
    """Return the labels of the states that a batch has reached, with times, in order of time."""
    reached = [(batch.created_at, BatchState.VALIDATING)]
    reached += [
        (datetime.fromtimestamp(seconds, UTC), BatchState(state))
        for state, seconds in sorted(batch.reached.items(), key=lambda each: each[1])
    ]
    return [(str(state.label), moment) for moment, state in reached]


def batch_as_json(batch: Batch) -> dict[str, Any]:
    """Return the batch in OpenAI's format."""
    reached = batch.reached
    errors = {"object": "list", "data": batch.errors} if batch.errors else None
    moments = {
        f"{state.value}_at": reached.get(state.value)
        for state in BatchState
        if state is not BatchState.VALIDATING
    }
    return {
        "id": batch.pk,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model or None,
        "errors": errors,
        "input_file_id": batch.input_file,
        "completion_window": "24h",
        "status": batch.state,
        "output_file_id": batch.output_file or None,
        "error_file_id": batch.error_file or None,
        "created_at": int(batch.created_at.timestamp()),
        "expires_at": int(batch.expires_at.timestamp()),
        **moments,
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "metadata": batch.metadata or None,
    }
