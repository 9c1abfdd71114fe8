"""Refuse IP addresses that egress workers must not connect to.

Every connection checks its address after the name was resolved: a name that resolved to a public
address a moment ago may resolve to an internal one now.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

# Services that give a machine its credentials. Some have public addresses, others private ones.
METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
        ),
    )
)
# All public addresses of IPv6 that are assigned.
_PUBLIC_V6 = IPv6Network("2000::/3")
# Addresses of IPv6 that a gateway translates to the IPv4 address in their last 32 bits.
_TRANSLATED = tuple(
    map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96"))
)


class AddressRefused(PermissionError):
    """An address that must not be reached; the message says why."""

    def __init__(self, reason: str) -> None:
        # The client combines the errors of several addresses into one with their common number.
        super().__init__(errno.EACCES, reason)


def check_address(address: str, *, internal: bool) -> None:
    """Raise AddressRefused if an address must not be reached.

    `internal` permits private and loopback addresses, for hosts that an administrator permits.
    Metadata services, link-local and multicast addresses are always refused.
    """
    try:
        ip = _plain(ip_address(address.partition("%")[0]))
    except ValueError:
        raise AddressRefused(f"{address[:60]!r} is not an address") from None
    if ip in METADATA:
        raise AddressRefused(f"{ip} is the address of a metadata service")
    # `is_reserved` of IPv6 includes ::1, which `internal` may permit.
    reserved = ip.version == 4 and ip.is_reserved
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or reserved:
        raise AddressRefused(f"{ip} is not the address of a server")
    public = ip.is_global and (ip.version == 4 or ip in _PUBLIC_V6)
    if not public and not internal:
        raise AddressRefused(f"{ip} is an internal address")


def is_address(host: str) -> bool:
    """Return whether a URL's host is an address and not a name, in any notation that resolvers
    accept, such as 127.1 or 2130706433."""
    try:
        ip_address(host)
    except ValueError:
        return host.rpartition(".")[2][:1].isdigit()
    return True


def _plain(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address leads to, or the address itself."""
    if not isinstance(ip, IPv6Address):
        return ip
    if (inner := ip.ipv4_mapped or ip.sixtofour) is not None:
        return inner
    if ip.teredo is not None:
        return ip.teredo[1]
    if any(ip in network for network in _TRANSLATED) and int(ip) > 1:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip
