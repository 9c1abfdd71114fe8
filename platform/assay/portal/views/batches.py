"""Batches of requests: the list, one with its progress, canceling."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from assay.portal.access import may
from assay.portal.http import ActionScreen, Screen
from assay.portal.lists import ListScreen, states
from governance.keys.selectors import keys_visible_to
from governance.permissions import Action
from registry.batches.models import Batch, BatchState
from registry.batches.schemas import BatchFilter
from registry.batches.selectors import batch_failures, batch_get, batch_moments, batches_visible_to
from registry.batches.services import batch_cancel
from registry.batches.states import ALLOWED_TRANSITIONS, OPEN

# Errors of the input that the page shows; the API has all of them.
ERRORS_SHOWN = 20


class Batches(ListScreen):
    """Every batch that the person may see."""

    template_name = "portal/batches/list.html"
    title = "Batches"
    lead = "Files of requests that run when there is room, under the same rules as online requests."
    columns = "Batch | State | Requests | # Failed | Department | Created"
    filters = BatchFilter
    toolbar = (states(BatchState.choices),)

    def rows(self) -> QuerySet[Batch]:
        return batches_visible_to(self.actor)


class BatchPage(Screen):
    """One batch with its progress and errors."""

    template_name = "portal/batches/batch.html"

    def context(self, *, id: str, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        batch = batch_get(actor=self.actor, id=id)
        slug = batch.department.slug
        cancels = BatchState.CANCELLING in ALLOWED_TRANSITIONS[BatchState(batch.state)]
        return {
            **progress_of(batch),
            "key": keys_visible_to(self.actor).filter(public_id=batch.sender).first(),
            "errors": batch.errors[:ERRORS_SHOWN],
            "more_errors": max(0, len(batch.errors) - ERRORS_SHOWN),
            "may_cancel": cancels
            and may(self.actor, Action.BATCH_CANCEL, kind="batch", department=slug),
        }


def progress_of(batch: Batch) -> dict[str, Any]:
    """Return the part of the page that changes while the batch runs."""
    done = batch.completed + batch.failed
    return {
        "batch": batch,
        "live": batch.state in OPEN,
        "done": done,
        "left": max(0, batch.total - done),
        "failures": batch_failures(batch),
        "moments": batch_moments(batch),
        "currency": settings.CURRENCY,
    }


class BatchProgress(Screen):
    """The counts of one batch, fetched while it runs. Once it has left the state that the page
    shows, the page is loaded again: tag, button, files and errors follow the state."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        batch = batch_get(actor=self.actor, id=kwargs["id"])
        response = render(request, "portal/batches/progress.html", progress_of(batch))
        if request.GET.get("state", batch.state) != batch.state:
            # Not HX-Refresh: the page may be the answer to a form, which would be sent again.
            response["HX-Redirect"] = reverse("portal:batch", kwargs={"id": batch.pk})
        return response


class BatchCancel(BatchPage, ActionScreen):
    """Cancel a batch: start no more of its lines."""

    def act(self, *, id: str, **kwargs: Any) -> HttpResponse:  # noqa: A002
        batch_cancel(actor=self.actor, id=id)
        return self.done(
            "The batch is canceled. No more of its requests start.", "portal:batch", id=id
        )
