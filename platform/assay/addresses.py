"""Address of a request's client. Does not use Django, so that gateway and middleware share it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network


def networks(texts: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return addresses and CIDRs as networks; other texts are omitted, and so not trusted."""
    parsed = []
    for text in texts:
        try:
            parsed.append(ip_network(text, strict=False))
        except ValueError:
            continue
    return tuple(parsed)


@lru_cache(4096)
def plain_address(text: str) -> str:
    """Return an address in its usual form; an IPv4-mapped IPv6 address as IPv4.

    Raises:
        ValueError: it is not an address.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def forwarded_address(peer: str, forwarded: Sequence[str], trusted: Iterable[str]) -> str:
    """Return the client's address: the peer's, or the one that trusted proxies state in
    `X-Forwarded-For`.

    `forwarded` are the header's values in order of arrival. They are read from the right, past
    every address in `trusted` (addresses or CIDRs); values that a client puts in front are ignored.
    """
    try:
        address = plain_address(peer)
    except ValueError:
        return peer
    proxies = networks(trusted)
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    while hops and any(ip_address(address) in network for network in proxies):
        try:
            address = plain_address(hops.pop())
        except ValueError:
            break
    return address
