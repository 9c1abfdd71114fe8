"""A node's user of the broker reaches what is the node's, for as long as its session lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis as redis_module
from django.utils import timezone
from redis.exceptions import AuthenticationError, NoPermissionError

from assay.local.services import Valkey
from tests.unit.assay.node_support import place
from tests.unit.assay.test_broker_users import FORBIDDEN
from tests.unit.workers import company
from tests.unit.workers.nodes import Machine, joined
from tests.unit.workers.releases import adapter, release
from tests.waiting import PATIENCE_S
from workers.deployments.models import Replica, ReplicaState
from workers.deployments.services import deployment_create
from workers.nodes.broker_access import BrokerAccess, broker_user
from workers.nodes.models import Node, NodeSession
from workers.nodes.services import node_cordon, node_revoke
from workers.placement.models import Placement
from workers.wire import (
    alive_key,
    cancel_channel,
    deployment_queue,
    dropped_key,
    load_key,
    presence_key,
    replica_queue,
    reply_stream,
    worker_address,
)

pytestmark = pytest.mark.django_db
GATEWAY = "assay:reply:5e"


@pytest.fixture(scope="module")
def broker() -> Iterator[Valkey]:
    valkey = Valkey()
    yield valkey
    valkey.stop()


class Stage:
    """A broker, the controller's rounds, and two machines with a deployment each."""

    def __init__(self, broker: Valkey) -> None:
        self._broker = broker
        self.admin = redis_module.Redis.from_url(broker.url)
        self.controller = redis_module.Redis.from_url(broker.url_of("controller"))
        self.access = BrokerAccess(self.controller, refresh_s=3600)
        self.machine, self.node = joined("gpu-1")
        self.other_machine, self.other = joined("gpu-2")
        self.token = self.machine.sign_in()
        self.other_machine.sign_in()
        self.own, self.theirs = self._deployed("docs"), self._deployed("notes")
        place(self.own, "gpu-1/engine@a")
        place(self.theirs, "gpu-2/engine@a")

    def _deployed(self, name: str) -> int:
        made = release(adapter(name.encode()), name)
        return deployment_create(actor=company.developer(), release_id=made.pk).pk

    def client(self, node: Node, password: str) -> redis_module.Redis:
        """A process of a machine."""
        path = self._broker.url.partition("@")[2]
        return redis_module.Redis(
            unix_socket_path=path,
            username=broker_user(node.realm),
            password=password,
            retry=None,
        )

    def signed_in(self) -> redis_module.Redis:
        return self.client(self.node, self.machine.broker_password)

    def close(self) -> None:
        for name in self.admin.acl_users():
            if name.startswith("assay_node_"):
                self.admin.acl_deluser(name)
        self.admin.flushall()
        self.admin.close()
        self.controller.close()


@pytest.fixture
def stage(broker: Valkey, redis: Any) -> Iterator[Stage]:
    made = Stage(broker)
    made.access.run()
    yield made
    made.close()


def test_a_node_reads_its_queues_and_answers_on_its_streams(stage: Stage) -> None:
    own, realm = stage.signed_in(), stage.node.realm
    queue = deployment_queue(stage.own)
    stage.admin.lpush(queue, "one")
    assert own.brpop([queue, "compute", "engine.none"], timeout=1) == (queue.encode(), b"one")
    of_one = replica_queue(queue, "ab" * 32)
    stage.admin.lpush(of_one, "two")
    assert own.brpop([of_one, queue], timeout=1) == (of_one.encode(), b"two")
    stream = reply_stream(GATEWAY, realm)
    own.xadd(stream, {"id": "r"}, maxlen=10, approximate=True)
    own.expire(stream, 60)
    own.set(alive_key(worker_address(realm, "ab")), "1", px=5000)
    own.delete(alive_key(worker_address(realm, "ab")))
    own.set(load_key(realm, "engine@a"), b"{}", px=5000)
    own.delete(load_key(realm, "engine@a"))
    own.zadd(presence_key(realm), {"engine@a": 1})
    own.zremrangebyscore(presence_key(realm), "-inf", 0)
    own.zadd(dropped_key(realm), {"engine@a": 1})
    with own.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(cancel_channel(realm), "assay:deployments")
        heard.get_message(timeout=0.1)
        stage.admin.publish(cancel_channel(realm), "req")
        found = None
        while found is None:
            found = heard.get_message(timeout=1)
        assert found["data"] == b"req"


