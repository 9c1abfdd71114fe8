"""Connections of workers to the broker: with the user of the settings, or on a node with the user
of its session.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import redis
from django.conf import settings

from governance.errors import DomainError
from workers.remote.client import NodeClient


@cache
def node_client() -> NodeClient:
    """Return this process's client of the control plane. All parts share it, so that all notice
    when another machine has replaced the session.

    Raises:
        InvalidInput: the node's URL or key file is not usable.
    """
    return NodeClient(settings.NODE_URL, Path(settings.NODE_KEY_FILE))


class NodeCredentials(redis.CredentialProvider):
    """User and password of the node's current session, for redis-py and kombu. They are read for
    each connection, since a session lasts only minutes.
    """

    def get_credentials(self) -> tuple[str, str]:
        """Return user and password; sign in first if there is no session.

        Raises:
            redis.AuthenticationError: the control plane grants no session.
        """
        try:
            session = node_client().session()
        except DomainError as error:
            # The same error as for a refusal by the broker, so that callers try again.
            raise redis.AuthenticationError(f"No user for the broker: {error.message}") from error
        return session.broker_user, session.broker_password


def broker_client(**options: Any) -> redis.Redis:
    """Return a client of the broker with the `options` of redis-py."""
    if settings.NODE_URL:
        options["credential_provider"] = NodeCredentials()
    return redis.Redis.from_url(settings.REDIS_URL, **options)


def own_realm() -> str:
    """Return the realm of this node; empty if this machine is not a node.

    Raises:
        DomainError: the node cannot get a session.
    """
    return node_client().session().realm if settings.NODE_URL else ""


def own_wire_key() -> str:
    """Return the secret that authenticates messages of this process. Raises like `own_realm`."""
    return node_client().session().wire_key if settings.NODE_URL else settings.WIRE_KEY
