"""A disk that is full, a bucket that is gone: a sentence, nothing half stored; a retry works."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from registry.versions.models import ModelVersion
from tests.unit.assay.node_support import node_made
from tests.unit.assay.test_node_jobs import (
    ComputeNode,
    intake_job,
    output,
    patched,
    sha256,
    upload_base,
)
from tests.unit.assay.test_node_serving import EngineNode, deployed, node
from tests.unit.registry.test_store_bucket import bucket, server
from workers.deployments import reconciler
from workers.deployments.models import Replica
from workers.jobs.finishing import job_finish
from workers.jobs.models import JobState

__all__ = ["bucket", "node", "server"]

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
CONTENT = b"0123456789" * 10_000


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process grows beyond 50,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_node_delivers_to_a_full_disk_is_refused_and_sent_again(tmp_path: Path) -> None:
    node_made(tmp_path)
    compute = ComputeNode(tmp_path)
    claim, _ = compute.claimed(intake_job())
    caller = Client(headers={"authorization": f"Bearer {compute.client.session().token}"})
    address = f"{upload_base(claim)}/arrivals/{sha256(CONTENT)}"
    with full_disk():
        first = patched(caller, address, CONTENT, len(CONTENT))
        here = caller.get(address, {"size": len(CONTENT)}).json()["offset"]
        again = patched(caller, address, CONTENT[here:], len(CONTENT), here)
    assert {first.status_code, again.status_code} <= {200, 503}
    assert again.status_code == 503, "the disk is full"
    assert "cannot be written" in again.json()["detail"]
    here = caller.get(address, {"size": len(CONTENT)}).json()["offset"]
    assert here <= 50_000
    done = patched(caller, address, CONTENT[here:], len(CONTENT), here)
    assert done.json() == {"offset": len(CONTENT), "complete": True}


def test_a_result_waits_for_a_bucket_that_is_gone(
    bucket: str, tmp_path: Path, settings: Any
) -> None:
    node_made(tmp_path)
    compute = ComputeNode(tmp_path)
    job = intake_job()
    claim, _ = compute.claimed(job)
    compute.jobs.deliver(claim, output(compute, claim))
    right, settings.STORE_URL = settings.STORE_URL, "s3://gone-altogether/assay"
    assert job_finish(job.pk) == JobState.FINISHING
    job.refresh_from_db()
    assert "has no bucket" in job.error
    assert not ModelVersion.objects.exists()
    settings.STORE_URL = right
    assert job_finish(job.pk) == JobState.SUCCEEDED


def test_a_load_into_a_cache_without_room_fails_with_the_reason_and_is_tried_again(
    node: EngineNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed(CONTENT)
    with full_disk():
        node.reconcile()
    replica = Replica.objects.get()
    assert (replica.state, replica.failures) == ("failed", 1)
    assert "cache cannot be written" in replica.message
    tried_again(node, monkeypatch)


def tried_again(node: EngineNode, monkeypatch: pytest.MonkeyPatch) -> None:
    later = reconciler.time.monotonic() + 10
    monkeypatch.setattr(reconciler.time, "monotonic", lambda: later)
    node.reconcile()
    assert Replica.objects.get().state == "ready"


def test_a_load_from_a_bucket_that_is_gone_fails_with_the_reason_and_is_tried_again(
    bucket: str, node: EngineNode, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed()
    right, settings.STORE_URL = settings.STORE_URL, "s3://gone-altogether/assay"
    node.reconcile()
    replica = Replica.objects.get()
    assert (replica.state, replica.failures) == ("failed", 1)
    assert "has no bucket" in replica.message
    settings.STORE_URL = right
    tried_again(node, monkeypatch)