def test_a_node_cannot_reach_what_is_another_nodes_or_the_control_planes(stage: Stage) -> None:
    own, other = stage.signed_in(), stage.other.realm
    queue, foreign = deployment_queue(stage.own), deployment_queue(stage.theirs)
    denied: tuple[tuple[Any, ...], ...] = (
        # Another deployment's queue, also together with its own.
        ("BRPOP", foreign, "1"), ("BRPOP", queue, foreign, "1"), ("LPUSH", foreign, "x"),
        ("BRPOP", replica_queue(foreign, "ab" * 32), "1"),
        ("LLEN", foreign), ("DEL", foreign), ("LRANGE", foreign, "0", "-1"),
        # Replies of others, to others, and of its own process to read.
        ("XADD", reply_stream(GATEWAY, other), "*", "id", "r"), ("XADD", GATEWAY, "*", "id", "r"),
        ("XREAD", "STREAMS", GATEWAY, "0"), ("XRANGE", GATEWAY, "-", "+"),
        ("XREAD", "STREAMS", reply_stream(GATEWAY, stage.node.realm), "0"),
        ("DEL", GATEWAY), ("EXPIRE", GATEWAY, "1"), ("XTRIM", GATEWAY, "MAXLEN", "0"),
        # Cancellations, and notices to anyone.
        ("PUBLISH", cancel_channel(other), "r"), ("PUBLISH", "assay:cancel", "r"),
        ("PUBLISH", "assay:snapshot", ""), ("PUBLISH", cancel_channel(stage.node.realm), "r"),
        ("SUBSCRIBE", cancel_channel(other)), ("SUBSCRIBE", "assay:cancel"),
        ("PSUBSCRIBE", "*"), ("SUBSCRIBE", "assay:snapshot"),
        # Signs of life of others.
        ("SET", alive_key("ab"), "1"), ("DEL", alive_key(worker_address(other, "ab"))),
        ("SET", load_key("", "engine@a"), "{}"), ("SET", load_key(other, "engine@a"), "{}"),
        ("ZADD", "assay:workers", "1", "engine@a"), ("ZREM", presence_key(other), "engine@a"),
        # Its queues keep their type and their messages; jobs are queued by others.
        ("SET", queue, "x"), ("DEL", queue), ("EXPIRE", queue, "1"), ("LPUSH", "compute", "x"),
        ("LPUSH", queue, "x"), ("RPUSH", queue, "x"), ("ZADD", dropped_key(other), "1", "a"),
        ("SADD", "_kombu.binding.compute", "x"), ("HGETALL", "unacked"),
        ("HSET", "unacked", "a", "b"), ("ZADD", "unacked_index", "1", "a"),
        # Keys of the gateway's counters and records.
        ("GET", "assay:quota:ready"), ("XADD", "assay:usage", "*", "entry", "{}"),
        ("ZADD", "assay:wanted", "1", str(stage.theirs)), ("GET", "assay:cache:1"),
        ("EVAL", "return 1", "0"), ("EVALSHA", "0" * 40, "0"), ("SCRIPT", "LOAD", "return 1"),
        ("INFO",), ("CLIENT", "KILL", "USER", broker_user(other)),
        *FORBIDDEN,
    )  # fmt: skip
    for command in denied:
        with pytest.raises(NoPermissionError):
            own.execute_command(*command)


def test_names_that_begin_alike_open_nothing(stage: Stage) -> None:
    """Deployment 1 is not 12, and node gpu-1 is not gpu-12."""
    own = stage.signed_in()
    for key in (f"{deployment_queue(stage.own)}2", f"{deployment_queue(stage.own)}*"):
        with pytest.raises(NoPermissionError):
            own.brpop([key], timeout=1)
    for realm in (f"{stage.node.realm}2", "gpu-1"):
        with pytest.raises(NoPermissionError):
            own.xadd(reply_stream(GATEWAY, realm), {"id": "r"})


