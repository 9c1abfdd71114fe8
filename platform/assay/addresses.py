"""Address of the client of a request. Knows no Django, so that gateway and middleware share it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network


def networks(texts: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Addresses and CIDRs as networks; other texts are left out, and so never trusted."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text, strict=False))
        except ValueError:
            continue
    return tuple(found)


@lru_cache(4096)
def plain_address(text: str) -> str:
    """An address in its usual form, IPv4 out of IPv6's clothes.

    Raises:
        ValueError: it is no address.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def forwarded_address(peer: str, forwarded: Sequence[str], trusted: Iterable[str]) -> str:
    """The client's address: the peer's, or what trusted proxies say in `X-Forwarded-For`.

    `forwarded` are the header's values in the order they came. They are read from the right, past
    every address in `trusted` (addresses or CIDRs); what a client puts in front is never believed.
    """
    try:
        address = plain_address(peer)
    except ValueError:
        return peer
    believed = networks(trusted)
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    while hops and any(ip_address(address) in network for network in believed):
        try:
            address = plain_address(hops.pop())
        except ValueError:
            break
    return address
