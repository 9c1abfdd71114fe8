"""Commands of nodes that the broker denied, read from its ACL log by the controller.

A node's workers use only permitted commands, so a denial is a fault or a sign of an intruder. The
broker counts repetitions in one entry, keeps at most 128 entries, and loses them at a restart. A
node with many different denials can push those of other nodes out of the log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, Any

import redis
from django.db import transaction
from django.utils import timezone

from governance.audit.services import audit_record
from governance.principals import background, service_principal
from workers.broker import broker_client
from workers.deployments.models import Replica
from workers.measurements.models import Measurement
from workers.nodes.broker_access import broker_user
from workers.nodes.models import Node
from workers.nodes.states import node_lock, node_subject
from workers.wire import deployment_queue

ACTION = "node:broker_denied"
# A command that is denied again within this time writes no new event; its alarm lasts this long.
ALARM_FOR = timedelta(hours=1)
# Time for which a command is shown after its last denial.
SHOWN_FOR = timedelta(days=1)
_ENTRIES = 128
_LONGEST, _AT_ONCE, _TARGET = 2000, 64 * 1024, 100
# Most different commands that are stored for a node.
_COMMANDS = 16
_OTHERS = "other commands"
_CONTROLLER = service_principal("controller")
_TIMEOUT_S = 10.0
# Name of the row with entries of the log that were already counted, by ID.
_COUNTED = "broker-log"
_NAME = re.compile(r"[a-z|_-]{1,40}")
_QUEUE = re.compile(re.escape(deployment_queue(0))[:-1] + r"(\d{1,18})")
_COMMAND = re.compile(r"(?:^| )cmd=(\S+)")


@dataclass(frozen=True, slots=True)
class Denial:
    """A denied command: number of denials, time of the last one, and its key or channel."""

    command: str
    count: int
    last_at: datetime
    target: str = ""

    def __str__(self) -> str:
        return f"{f'{self.command} {self.target}'.rstrip()} ({self.count})"


def node_denials(node: Node, within: timedelta) -> list[Denial]:
    """Return a node's commands that were denied `within` the last time span, latest first."""
    since = timezone.now() - within
    denials = [
        Denial(command, each["count"], datetime.fromisoformat(each["last_at"]), each["target"])
        for command, each in node.broker_denials.items()
    ]
    recent = [each for each in denials if each.last_at > since]
    return sorted(recent, key=lambda each: each.last_at, reverse=True)


def denials_total(node: Node) -> int:
    """Return the number of denials of a node since it joined."""
    return sum(each["count"] for each in node.broker_denials.values())


