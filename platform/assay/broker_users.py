"""The broker's users: one for each kind of process, with the commands and keys that it needs. Users
of nodes are created while Assay runs (`workers.nodes.broker_access`).

Compose, the demo and the tests generate their access control file from this table
(`manage.py write_broker_users`). Clients without a password may only send PING.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "assay_"
# Commands that client libraries send by themselves, and transactions.
_CONNECTION = (
    "auth hello ping echo select quit reset client|setinfo client|setname client|id "
    "multi exec discard watch unwatch"
)
# `compute` and `deployment.<id>` are queues.
_SEND = "lpush llen"
# A worker reports its presence, and the number of messages that it dropped.
_PRESENT = "+zadd +zrem +zremrangebyscore %W~assay:workers %W~assay:dropped"
# The script of quotas, and the commands that it calls.
_QUOTAS = (
    "evalsha script|load time info scan type get set del exists "
    "hget hset hdel hexists hmget hgetall hincrby zadd zrem zcount zrangebyscore zremrangebyscore "
    "xadd xlen xrange expire pexpire pexpireat"
)
_NOTICES = ("assay:snapshot", "assay:deployments", "assay:controller")


@dataclass(frozen=True, slots=True)
class BrokerUser:
    """The privileges of one kind of process.

    `keys` are patterns of keys that it may read and write, `read` and `written` of those that it
    may only read or write; `channels` are those that it publishes on or subscribes to. `parts` are
    further rules, each with its own commands and keys.
    """

    commands: str
    keys: tuple[str, ...]
    read: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    def rules(self) -> str:
        return " ".join(
            (
                "-@all",
                *(f"+{command}" for command in f"{_CONNECTION} {self.commands}".split()),
                *(f"~{key}" for key in self.keys),
                *(f"%R~{key}" for key in self.read),
                *(f"%W~{key}" for key in self.written),
                *(f"&{channel}" for channel in self.channels),
                *(f"({part})" for part in self.parts),
            )
        )


USERS: dict[str, BrokerUser] = {
    "web": BrokerUser(
        f"{_SEND} lrem {_QUOTAS} publish subscribe unsubscribe "
        "xread xtrim incr incrby decr decrby ttl mget getdel zrange rpush rpop blpop",
        keys=(
            "assay:quota:*",
            "assay:usage",
            "assay:reply:*",
            "assay:cache*",
            "assay:*-failures:*",
            "assay:leak-reports:*",
            "assay:attest:*",
            "assay:batch-lines:*",
            "assay:repeats:*",
            "assay:wanted",
            "assay:in-use",
        ),
        read=("assay:workers*", "assay:worker:*"),
        written=("compute*", "deployment.*", "assay:attest"),
        channels=(*_NOTICES, "assay:cancel*"),
    ),
    "controller": BrokerUser(
        f"{_SEND} {_QUOTAS} publish subscribe unsubscribe zrange zrevrange lindex "
        "xack xdel xautoclaim xreadgroup xgroup|create xpending rpush blpop "
        # For users of nodes (`workers.nodes.broker_access`). This right cannot be limited to them.
        "acl|setuser acl|deluser acl|getuser acl|users acl|log client|kill",
        keys=(
            "assay:quota:*",
            "assay:usage*",
            "assay:attest",
            "assay:wanted",
            "assay:in-use",
        ),
        read=("deployment.*", "assay:dropped*"),
        written=("compute*", "assay:attest:*"),
        channels=_NOTICES,
        # For deleting keys of a removed node.
        parts=("+unlink %W~assay:reply:*/* %W~assay:worker:*/* %W~assay:workers:*",),
    ),
    # Each command is limited to its own keys, so that workers cannot write to queues that they
    # read, or change the type of a key.
    "compute": BrokerUser(
        "publish",
        keys=(),
        channels=_NOTICES,
        parts=("+brpop ~compute", _PRESENT),
    ),
    "engine": BrokerUser(
        "publish subscribe unsubscribe",
        keys=(),
        channels=("assay:cancel", "assay:snapshot", "assay:deployments"),
        parts=(
            "+brpop ~deployment.* ~engine.none",
            "+xadd +expire %W~assay:reply:*",
            "+set +del %W~assay:worker:*",
            _PRESENT,
        ),
    ),
}
ADMIN = "admin"
NAMES = (*USERS, ADMIN)


def new_passwords() -> dict[str, str]:
    """Return a random password for each user."""
    return {name: secrets.token_hex(24) for name in NAMES}


def access_control_file(passwords: Mapping[str, str]) -> str:
    """Return Valkey's `aclfile` with the hashes of `passwords`, one for each of `NAMES`."""
    lines = ["user default reset on nopass -@all +ping"]
    for name in NAMES:
        digest = hashlib.sha256(passwords[name].encode()).hexdigest()
        rules = "~* &* +@all" if name == ADMIN else USERS[name].rules()
        lines.append(f"user {PREFIX}{name} reset on #{digest} {rules}")
    return "\n".join(lines) + "\n"
