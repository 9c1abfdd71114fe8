"""Permission to sign in as one of the demonstration's personas."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest


def is_loopback(host: str) -> bool:
    """Return true if a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def personas_allowed(request: HttpRequest) -> bool:
    """Return true only in the demonstration, for requests from this machine to its loopback name.

    A reverse proxy makes every client look local, so forwarded requests are refused.
    """
    forwarded = "HTTP_X_FORWARDED_FOR" in request.META or "HTTP_FORWARDED" in request.META
    host = urlsplit(f"//{request.get_host()}").hostname or ""
    return (
        settings.DEMO
        and not settings.PRODUCTION
        and not forwarded
        and is_loopback(request.META.get("REMOTE_ADDR", ""))
        and is_loopback(host)
    )
