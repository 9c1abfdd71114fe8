"""Choice of the connection to close when there are too many."""

from __future__ import annotations

from typing import Any

import pytest

from assay.server.connections import Waiting, source_of


def waiting(*sources: str) -> tuple[Waiting, list[Any]]:
    made, connections = Waiting(), [object() for _ in sources]
    for connection, source in zip(connections, sources, strict=True):
        made.add(connection, source)  # type: ignore[arg-type]
    return made, connections


def test_the_longest_wait_goes_first() -> None:
    made, (first, second, third) = waiting("a", "b", "c")
    assert made.longest() is first
    made.add(first, "a")
    assert made.longest() is second
    made.remove(second)
    assert made.longest() is third


def test_of_the_address_that_has_most() -> None:
    made, connections = waiting("a", "b", "b", "c", "b", "c")
    assert made.longest() is connections[1]
    made.remove(connections[1])
    made.remove(connections[2])
    assert made.longest() is connections[3]


def test_connections_of_proxies_count_for_nobody() -> None:
    made, connections = waiting("", "", "", "a", "b", "b")
    assert made.longest() is connections[4]
    made.remove(connections[4])
    assert made.longest() is connections[0]


def test_nothing_is_left_of_one_that_is_gone() -> None:
    made, connections = waiting("a", "a", "")
    for connection in connections:
        made.remove(connection)
        made.remove(connection)
    assert not made._counts
    with pytest.raises(LookupError):
        made.longest()


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("10.0.0.9", ""),
        ("", ""),
        ("unix", ""),
    ],
)
def test_an_address_counts_with_its_network(settings: Any, address: str, source: str) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.0/24"]
    source_of.cache_clear()
    assert source_of(address) == source
    source_of.cache_clear()
