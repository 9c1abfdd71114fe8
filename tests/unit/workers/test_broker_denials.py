"""The controller sees what the broker denies to nodes, once, bounded and by name."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from redis.exceptions import NoPermissionError

from governance.audit.models import AuditEvent
from tests.unit.workers import company
from tests.unit.workers.test_broker_access import Stage, broker, stage
from workers.deployments.alarms import broker_denials
from workers.deployments.models import Replica
from workers.nodes.broker_denials import (
    ACTION,
    broker_denials_record,
    denials_total,
    node_denials,
)
from workers.nodes.models import Node
from workers.nodes.services import node_enroll, node_join, node_revoke
from workers.wire import deployment_queue

__all__ = ["broker", "stage"]
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def log(stage: Stage, broker: Any, settings: Any) -> None:
    """The controller's connection to this broker, whose log is empty."""
    settings.REDIS_URL = broker.url_of("controller")
    stage.admin.acl_log_reset()


def denied(stage: Stage, *command: str | bytes, times: int = 1) -> None:
    with stage.signed_in() as own:
        for _ in range(times):
            with pytest.raises(NoPermissionError):
                own.execute_command(*command)


def found(stage: Stage) -> set[str]:
    stage.node.refresh_from_db()
    return {str(each) for each in node_denials(stage.node, timedelta(hours=1))}


def test_denied_commands_are_counted_once_and_name_node_and_command(stage: Stage) -> None:
    foreign = deployment_queue(stage.theirs)
    denied(stage, "KEYS", "*", times=3)
    denied(stage, "BRPOP", foreign, "1")
    assert broker_denials_record() == 4
    assert broker_denials_record() == 0
    assert found(stage) == {"keys (3)", f"brpop {foreign} (1)"}
    assert broker_denials().startswith("The broker denied gpu-1: ")
    assert "keys (3)" in broker_denials()
    event = AuditEvent.objects.get(action=ACTION)
    assert (event.subject_id, event.outcome) == ("gpu-1", "denied")
    assert "keys (3)" in event.reason
    assert f"brpop {foreign} (1)" in event.reason
    # The same again is no new event, and the broker counts it in the same entry.
    denied(stage, "KEYS", "*", times=2)
    assert broker_denials_record() == 2
    assert "keys (5)" in found(stage)
    assert denials_total(stage.node) == 6
    assert AuditEvent.objects.filter(action=ACTION).count() == 1
    assert Node.objects.get(name="gpu-2").broker_denials == {}


def test_what_others_are_denied_and_wrong_passwords_are_not_the_nodes(stage: Stage) -> None:
    with pytest.raises(NoPermissionError):
        stage.controller.execute_command("FLUSHALL")
    with suppress(Exception), stage.client(stage.node, "wrong") as stranger:
        stranger.ping()
    assert broker_denials_record() == 0
    assert broker_denials() == ""


def test_a_read_of_a_queue_that_was_just_withdrawn_is_no_fault(stage: Stage) -> None:
    copy = Replica.objects.create(
        deployment_id=stage.theirs,
        worker="gpu-1/engine@a",
        state="stopped",
        heartbeat_at=timezone.now(),
    )
    denied(stage, "BRPOP", deployment_queue(stage.theirs), "1")
    assert broker_denials_record() == 0
    denied(stage, "LRANGE", deployment_queue(stage.theirs), "0", "-1")
    assert broker_denials_record() == 1
    copy.heartbeat_at -= timedelta(hours=2)
    copy.save()
    denied(stage, "BRPOP", deployment_queue(stage.theirs), "1")
    assert broker_denials_record() == 1


def test_what_a_node_chooses_is_bounded_and_cannot_hide_the_rest(stage: Stage) -> None:
    with stage.signed_in() as own:
        own.execute_command("CLIENT", "SETNAME", "a=b=cmd=x")
        with pytest.raises(NoPermissionError):
            own.execute_command("DEL", b"\r\n\xff<b>" + b"k" * 5_000_000)
    for number in range(20):
        denied(stage, "CLIENT", "KILL", "ID", str(number))
    for command in ("info", "dbsize", "keys", "scan", "flushdb", "flushall", "lastsave", "save"):
        denied(stage, command, *(("*",) if command == "keys" else ("0",) * (command == "scan")))
    for command in ("get", "incr", "llen", "strlen", "ttl", "type", "dump", "persist", "hgetall"):
        denied(stage, command, "x")
    assert broker_denials_record() == 38
    stage.node.refresh_from_db()
    kept = stage.node.broker_denials
    assert len(kept) == 17
    assert sum(each["count"] for each in kept.values()) == 38
    assert kept["client|kill"]["count"] == 20
    assert kept["del"]["target"].startswith("\ufffd<b>kkk")
    assert max(len(each["target"]) for each in kept.values()) == 100


def test_denials_end_with_the_nodes_key(stage: Stage) -> None:
    denied(stage, "KEYS", "*")
    broker_denials_record()
    admin = company.person("ada", "admin")
    node_revoke(actor=admin, name="gpu-1", reason="Stolen")
    _, token, _ = node_enroll(actor=admin, name="gpu-1")
    node_join(token=token, public_key="ab" * 32)
    assert found(stage) == set()


def test_a_controller_that_may_not_read_the_log_says_so(stage: Stage) -> None:
    stage.admin.execute_command("ACL SETUSER", "assay_controller", "-acl|log")
    try:
        with pytest.raises(NoPermissionError, match="Write the broker's users again"):
            broker_denials_record()
    finally:
        stage.admin.execute_command("ACL SETUSER", "assay_controller", "+acl|log")


def test_without_nodes_the_log_is_not_read(settings: Any) -> None:
    Node.objects.all().delete()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert broker_denials_record() == 0
