"""Everything in the artifact store that is needed: named by a version, an intake, an index, a
document, a dataset version, or a job that is not over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from governance.errors import InvalidInput
from registry import store
from registry.intake.models import Intake
from registry.knowledge.models import KnowledgeIndex
from registry.manifests import Manifest
from registry.storage.folder import FolderBackend
from registry.storage.upgrade import is_old, store_upgrade
from registry.versions.models import ModelVersion
from workers.jobs.models import Job

logger = logging.getLogger(__name__)


def recorded_manifests() -> Iterator[tuple[str, Manifest | None]]:
    """Yield every recorded manifest, None if it cannot be read, after words that say what it
    belongs to."""
    for pk, data in ModelVersion.objects.values_list("pk", "manifest").iterator():
        yield _read(f"model version {pk}", data)
    intakes = Intake.objects.exclude(manifest=None)
    for pk, data in intakes.values_list("pk", "manifest").iterator():
        yield _read(f"intake {pk}", data)
    for pk, data in KnowledgeIndex.objects.values_list("pk", "manifest").iterator():
        yield _read(f"index {pk}", data)
    jobs = Job.objects.exclude(result=None).exclude(result__manifest=None)
    for job, data in jobs.values_list("pk", "result__manifest").iterator():
        yield _read(f"job {job}", data)


def _read(owner: str, data: Any) -> tuple[str, Manifest | None]:
    try:
        return owner, Manifest.from_json(data)
    except InvalidInput:
        return owner, None


def store_move_to_layout() -> None:
    """Move a folder of the first layout into the present one, if this installation has one."""
    backend = store.backend()
    if isinstance(backend, FolderBackend) and is_old(backend):
        known = {each.digest: each for _, each in recorded_manifests() if each is not None}
        done = store_upgrade(backend, known)
        logger.info(
            "Moved %d versions and %d files of the artifact store to their SHA-256; %d stay.",
            done.versions,
            done.files,
            len(done.left),
        )
