"""The gateway's reads of the database, and their frequency."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from assay.gateway.access.reading import read_snapshot
from governance.keys.models import ApiKey
from tests.unit.assay.gateway_support import DIGEST, Stage, stage
from tests.waiting import wait_until
from workers.deployments.models import Deployment, Replica

__all__ = ["stage"]

pytestmark = pytest.mark.sweep


def test_a_reading_takes_the_same_queries_however_much_there_is(
    stage: Stage, django_assert_num_queries: Any
) -> None:
    for name in ("one", "two", "three"):
        stage.deployment(name, behavior=None)
        stage.key()
    stage.limit("tokens_per_day", 5)
    # The dossiers are known since the gateway's own readings, so that none is read again.
    with django_assert_num_queries(18):
        snapshot = read_snapshot()
    assert set(snapshot.deployments) == {"one", "two", "three"}
    assert [key.limits[0].limit for key in snapshot.keys.values()] == [5, 5, 5]
    assert snapshot.policy.version == 1


def test_a_replica_counts_while_it_lives_and_has_loaded_the_approved_bytes(stage: Stage) -> None:
    stage.deployment(behavior=None)
    assert read_snapshot().deployments["writer"].ready_until > timezone.now().timestamp()
    Replica.objects.update(loaded_digest="e" * 64)
    assert read_snapshot().deployments["writer"].ready_until == 0
    Replica.objects.update(loaded_digest=DIGEST, state="loading")
    assert read_snapshot().deployments["writer"].ready_until == 0


def test_a_stopped_deployment_is_gone(stage: Stage) -> None:
    stage.deployment(behavior=None)
    Deployment.objects.update(state="stopped")
    assert read_snapshot().deployments == {}


def test_personal_tokens_are_not_read_with_the_keys_and_still_told_why(
    stage: Stage, settings: Any
) -> None:
    settings.GATEWAY_SNAPSHOT_TTL_S = 3600  # Only notices cause readings.
    key, personal = stage.key(), stage.key(None)
    assert set(read_snapshot().keys) == {key.split("_")[1]}
    refresher = stage.application.gateway.start().parts.refresher
    assert refresher.snapshot is not None

    def is_known() -> bool:
        refused = stage.post("/v1/chat/completions", personal, json={})
        assert (refused.status_code, "personal access token" in refused.text) == (401, True)
        assert refresher.snapshot is not None
        return personal.split("_")[1] in refresher.snapshot.keys

    # Its use looks it up; the next full reading drops it.
    wait_until(is_known)
    stage.notify()
    assert set(refresher.snapshot.keys) == {key.split("_")[1]}
    ApiKey.objects.filter(public_id=personal.split("_")[1]).update(revoked_at=timezone.now())
    refused = stage.post("/v1/chat/completions", personal, json={})
    assert (refused.status_code, "is revoked" in refused.text) == (401, True)
