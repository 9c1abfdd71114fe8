"""Values that a condition can compare: texts, integers, booleans, null, and collections of these.

Fractions are not values, and kinds are never converted: `1`, `true` and `"1"` are three values.
Imports no Django.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

Network = IPv4Network | IPv6Network

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
TEXT_MAX = 200
_MAPPED = bytes(10) + b"\xff\xff"
TIMES = frozenset(f"{hour:02d}:{minute:02d}" for hour in range(24) for minute in range(60))


class Kind(IntEnum):
    """Kind of a value. Conditions cannot compare `OTHER`."""

    TEXT = 0
    NUMBER = 1
    FLAG = 2
    NOTHING = 3
    COLLECTION = 4
    OTHER = 5


KIND_WORDS = {
    Kind.TEXT: "a text",
    Kind.NUMBER: "a whole number",
    Kind.FLAG: "yes or no",
    Kind.NOTHING: "not given",
    Kind.COLLECTION: "a collection",
    Kind.OTHER: "of a kind that cannot be compared",
}
SCALARS = frozenset({Kind.TEXT, Kind.NUMBER, Kind.FLAG})
_KINDS: dict[type, Kind] = {
    str: Kind.TEXT,
    bool: Kind.FLAG,
    type(None): Kind.NOTHING,
    list: Kind.COLLECTION,
    tuple: Kind.COLLECTION,
    set: Kind.COLLECTION,
    frozenset: Kind.COLLECTION,
}


def kind_of(value: Any) -> Kind:
    """Return the kind of a value. A collection that is nested or has an `OTHER` is `OTHER`."""
    kind = _KINDS.get(type(value))
    if kind is None:
        return _kind_of_subclass(value)
    if kind is Kind.COLLECTION:
        for item in value:
            if type(item) is not str and not _is_member(item):
                return Kind.OTHER
    return kind


def _kind_of_subclass(value: Any) -> Kind:
    """Return the kind of an integer, which has bounds, or of an enumeration's text or number."""
    if isinstance(value, int):
        return Kind.NUMBER if INT_MIN <= value <= INT_MAX else Kind.OTHER
    return Kind.TEXT if isinstance(value, str) else Kind.OTHER


def _is_member(value: Any) -> bool:
    kind = _KINDS.get(type(value))
    if kind is None:
        kind = _kind_of_subclass(value)
    return kind < Kind.COLLECTION


def common_kind(values: Iterable[Any]) -> Kind:
    """Return the kind that all values share, a text, number or flag; else `OTHER`."""
    kinds = {kind_of(value) for value in values}
    return kinds.pop() if len(kinds) == 1 and kinds <= SCALARS else Kind.OTHER


def is_time(value: str) -> bool:
    """Return whether the text is a time such as "09:30". Times sort in the order of the day."""
    return value in TIMES


def order_kind(value: Any) -> str:
    """Return the order of a value: `number` or `time`; empty if it has none."""
    kind = kind_of(value)
    if kind is Kind.NUMBER:
        return "number"
    return "time" if kind is Kind.TEXT and is_time(value) else ""


@lru_cache(maxsize=4096)
def parse_address(text: str) -> tuple[int, int] | None:
    """Return the version (4 or 6) and number of an IP address; None if the text is not one.

    An IPv4 address as an IPv6 socket reports it (`::ffff:10.0.0.1`) counts as IPv4.
    """
    try:
        return 4, int.from_bytes(inet_pton(AF_INET, text), "big")
    except (OSError, ValueError):
        pass
    try:
        packed = inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        return None
    if packed.startswith(_MAPPED):
        return 4, int.from_bytes(packed[len(_MAPPED) :], "big")
    return 6, int.from_bytes(packed, "big")


@lru_cache(maxsize=4096)
def parse_network(text: str) -> Network:
    """Parse a network in CIDR notation, or a single address.

    Raises:
        ValueError: the text is neither, or has bits set outside its prefix.
    """
    return ip_network(text)


def prefix_of(network: Network) -> tuple[int, int, int]:
    """Return the version, the number of host bits, and the prefix without those bits."""
    drop = network.max_prefixlen - network.prefixlen
    return network.version, drop, int(network.network_address) >> drop
