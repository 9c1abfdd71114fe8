"""Maintain a user on the broker for each node: its passwords, queues and streams.

The database is authoritative: a node in use has a user while its session lasts, with the hash of
the session's password and access to the queues of deployments on its workers. Each round of the
controller restores this state, even after the broker has lost its data. Web processes make the
passwords but may not change users.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import redis
from django.db.models import F, QuerySet
from django.utils import timezone

from workers.deployments.models import Replica, ReplicaState
from workers.nodes.models import NodeSession, SessionEnd
from workers.nodes.states import WORKING
from workers.placement.models import Placement
from workers.wire import (
    DEPLOYMENTS_CHANNEL,
    IDLE_QUEUE,
    JOB_QUEUE,
    alive_key,
    cancel_channel,
    deployment_queue,
    dropped_key,
    presence_key,
    reply_stream,
    worker_address,
)

logger = logging.getLogger(__name__)
_PREFIX = "assay_node_"
# Number of keys that one SCAN examines.
_SCANNED = 1000
# Commands that client libraries send by themselves, and subscriptions.
_COMMANDS = (
    "auth hello ping echo select quit reset client|setinfo client|setname client|id "
    "subscribe unsubscribe"
)
# Time for which the password of a renewed session stays valid, for processes that have not read the
# new one yet.
_RENEWED_FOR = timedelta(seconds=60)
# States of copies whose worker may still read the queue.
_HELD = (ReplicaState.LOADING, ReplicaState.READY)


def broker_user(realm: str) -> str:
    """Return the name of a node's user on the broker."""
    return f"{_PREFIX}{realm}"


@dataclass(frozen=True, slots=True)
class Access:
    """A node's user: hashes of its passwords, and deployments whose queues it may read."""

    realm: str
    passwords: frozenset[str]
    deployments: frozenset[int]

    def rules(self) -> list[str]:
        """Return the rules for ACL SETUSER, which replace all earlier rules of the user.

        One part in parentheses must allow a command for all of its keys. So, for example, the node
        cannot replace a queue by a key of another type, or let it expire.
        """
        queues = [deployment_queue(pk) for pk in sorted(self.deployments)]
        # Queues of single replicas, whose names begin with that of the deployment's.
        queues += [f"{queue}.*" for queue in queues]
        parts = (
            ("brpop", "~", (JOB_QUEUE, IDLE_QUEUE, *queues)),
            ("xadd expire", "%W~", (reply_stream("assay:reply:*", self.realm),)),
            ("set del", "%W~", (alive_key(worker_address(self.realm, "*")),)),
            (
                "zadd zrem zremrangebyscore",
                "%W~",
                (presence_key(self.realm), dropped_key(self.realm)),
            ),
        )
        return [
            *("reset", "on", "-@all"),
            *(f"#{digest}" for digest in sorted(self.passwords)),
            *(f"+{command}" for command in _COMMANDS.split()),
            *(f"&{channel}" for channel in (cancel_channel(self.realm), DEPLOYMENTS_CHANNEL)),
            *(_part(*part) for part in parts if part[2]),
        ]


def _part(commands: str, kind: str, keys: Collection[str]) -> str:
    allowed = (*(f"+{command}" for command in commands.split()), *(kind + key for key in keys))
    return f"({' '.join(allowed)})"


def required_accesses() -> dict[str, Access]:
    """Return the users that the broker should have, by name, with four queries."""
    now = timezone.now()
    rows = NodeSession.objects.filter(node__state__in=WORKING).exclude(broker_sha256="")
    present = rows.filter(ended_at=None, expires_at__gt=now).select_related("node")
    renewed = _renewed().filter(ended_at__gt=now - _RENEWED_FOR).exclude(broker_sha256="")
    passwords: dict[int, set[str]] = defaultdict(set)
    for node_id, digest in renewed.values_list("node_id", "broker_sha256"):
        passwords[node_id].add(digest)
    deployments = _deployments_held()
    return {
        broker_user(session.node.realm): Access(
            realm=session.node.realm,
            passwords=frozenset({session.broker_sha256, *passwords[session.node_id]}),
            deployments=frozenset(deployments[session.node.name]),
        )
        for session in present
    }


