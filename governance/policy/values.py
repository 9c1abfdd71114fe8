"""Values that a condition can compare: texts, whole numbers, booleans, collections of them, none.

There are no fractions, and no kind is ever taken for another: `1`, `true` and `"1"` are three
values. Knows no Django.
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
    """The kind of a value; `OTHER` is what no condition can compare."""

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
    Kind.OTHER: "of no kind that can be compared",
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
    """The kind of a value. A collection with a member of no kind, or nested, is `OTHER`."""
    kind = _KINDS.get(type(value))
    if kind is None:
        return _kind_of_subclass(value)
    if kind is Kind.COLLECTION:
        for item in value:
            if type(item) is not str and not _is_member(item):
                return Kind.OTHER
    return kind


def _kind_of_subclass(value: Any) -> Kind:
    """Of whole numbers, which have bounds, and of enumerations, which are texts or numbers too."""
    if isinstance(value, int):
        return Kind.NUMBER if INT_MIN <= value <= INT_MAX else Kind.OTHER
    return Kind.TEXT if isinstance(value, str) else Kind.OTHER


def _is_member(value: Any) -> bool:
    kind = _KINDS.get(type(value))
    if kind is None:
        kind = _kind_of_subclass(value)
    return kind < Kind.COLLECTION


def common_kind(values: Iterable[Any]) -> Kind:
    """The one kind that all values share, of text, number and flag; `OTHER` when there is none."""
    kinds = {kind_of(value) for value in values}
    return kinds.pop() if len(kinds) == 1 and kinds <= SCALARS else Kind.OTHER


def is_time(value: str) -> bool:
    """True for a time of day such as "09:30". Such texts sort in the order of the day."""
    return value in TIMES


def order_kind(value: Any) -> str:
    """`number` or `time`, of what has an order; empty for everything else."""
    kind = kind_of(value)
    if kind is Kind.NUMBER:
        return "number"
    return "time" if kind is Kind.TEXT and is_time(value) else ""


@lru_cache(maxsize=4096)
def parse_address(text: str) -> tuple[int, int] | None:
    """The version (4 or 6) and the number of an IP address; None when it is none.

    An IPv4 address that an IPv6 socket reports (`::ffff:10.0.0.1`) is the IPv4 address.
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
    """A network in CIDR notation, or one address.

    Raises:
        ValueError: it is neither, or has bits set outside its prefix.
    """
    return ip_network(text)


def prefix_of(network: Network) -> tuple[int, int, int]:
    """Version, bits to drop from an address, and what is left of those inside."""
    drop = network.max_prefixlen - network.prefixlen
    return network.version, drop, int(network.network_address) >> drop
