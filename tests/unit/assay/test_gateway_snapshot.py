"""The gateway's reads of the database, and their frequency."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assay.gateway.access import reading as reading_module
from assay.gateway.access.reading import advance, read_keys, read_snapshot
from governance.keys.models import ApiKey
from registry.releases.models import Release, ReleaseState
from tests.unit.assay.gateway_support import DIGEST, Stage, stage
from tests.waiting import wait_until
from workers.deployments.models import Deployment, Replica, ServingLease

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
    with django_assert_num_queries(21):
        snapshot = read_snapshot()
    assert set(snapshot.deployments) == {"one", "two", "three"}
    assert [limit.limit for limit in snapshot.limits] == [5]
    assert snapshot.policy.version == 1
    assert not snapshot.unread
    with django_assert_num_queries(2):
        keys = read_keys(snapshot.limits_by, [key.public_id for key in ApiKey.objects.all()[1:]])
    assert [key.limits[0].limit for key in keys.values()] == [5, 5]


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


def test_a_reading_without_changes_takes_two_queries(
    stage: Stage, django_assert_num_queries: Any
) -> None:
    stage.deployment(behavior=None)
    snapshot = read_snapshot()
    with django_assert_num_queries(2):
        reading = advance(snapshot)
    assert (reading.keys, reading.deployments, reading.whole) == (frozenset(), frozenset(), False)
    assert reading.snapshot.deployments is snapshot.deployments
    assert reading.snapshot.read_at > snapshot.read_at


def test_a_change_is_read_alone(stage: Stage) -> None:
    for name in ("one", "two"):
        stage.deployment(name, behavior=None)
    snapshot = read_snapshot()
    Release.objects.filter(deployment_name="one").update(state=ReleaseState.WITHDRAWN)
    reading = advance(snapshot)
    assert reading.deployments == {"one"}
    assert "is withdrawn" in reading.snapshot.deployments["one"].obstacle
    assert reading.snapshot.deployments["two"] is snapshot.deployments["two"]
    # The next reading has nothing new.
    assert advance(reading.snapshot).deployments == frozenset()


def test_deployments_that_a_change_could_not_be_read_for_are_read_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot is as old as the change meanwhile."""
    for name in ("one", "two", "three"):
        stage.deployment(name, behavior=None)
    snapshot = read_snapshot()
    Release.objects.update(state=ReleaseState.WITHDRAWN)
    monkeypatch.setattr(reading_module, "CHUNK", 2)
    first = advance(snapshot).snapshot
    assert (len(first.unread), first.read_at) == (1, snapshot.read_at)
    second = advance(first).snapshot
    assert second.read_at > snapshot.read_at
    assert all("is withdrawn" in entry.obstacle for entry in second.deployments.values())


def test_leases_and_heartbeats_move_without_a_change(stage: Stage) -> None:
    stage.deployment(behavior=None)
    snapshot = read_snapshot()
    entry = snapshot.deployments["writer"]
    leased_until, ready_until = entry.leased_until, entry.ready_until
    ServingLease.objects.update(servable_until=F("servable_until") + timedelta(minutes=1))
    Replica.objects.update(heartbeat_at=F("heartbeat_at") + timedelta(minutes=1))
    reading = advance(snapshot)
    assert (reading.deployments, entry.leased_until) == (frozenset(), leased_until)
    advance(reading.snapshot, liveness=True)
    assert entry.leased_until > leased_until + 50
    assert entry.ready_until > ready_until + 50


def test_a_deployment_that_no_change_named_is_found_with_the_leases(stage: Stage) -> None:
    stage.deployment("one", behavior=None)
    snapshot = read_snapshot()
    two = stage.deployment("two", behavior=None)
    forgotten = replace(read_snapshot(), deployments=snapshot.deployments, names=snapshot.names)
    assert advance(forgotten).deployments == frozenset()
    assert advance(forgotten, liveness=True).snapshot.names[two.pk] == "two"


def test_after_a_restart_of_the_database_everything_is_read_again(stage: Stage) -> None:
    """Its last transactions may be lost, and others may have their IDs."""
    stage.deployment(behavior=None)
    snapshot = read_snapshot()
    assert snapshot.position is not None
    elsewhere = replace(snapshot, position=replace(snapshot.position, server="another"))
    Release.objects.update(state=ReleaseState.WITHDRAWN)
    stage.limit("tokens_per_day", 5)
    first = advance(elsewhere)
    assert (first.lost, first.whole, len(first.snapshot.limits)) == (True, True, 1)
    # The snapshot keeps its age while deployments are unread.
    assert first.snapshot.read_at == snapshot.read_at
    second = advance(first.snapshot)
    assert not second.lost
    assert "is withdrawn" in second.snapshot.deployments["writer"].obstacle
    assert second.snapshot.read_at > snapshot.read_at