def _renewed() -> QuerySet[NodeSession]:
    """Return sessions that their own machine renewed in time since the node's last enrollment."""
    return NodeSession.objects.filter(
        ended_as=SessionEnd.RENEWED,
        ended_at__lt=F("expires_at"),
        started_at__gte=F("node__joined_at"),
    )


def _deployments_held() -> dict[str, set[int]]:
    """Return, by node, deployments that are placed on its workers or still loaded there."""
    placed = Placement.objects.filter(worker__contains="/")
    copies = Replica.objects.filter(worker__contains="/", state__in=_HELD)
    deployments: dict[str, set[int]] = defaultdict(set)
    for rows in (placed, copies):
        for worker, pk in rows.values_list("worker", "deployment_id"):
            deployments[worker.partition("/")[0]].add(pk)
    return deployments


class BrokerAccess:
    """Rounds of the controller. Remembers the users that it has set, so that a round without
    changes costs one command.

    Args:
        refresh_s: Set all users again after this time: the broker may have reloaded old ones.
    """

    def __init__(self, client: redis.Redis, refresh_s: float = 60.0) -> None:
        self._client = client
        self._told: dict[str, Access] = {}
        self._told_for_s = refresh_s
        self._told_at = time.monotonic()

    def run(self) -> int:
        """Make the broker's users of nodes match the database; return the number of changes.

        Raises:
            redis.RedisError: the broker does not answer, or denies the controller the change.
        """
        accesses = required_accesses()
        if time.monotonic() - self._told_at >= self._told_for_s:
            self._told.clear()
            self._told_at = time.monotonic()
        try:
            users = self._users()
        except redis.exceptions.NoPermissionError:
            if accesses:
                raise
            return 0
        surplus = users - accesses.keys()
        for name in surplus:
            self._told.pop(name, None)
            self._in_one_step(("ACL SETUSER", name, "reset"), ("CLIENT KILL", "USER", name))
        changed = [
            name
            for name, access in accesses.items()
            if name not in users or self._told.get(name) != access
        ]
        for name in changed:
            self._set(name, accesses[name], before=self._passwords(name) if name in users else ())
        for name in surplus:
            # The user remains until its keys are gone, so that a round that fails here is repeated.
            self._unlink_keys(name.removeprefix(_PREFIX))
            self._command("ACL DELUSER", name)
            logger.info("The broker's user %s was removed", name)
        return len(surplus) + len(changed)

    def _users(self) -> set[str]:
        names = {_text(name) for name in self._command("ACL USERS")}
        return {name for name in names if name.startswith(_PREFIX)}

    def _passwords(self, name: str) -> set[str]:
        user: Any = self._client.acl_getuser(name)
        return {_text(digest).removeprefix("#") for digest in (user or {}).get("passwords", ())}

    def _command(self, *words: str) -> Any:
        return self._client.execute_command(*words)  # type: ignore[no-untyped-call]

    def _in_one_step(self, *commands: tuple[str, ...]) -> None:
        with self._client.pipeline(transaction=True) as step:
            for command in commands:
                step.execute_command(*command)  # type: ignore[no-untyped-call]
            step.execute()

    def _unlink_keys(self, realm: str) -> None:
        """Delete the keys that a node's user could create: reply streams and signs of life."""
        patterns = (reply_stream("assay:reply:*", realm), alive_key(worker_address(realm, "*")))
        for pattern in patterns:
            cursor, first = 0, True
            while cursor or first:
                cursor, keys = self._client.scan(cursor, match=pattern, count=_SCANNED)
                first = False
                if keys:
                    self._client.unlink(*keys)
        self._client.unlink(presence_key(realm))

    def _set(self, name: str, access: Access, before: Collection[str]) -> None:
        lost = set(before) - access.passwords
        renewed = _renewed().filter(broker_sha256__in=lost)
        # Another machine has the key now, or a session has ended.
        ends = bool(lost) and renewed.count() < len(lost)
        kill = (("CLIENT KILL", "USER", name),) if ends else ()
        # In one step: once the password is removed, a later round could not know that connections
        # which used it are still open.
        self._in_one_step(("ACL SETUSER", name, *access.rules()), *kill)
        self._told[name] = access
        if ends:
            logger.info("The connections of the broker's user %s were ended", name)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
