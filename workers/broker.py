"""A worker's connections to the broker: with the settings' user, and on a node with the user that
belongs to its session.
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
    """Return this process's way to the control plane: one for all of its parts, so that a session
    that another machine took over is noticed by all.

    Raises:
        InvalidInput: the node's URL or key file is not usable.
    """
    return NodeClient(settings.NODE_URL, Path(settings.NODE_KEY_FILE))


class NodeCredentials(redis.CredentialProvider):
    """The user and password of the node's present session, for redis-py and kombu. They are read
    for each connection, since a session ends after minutes.
    """

    def get_credentials(self) -> tuple[str, str]:
        """Return both; sign in first if there is no session.

        Raises:
            redis.AuthenticationError: the control plane gives none.
        """
        try:
            session = node_client().session()
        except DomainError as error:
            # As if the broker had refused them: callers try again.
            raise redis.AuthenticationError(f"No user for the broker: {error.message}") from error
        return session.broker_user, session.broker_password


def broker_client(**options: Any) -> redis.Redis:
    """Return a client of the broker with redis-py's `options`."""
    if settings.NODE_URL:
        options["credential_provider"] = NodeCredentials()
    return redis.Redis.from_url(settings.REDIS_URL, **options)


def own_realm() -> str:
    """Return the realm of this node; empty on the control plane's own machine.

    Raises:
        DomainError: the node has no session, and gets none.
    """
    return node_client().session().realm if settings.NODE_URL else ""


def own_wire_key() -> str:
    """Return the secret that authenticates messages of this process. Raises as `own_realm`."""
    return node_client().session().wire_key if settings.NODE_URL else settings.WIRE_KEY
