"""The way out of an egress worker: one event loop with its connections, and the credentials."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.conf import settings

from workers.egress.connections import EgressRules
from workers.egress.credentials import Credentials, NoCredentials
from workers.egress.loop import EgressLoop


def egress_rules() -> EgressRules:
    """Return what this process's settings permit."""
    return EgressRules(
        internal_hosts=frozenset(settings.EGRESS_INTERNAL_HOSTS),
        proxy=settings.EGRESS_PROXY,
        ca_file=settings.EGRESS_CA_FILE,
        connect_s=settings.EGRESS_CONNECT_TIMEOUT_S,
        first_byte_s=settings.EGRESS_FIRST_BYTE_TIMEOUT_S,
        idle_s=settings.EGRESS_IDLE_TIMEOUT_S,
    )


@cache
def egress_loop() -> EgressLoop:
    """Return the event loop of this process, and start it at the first call."""
    return EgressLoop(egress_rules())


@cache
def credentials() -> Credentials:
    """Return the credentials that this process can open."""
    return NoCredentials()


def hosted_settings() -> dict[str, Any]:
    """Return the arguments of an engine of a hosted model that belong to this process."""
    return {"loop": egress_loop(), "credentials": credentials()}


def close_egress() -> None:
    """Close the connections to providers, if there are any."""
    if egress_loop.cache_info().currsize:
        egress_loop().close()
        egress_loop.cache_clear()