def test_a_change_without_a_notice_is_in_force_within_moments(stage: Stage) -> None:
    """No service makes these changes, so that nothing is published."""
    stage.deployment()
    token = stage.key()
    body = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}]}
    assert stage.post("/v1/chat/completions", token, json=body).status_code == 200
    Release.objects.update(state=ReleaseState.WITHDRAWN)
    wait_until(lambda: stage.post("/v1/chat/completions", token, json=body).status_code == 403)
    ApiKey.objects.update(revoked_at=timezone.now())
    wait_until(lambda: stage.post("/v1/chat/completions", token, json=body).status_code == 401)


def test_personal_tokens_are_told_why_they_are_refused(stage: Stage) -> None:
    personal = stage.key(None)
    refused = stage.post("/v1/chat/completions", personal, json={})
    assert (refused.status_code, "personal access token" in refused.text) == (401, True)
    ApiKey.objects.filter(public_id=personal.split("_")[1]).update(revoked_at=timezone.now())
    wait_until(lambda: "is revoked" in stage.post("/v1/chat/completions", personal, json={}).text)


# Columns whose updates are no changes, because neither the snapshot nor the one rule reads them, or
# because they only postpone an end.
UNWATCHED = {
    "governance_apikey": {
        "created_at", "created_by_id", "last_used_at", "owner_id", "proof_method", "proved_at",
        "purpose", "revoked_reason", "rotated_from_id",
    },
    "governance_department": {"created_at", "jobs_at_once", "name"},
    "workers_deployment": {
        "canary_verdict", "created_at", "created_by_id", "message", "queue_age_s",
        "replicas_max", "replicas_wanted", "required_device", "required_labels", "routed_at",
        "stopped_at", "targets_revision",
    },
    "workers_node": {
        "broker_denials", "conflict_at", "created_at", "created_by_id", "facts", "joined_at",
        "seen_at",
    },
    "workers_placement": {"reason", "since"},
    "workers_replica": {"failures", "message", "retry_at", "started_at"},
    "workers_workerkey": {
        "code", "device", "devices", "engines", "environments", "labels", "memory",
        "registered_at", "seen_at",
    },
}  # fmt: skip
# Tables that are read and not watched, with the reason.
UNCHANGING = {
    "governance_change": "they are the changes",
    "governance_changehorizon": "they are the changes",
    "governance_policyversion": "it is read each time",
    "registry_datasetversion": "rows never change",
    "registry_knowledgeindex": "rows never change",
    "governance_reviewpolicy": "a review keeps its policy, which never changes",
}


def test_each_table_that_is_read_tells_of_its_changes(stage: Stage) -> None:
    """Otherwise neither the snapshot nor the one rule would know of a change."""
    stage.deployment(behavior=None)
    stage.limit("tokens_per_day", 5)
    token = stage.key()
    with CaptureQueriesContext(connection) as queries:
        snapshot = read_snapshot()
        read_keys(snapshot.limits_by, [token.split("_")[1], "unknown"])
    texts = " ".join(query["sql"] for query in queries)
    with connection.cursor() as cursor:
        tables = set(connection.introspection.table_names(cursor))
        cursor.execute(
            "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger"
            " WHERE tgname LIKE 'assay\\_%changed' OR tgname LIKE 'assay\\_session\\_%'"
        )
        triggers: dict[str, str] = {}
        for table, definition in cursor.fetchall():
            triggers[table] = triggers.get(table, "") + definition
    read = set(re.findall(r'(?:FROM|JOIN) "?(\w+)"?', texts)) & tables
    assert {"registry_release", "governance_apikey", "workers_replica"} <= read
    assert read - triggers.keys() == UNCHANGING.keys() & read
    for table, columns in UNWATCHED.items():
        with connection.cursor() as cursor:
            names = {
                column.name
                for column in connection.introspection.get_table_description(cursor, table)
            }
        watched = set(re.findall(r'old\."?(\w+)', triggers[table]))
        assert names - watched - {"id"} == columns, table


def test_deployments_that_change_all_the_time_hold_up_no_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot grows no older than a change that waits for its turn."""
    names = ("one", "two", "three", "four")
    rows = {name: stage.deployment(name, behavior=None) for name in names}
    snapshot = read_snapshot()
    monkeypatch.setattr(reading_module, "CHUNK", 1)
    release = Release.objects.filter(pk=rows["four"].release_id)
    release.update(state=ReleaseState.WITHDRAWN)
    others = Deployment.objects.exclude(name="four")
    read_at = []
    for number in range(len(names)):
        others.update(replicas_min=number % 2)
        Replica.objects.update(state=("ready", "loading")[number % 2])
        snapshot = advance(snapshot).snapshot
        read_at.append(snapshot.read_at)
    assert "is withdrawn" in snapshot.deployments["four"].obstacle
    assert read_at == sorted(read_at)
    for _ in range(len(names)):
        snapshot = advance(snapshot).snapshot
    assert snapshot.read_at > read_at[-1]
