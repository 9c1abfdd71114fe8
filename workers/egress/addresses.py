"""Judgment of the addresses that a name resolves to.

Names are judged after their resolution, at each connection: a name that resolved to a public
address a moment ago may resolve to an internal one now.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

# Services with a machine's own credentials. Some lie in networks that are public or private.
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
# Addresses of IPv6 that a gateway translates to the IPv4 address in their last 32 bits.
_TRANSLATED = IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("::/96")


class AddressRefused(PermissionError):
    """An address that must not be reached; the message says why."""

    def __init__(self, reason: str) -> None:
        # The client combines the errors of several addresses into one with their common number.
        super().__init__(errno.EACCES, reason)


def check_address(address: str, *, internal: bool) -> None:
    """Raise AddressRefused if an address must not be reached.

    With `internal`, because an administrator permits the host, it may be private or this machine's.
    Services with credentials of machines, link-local and multicast addresses are always refused.
    """
    try:
        ip = _plain(ip_address(address.partition("%")[0]))
    except ValueError:
        raise AddressRefused(f"{address[:60]!r} is not an address") from None
    if ip in METADATA:
        raise AddressRefused(f"{ip} is the address of a metadata service")
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or (ip.is_reserved and not _v6(ip)):
        raise AddressRefused(f"{ip} is not the address of a server")
    if not ip.is_global and not internal:
        raise AddressRefused(f"{ip} is an internal address")


def is_address(host: str) -> bool:
    """Return whether a URL's host is an address in place of a name, in any notation that resolvers
    accept, such as 127.1 or 2130706433."""
    try:
        ip_address(host)
    except ValueError:
        return host.rpartition(".")[2][:1].isdigit()
    return True


def _plain(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an address of IPv6 stands for, if it stands for one."""
    if not isinstance(ip, IPv6Address):
        return ip
    if (inner := ip.ipv4_mapped or ip.sixtofour) is not None:
        return inner
    if ip.teredo is not None:
        return ip.teredo[1]
    if any(ip in network for network in _TRANSLATED) and int(ip) > 1:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


def _v6(ip: IPv4Address | IPv6Address) -> bool:
    # `is_reserved` of IPv6 includes ::1, which `internal` may permit.
    return ip.version == 6
