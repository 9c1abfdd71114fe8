"""The broker of this machine: no port, private files, and a user for each kind of process."""

from __future__ import annotations

import asyncio
import io
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_module
from django.core.management import CommandError, call_command
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from assay.broker_users import NAMES, USERS, access_control_file, new_passwords
from assay.gateway.batches.places import BatchPlaces, places_key
from assay.local.services import Valkey
from governance.quotas.wire import (
    SCRIPT,
    Amount,
    Queued,
    advance_arguments,
    reserve_arguments,
    waiting_key,
)
from workers.celery_message import inference_message
from workers.queue_ages import Queue, read_queues
from workers.wire import InferenceRequest, load_key

FORBIDDEN: tuple[tuple[Any, ...], ...] = (
    ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("CONFIG", "SET", "dir", "/tmp"),
    ("KEYS", "*"), ("MONITOR",), ("SCRIPT", "FLUSH"), ("SCRIPT", "KILL"),
    ("SAVE",), ("BGSAVE",), ("SHUTDOWN", "NOSAVE"), ("REPLICAOF", "evil.example", "6379"),
    ("ACL", "LIST"), ("ACL", "SETUSER", "mallory"), ("MODULE", "LIST"), ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"), ("FUNCTION", "LIST"), ("SWAPDB", "0", "1"),
    ("MIGRATE", "h", "1", "k", "0", "1"), ("RESTORE", "k", "0", b""), ("SORT", "compute"),
    ("COPY", "a", "b"), ("RENAME", "a", "b"), ("OBJECT", "ENCODING", "a"), ("DUMP", "a"),
    ("PUBLISH", "/0.celery.pidbox", "shutdown"),
)  # fmt: skip
# Of the users of nodes, for which it takes the right to change any.
BY_CONTROLLER = ("ACL SETUSER", "CLIENT KILL")
# Scripts, and the keys in which kombu can keep the messages that workers hold.
HELD = (
    ("EVAL", "return 1", "0"), ("EVALSHA", "0" * 40, "0"), ("SCRIPT", "LOAD", "return 1"),
    ("HGET", "unacked", "a"), ("HSET", "unacked", "a", "b"), ("ZADD", "unacked_index", "1", "a"),
)  # fmt: skip


def spoiling(key: str) -> tuple[tuple[str, ...], ...]:
    """Commands that would add to a key, make it one of another type, or end it."""
    return (
        ("LPUSH", key, "x"), ("RPUSH", key, "x"), ("SET", key, "x"), ("SADD", key, "x"),
        ("HSET", key, "a", "b"), ("XADD", key, "*", "a", "b"), ("DEL", key), ("EXPIRE", key, "1"),
        ("GETDEL", key), ("APPEND", key, "x"), ("SETBIT", key, "1", "1"), ("PFADD", key, "x"),
    )  # fmt: skip


# Commands that a process must not be able to run, by process.
FOREIGN: dict[str, tuple[tuple[Any, ...], ...]] = {
    "web": (
        ("XREADGROUP", "GROUP", "ledger", "me", "STREAMS", "assay:usage", ">"),
        ("BRPOP", "deployment.1", "1"), ("RPOP", "compute"), ("LRANGE", "deployment.1", "0", "-1"),
        ("HGETALL", "unacked"), ("DEL", "unacked"), ("SET", "other", "1"),
        ("SET", "assay:worker:1", "1"),
    ),
    "controller": (
        ("LPUSH", "deployment.1", "{}"), ("XADD", "assay:reply:1", "*", "id", "r"),
        ("PUBLISH", "assay:cancel", "r"), ("GET", "assay:cache:1"), ("RPOP", "compute"),
        ("SET", "assay:sign-in-failures:1", "0"),
    ),
    "compute": (
        ("XADD", "assay:usage", "*", "entry", "{}"), ("XADD", "assay:reply:1", "*", "id", "r"),
        ("LPUSH", "deployment.1", "{}"), ("GET", "assay:quota:ready"),
        ("DEL", "assay:quota:ready"), ("PUBLISH", "assay:cancel", "r"), *HELD,
        *spoiling("compute"), *spoiling("_kombu.binding.compute"), *spoiling("assay:workers"),
    ),
    "engine": (
        ("XADD", "assay:usage", "*", "entry", "{}"), ("LPUSH", "compute", "{}"),
        ("XREAD", "STREAMS", "assay:reply:1", "0"), ("XRANGE", "assay:reply:1", "-", "+"),
        ("DEL", "assay:quota:ready"), ("GET", "assay:cache:1"), *HELD,
        *spoiling("deployment.1"), *spoiling("engine.none"), *spoiling("_kombu.binding.compute"),
        *spoiling("assay:workers"), ("SADD", "assay:reply:1", "x"), ("SET", "assay:reply:1", "x"),
        ("DEL", "assay:reply:1"), ("XADD", "assay:worker:1", "*", "a", "b"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def broker() -> Iterator[Valkey]:
    valkey = Valkey()
    yield valkey
    valkey.stop()


def client(broker: Valkey, process: str) -> redis_module.Redis:
    return redis_module.Redis.from_url(broker.url_of(process))


@pytest.mark.parametrize("process", USERS)
def test_a_process_may_not_what_only_an_administrator_does(broker: Valkey, process: str) -> None:
    with client(broker, process) as own:
        for command in (*FORBIDDEN, *FOREIGN[process]):
            if process == "controller" and " ".join(map(str, command[:2])) in BY_CONTROLLER:
                continue
            with pytest.raises(NoPermissionError):
                own.execute_command(*command)


def test_web_and_controller_run_the_script_of_quotas(broker: Valkey) -> None:
    for process in ("web", "controller"):
        with client(broker, process) as own:
            own.register_script(SCRIPT)(args=["reclaim", 10])


def test_web_reserves_a_request_and_sends_it_in_one_call(broker: Valkey) -> None:
    queued = Queued("deployment.1", b"message", 1)
    arguments = reserve_arguments("req_1", 1000, Amount(1), [], "", queued)
    with client(broker, "web") as own, client(broker, "engine") as worker:
        for answer in (b"0", b"-2"):
            assert own.register_script(SCRIPT)(args=arguments).split()[0] == answer
        assert worker.brpop(["deployment.1"], 1) == (b"deployment.1", b"message")


def test_web_moves_on_what_waits_and_workers_cannot_read_it(broker: Valkey) -> None:
    queued = Queued("deployment.3", b"message", 100, "clinical")
    arguments = reserve_arguments("req_1", 1000, Amount(1), [], "", queued)
    with client(broker, "web") as own, client(broker, "engine") as worker:
        waiting = [own.register_script(SCRIPT)(args=arguments).split()[1] for _ in range(33)]
        assert waiting == [b"0"] * 32 + [b"1"]
        with pytest.raises(NoPermissionError):
            worker.brpop([f"{waiting_key('deployment.3')}:clinical"], 1)
        worker.brpop(["deployment.3"], 1)
        assert own.register_script(SCRIPT)(args=advance_arguments("deployment.3")) == 0


def test_the_controller_reads_the_age_of_queues_and_takes_nothing(broker: Valkey) -> None:
    request = InferenceRequest("r", 7, "docs", "d" * 64, "s", {}, enqueued_at=1_900_000_000.5)
    with client(broker, "web") as web, client(broker, "controller") as own:
        queued = Queued("deployment.7", inference_message(request, {}), 100, "clinical")
        for _ in range(33):
            arguments = reserve_arguments("req_1", 1000, Amount(1), [], "", queued)
            web.register_script(SCRIPT)(args=arguments)
        # Twice: the broker knows the script from the first call on.
        for _ in range(2):
            assert read_queues(own, [7, 8]) == {7: Queue(33, 1_900_000_000.5), 8: Queue(0, None)}
        with pytest.raises(NoPermissionError):
            own.execute_command("RPOP", "deployment.7")


def test_web_reads_the_load_that_an_engine_worker_reports(broker: Valkey) -> None:
    key = load_key("", "engine@a")
    with client(broker, "web") as web, client(broker, "engine") as worker:
        worker.set(key, b"{}", px=60_000)
        assert web.mget([key]) == [b"{}"]
        worker.delete(key)
        assert web.mget([key]) == [None]


def test_web_takes_and_leaves_places_for_lines_of_batches(broker: Valkey) -> None:
    async def take_and_leave() -> tuple[bool, bool, bool]:
        own = redis_module.asyncio.Redis.from_url(broker.url_of("web"))
        places = BatchPlaces(own)
        try:
            first = await places.take(1, "batch_1:0", again=False)
            repeated = await places.take(1, "batch_1:0", again=True)
            await places.leave(1, "batch_1:0")
            return first, repeated, bool(await own.zcount(places_key(1), "-inf", "+inf"))
        finally:
            await own.aclose()

    assert asyncio.run(take_and_leave()) == (True, True, False)


def test_without_a_password_only_ping_is_answered(broker: Valkey) -> None:
    path = broker.url.partition("@")[2]
    with redis_module.Redis(unix_socket_path=path) as stranger:
        assert stranger.ping()
        for command in (("GET", "x"), ("XLEN", "assay:usage"), ("ACL", "WHOAMI"), ("INFO",)):
            with pytest.raises(NoPermissionError):
                stranger.execute_command(*command)
        with pytest.raises(NoPermissionError):
            stranger.publish("assay:snapshot", "")
    once = Retry(NoBackoff(), 0)
    with (
        redis_module.Redis(
            unix_socket_path=path, username="assay_web", password="x", retry=once
        ) as guessing,
        pytest.raises(AuthenticationError),
    ):
        guessing.get("x")


def test_the_broker_listens_on_no_port_and_its_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "valkey"
    folder.mkdir(mode=0o755)
    (folder / "appendonlydir").mkdir(mode=0o755)
    valkey = Valkey(folder)
    try:
        with redis_module.Redis.from_url(valkey.url) as admin:
            admin.set("assay:test", "x")
            assert admin.config_get("port", "tls-port") == {"port": "0", "tls-port": "0"}
        socket = Path(valkey.url.partition("@")[2])
        for path in (socket, socket.parent, folder, *folder.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert list(folder.rglob("*.aof"))
    finally:
        valkey.stop()


def test_the_file_holds_hashes_and_is_written_by_a_command(tmp_path: Path, settings: Any) -> None:
    settings.BROKER_PASSWORDS = passwords = new_passwords()
    file = tmp_path / "users.acl"
    call_command("write_broker_users", str(file), stdout=io.StringIO())
    assert file.read_text() == access_control_file(passwords)
    assert not any(password in file.read_text() for password in passwords.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("password", ["", "short", "the web process's own"])
def test_no_user_is_without_a_password_of_its_own(
    tmp_path: Path, settings: Any, name: str, password: str
) -> None:
    passwords = new_passwords()
    other = passwords["web" if name != "web" else "admin"]
    settings.BROKER_PASSWORDS = {**passwords, name: other if "own" in password else password}
    with pytest.raises(CommandError):
        call_command("write_broker_users", str(tmp_path / "users.acl"))
    assert not (tmp_path / "users.acl").exists()


def test_web_counts_what_waits_in_queues_and_reads_none_of_it(broker: Valkey) -> None:
    with client(broker, "web") as own:
        assert (own.llen("compute"), own.llen("deployment.1")) == (0, 0)
        assert own.zrange("assay:workers", -9, -1, withscores=True) == []
        with pytest.raises(NoPermissionError):
            own.lrange("compute", 0, -1)
