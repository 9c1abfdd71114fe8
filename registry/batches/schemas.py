"""Input schemas of batches."""

from __future__ import annotations

from governance.schemas import Filter
from registry.batches.models import BatchState


class BatchFilter(Filter):
    """Filters of the list of batches."""

    state: BatchState | None = None