def test_queues_follow_placement_and_the_last_copy(stage: Stage) -> None:
    own, queue = stage.signed_in(), deployment_queue(stage.theirs)
    place(stage.theirs, "gpu-1/engine@a")
    stage.access.run()
    assert own.brpop([queue], timeout=0.01) is None
    copy = Replica.objects.create(
        deployment_id=stage.theirs,
        worker="gpu-1/engine@a",
        state=ReplicaState.READY,
        heartbeat_at=timezone.now(),
    )
    Placement.objects.filter(worker="gpu-1/engine@a", deployment_id=stage.theirs).delete()
    stage.access.run()
    assert own.brpop([queue], timeout=0.01) is None
    copy.state = ReplicaState.STOPPED
    copy.save(update_fields=["state"])
    assert stage.access.run() == 1
    with pytest.raises(NoPermissionError):
        own.brpop([queue], timeout=0.01)


def test_a_read_that_waits_gets_nothing_after_the_queue_was_withdrawn(stage: Stage) -> None:
    own, queue = stage.signed_in(), deployment_queue(stage.own)
    found: list[object] = []

    def read() -> None:
        try:
            found.append(own.brpop([queue], timeout=int(PATIENCE_S)))
        except redis_module.RedisError as error:
            found.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    while not any(each["cmd"] == "brpop" for each in stage.admin.client_list()):
        time.sleep(0.01)
    Placement.objects.all().delete()
    stage.access.run()
    stage.admin.lpush(queue, "secret")
    thread.join()
    assert isinstance(found[0], NoPermissionError)
    assert stage.admin.llen(queue) == 1


def test_a_revoked_node_is_cut_off_at_once(stage: Stage) -> None:
    own = stage.signed_in()
    assert own.ping()
    node_revoke(actor=company.person("ada", "admin"), name="gpu-1", reason="Sold")
    assert stage.access.run() == 1
    with pytest.raises((redis_module.ConnectionError, AuthenticationError)):
        own.ping()
    with pytest.raises(AuthenticationError):
        stage.signed_in().ping()
    assert stage.client(stage.other, stage.other_machine.broker_password).ping()


def test_a_revoked_node_leaves_no_key_in_the_broker(stage: Stage) -> None:
    own, realm = stage.signed_in(), stage.node.realm
    for number in range(3):
        own.xadd(reply_stream(f"assay:reply:{number}", realm), {"id": "r"})
        own.set(alive_key(worker_address(realm, str(number))), "1")
    own.zadd(presence_key(realm), {"engine@a": 1})
    kept = reply_stream(GATEWAY, stage.other.realm)
    stage.admin.xadd(kept, {"id": "r"})
    node_revoke(actor=company.person("ada", "admin"), name="gpu-1", reason="Sold")
    stage.access.run()
    found = {key.decode() for key in stage.admin.keys("assay:*")}
    assert {key for key in found if realm in key} == set()
    assert kept in found


def test_a_removal_that_broke_off_is_completed(stage: Stage) -> None:
    own, stream = stage.signed_in(), reply_stream(GATEWAY, stage.node.realm)
    own.xadd(stream, {"id": "r"})
    node_revoke(actor=company.person("ada", "admin"), name="gpu-1", reason="Sold")
    stage.admin.execute_command("ACL SETUSER", "assay_controller", "-scan")
    with pytest.raises(NoPermissionError):
        stage.access.run()
    with pytest.raises((redis_module.ConnectionError, AuthenticationError)):
        own.ping()
    stage.admin.execute_command("ACL SETUSER", "assay_controller", "+scan")
    assert stage.access.run() == 1
    assert not stage.admin.exists(stream)
    assert broker_user(stage.node.realm) not in stage.admin.acl_users()


def test_a_renewed_session_has_another_password_and_keeps_its_connections(stage: Stage) -> None:
    own, former = stage.signed_in(), stage.machine.broker_password
    number = own.client_id()
    stage.machine.sign_in(stage.token)
    stage.access.run()
    assert own.client_id() == number
    assert stage.signed_in().ping()
    assert stage.client(stage.node, former).ping()
    NodeSession.objects.filter(ended_as="renewed").update(
        ended_at=timezone.now() - timedelta(minutes=2)
    )
    stage.access.run()
    assert own.client_id() == number
    with pytest.raises(AuthenticationError):
        stage.client(stage.node, former).ping()


def test_a_second_machine_with_the_key_ends_the_connections_of_the_first(stage: Stage) -> None:
    own = stage.signed_in()
    number = own.client_id()
    clone = Machine("gpu-1", stage.machine.key)
    clone.sign_in()
    stage.access.run()
    with pytest.raises((redis_module.ConnectionError, AuthenticationError)):
        assert own.client_id() == number
    assert stage.client(stage.node, clone.broker_password).ping()