def broker_denials_record() -> int:
    """Record the denials of nodes since the last round; return their number.

    A command without a denial in the last hour writes an audit event.

    Raises:
        redis.RedisError, OSError: the broker does not answer, or denies access to its log.
    """
    nodes = {broker_user(node.realm): node for node in Node.objects.exclude(public_key="")}
    if not nodes:
        return 0
    with broker_client(socket_timeout=_TIMEOUT_S, protocol=2) as client:
        # The broker lists the latest first.
        log = reversed(_log(client))
    entries = [entry for fields in log if (entry := _entry(fields)) is not None]
    by_node: dict[str, list[Denial]] = {}
    with transaction.atomic():
        for user, denial in _new(entries):
            if user in nodes and not _is_withdrawn(nodes[user], denial):
                by_node.setdefault(nodes[user].name, []).append(denial)
        for name, denials in sorted(by_node.items()):
            _keep(name, denials)
    return sum(denial.count for denials in by_node.values() for denial in denials)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the log. Its key and counts show which denials are new."""

    key: str
    user: str
    denial: Denial


def _log(client: redis.Redis) -> list[list[Any]]:
    """Return the entries of the log, with long values cut off.

    Nodes choose names of keys, up to 512 MiB each, and redis-py would keep them all in memory.
    """
    connection: Any = client.connection_pool.get_connection()
    try:
        connection.send_command("ACL", "LOG", _ENTRIES)
        with connection._sock.makefile("rb") as stream:
            entries: list[list[Any]] = _reply(stream)
            return entries
    finally:
        connection.disconnect()


def _reply(stream: IO[bytes]) -> Any:
    """Read a reply of RESP 2. Raises redis.RedisError."""
    line = stream.readline(_LONGEST)
    kind, rest = line[:1], line[1:-2]
    if kind == b"*":
        return [_reply(stream) for _ in range(int(rest))]
    if kind == b"$":
        size = int(rest)
        value = stream.read(min(size, _LONGEST))
        left = size - len(value) + len(b"\r\n")
        while left > 0:
            skipped = len(stream.read(min(left, _AT_ONCE)))
            if not skipped:
                raise redis.ConnectionError("The broker closed the connection.")
            left -= skipped
        return value.decode("utf-8", "replace")
    if kind in (b":", b"+"):
        return rest.decode()
    if line.startswith(b"-NOPERM"):
        raise redis.exceptions.NoPermissionError(
            "The controller may not read the broker's log. Write the broker's users again."
        )
    raise redis.ResponseError(line.decode("utf-8", "replace"))


def _entry(listed: list[str]) -> _Entry | None:
    """Parse an entry; return None for a refused password, which a new session may cause briefly."""
    fields = dict(zip(listed[::2], listed[1::2], strict=True))
    reason, target = fields["reason"], fields["object"]
    if reason == "auth":
        return None
    match = _COMMAND.search(fields["client-info"])
    command = target if reason == "command" else match[1] if match else ""
    cleaned = "" if reason == "command" else "".join(filter(str.isprintable, target))[:_TARGET]
    return _Entry(
        key=f"{fields['entry-id']}:{fields['timestamp-created']}",
        user=fields["username"],
        denial=Denial(
            command if _NAME.fullmatch(command) else _OTHERS,
            int(fields["count"]),
            timezone.now(),
            cleaned,
        ),
    )


def _new(entries: list[_Entry]) -> list[tuple[str, Denial]]:
    """Return denials, with their users, that were not counted yet, and mark them as counted.

    Lock the row of counted entries, so that a second controller does not count them again.
    """
    Measurement.objects.get_or_create(
        name=_COUNTED, defaults={"figures": {}, "measured_at": timezone.now()}
    )
    counted = Measurement.objects.select_for_update().get(name=_COUNTED).figures
    fresh = []
    for entry in entries:
        denial = entry.denial
        added = denial.count - counted.get(entry.key, 0)
        if added > 0:
            fresh.append((entry.user, Denial(denial.command, added, denial.last_at, denial.target)))
    now = {entry.key: entry.denial.count for entry in entries}
    if now != counted:
        Measurement.keep(_COUNTED, now)
    return fresh


def _is_withdrawn(node: Node, denial: Denial) -> bool:
    """Return whether the denial is a read from the queue of a deployment that the node had.
    A read that waits while access is withdrawn is denied, but is not a fault."""
    queue = _QUEUE.fullmatch(denial.target)
    if denial.command != "brpop" or queue is None:
        return False
    lately = timezone.now() - ALARM_FOR
    copies = Replica.objects.filter(worker__startswith=node.prefix, heartbeat_at__gte=lately)
    return copies.filter(deployment_id=int(queue[1])).exists()


def _keep(name: str, denials: list[Denial]) -> None:
    """Add denials to those of the node, and record an event for new commands."""
    node = node_lock(name)
    recent = {each.command for each in node_denials(node, ALARM_FOR)}
    stored = node.broker_denials
    fresh: dict[str, Denial] = {}
    for each in denials:
        command = each.command if len(stored) < _COMMANDS or each.command in stored else _OTHERS
        count = each.count + stored.get(command, {}).get("count", 0)
        stored[command] = {
            "count": count,
            "target": each.target,
            "last_at": each.last_at.isoformat(timespec="seconds"),
        }
        if command not in recent:
            fresh[command] = Denial(command, count, each.last_at, each.target)
    node.save(update_fields=["broker_denials"])
    if fresh:
        with background(f"node-{name}", _CONTROLLER):
            audit_record(
                actor=_CONTROLLER,
                action=ACTION,
                subject=node_subject(name),
                outcome="denied",
                reason=f"The broker denied {', '.join(map(str, fresh.values()))}.",
                data={command: each.count for command, each in fresh.items()},
            )