def test_a_round_that_may_not_end_connections_changes_nothing_and_is_repeated(stage: Stage) -> None:
    own = stage.signed_in()
    number = own.client_id()
    Machine("gpu-1", stage.machine.key).sign_in()
    stage.admin.execute_command("ACL SETUSER", "assay_controller", "-client|kill")
    with pytest.raises(NoPermissionError):
        stage.access.run()
    stage.admin.execute_command("ACL SETUSER", "assay_controller", "+client|kill")
    assert stage.access.run() == 1
    assert number not in {int(each["id"]) for each in stage.admin.client_list()}


def test_a_session_that_ran_out_before_the_next_one_ends_its_connections(stage: Stage) -> None:
    own, former = stage.signed_in(), stage.machine.broker_password
    number = own.client_id()
    NodeSession.objects.filter(node=stage.node).update(expires_at=timezone.now())
    Machine("gpu-1", stage.machine.key).sign_in()
    stage.access.run()
    assert number not in {int(each["id"]) for each in stage.admin.client_list()}
    with pytest.raises(AuthenticationError):
        stage.client(stage.node, former).ping()


def test_a_password_of_an_earlier_enrollment_opens_nothing(stage: Stage) -> None:
    former = stage.machine.broker_password
    stage.machine.sign_in(stage.token)
    node_revoke(actor=company.person("ada", "admin"), name="gpu-1", reason="Sold")
    machine, node = joined("gpu-1")
    machine.sign_in()
    stage.access.run()
    assert stage.client(node, machine.broker_password).ping()
    with pytest.raises(AuthenticationError):
        stage.client(node, former).ping()


def test_a_session_that_ran_out_ends_the_user(stage: Stage) -> None:
    own = stage.signed_in()
    assert own.ping()
    NodeSession.objects.filter(node=stage.node).update(expires_at=timezone.now())
    stage.access.run()
    with pytest.raises((redis_module.ConnectionError, AuthenticationError)):
        own.ping()


def test_users_are_made_again_after_the_broker_has_forgotten_them(stage: Stage) -> None:
    for name in stage.admin.acl_users():
        if name.startswith("assay_node_"):
            stage.admin.acl_deluser(name)
    with pytest.raises(AuthenticationError):
        stage.signed_in().ping()
    assert stage.access.run() == 2
    assert stage.signed_in().ping()


def test_a_broker_that_comes_back_with_earlier_users_gets_the_present_ones(stage: Stage) -> None:
    """As after a change to another server, or from a file of users that was saved earlier."""
    name, foreign = broker_user(stage.node.realm), deployment_queue(stage.theirs)
    access = BrokerAccess(stage.controller, refresh_s=0)
    access.run()
    stage.admin.execute_command("ACL SETUSER", name, "resetpass", ">old", f"(+brpop ~{foreign})")
    access.run()
    with pytest.raises(AuthenticationError):
        stage.client(stage.node, "old").ping()
    with pytest.raises(NoPermissionError):
        stage.signed_in().brpop([foreign], timeout=0.01)


def test_a_round_without_changes_asks_for_the_names_alone(stage: Stage) -> None:
    before = stage.admin.info("commandstats")
    assert stage.access.run() == 0
    after = stage.admin.info("commandstats")
    calls = {name for name in after if after[name] != before.get(name) and "acl" in name}
    assert calls == {"cmdstat_acl|users"}


def test_a_controller_that_starts_anew_ends_no_connection(stage: Stage) -> None:
    own = stage.signed_in()
    number = own.client_id()
    assert BrokerAccess(stage.controller).run() == 2
    assert own.client_id() == number
    node_cordon(actor=company.person("ada", "admin"), name="gpu-1")
    assert stage.access.run() == 0
    assert own.client_id() == number


def test_the_broker_keeps_hashes_of_passwords(stage: Stage) -> None:
    listed = " ".join(stage.admin.acl_list())
    assert stage.machine.broker_password not in listed
    assert NodeSession.objects.get(node=stage.node).broker_sha256 in listed


def test_an_installation_without_nodes_needs_no_right_to_make_users(
    broker: Valkey, redis: Any
) -> None:
    with redis_module.Redis.from_url(broker.url_of("web")) as unable:
        assert BrokerAccess(unable).run() == 0
        machine, _ = joined("gpu-3")
        machine.sign_in()
        with pytest.raises(NoPermissionError):
            BrokerAccess(unable).run()
