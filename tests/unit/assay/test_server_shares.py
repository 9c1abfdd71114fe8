"""Shared resources have room for each holder, and downloads name theirs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assay.server.downloads import pop_holder, ungated
from assay.server.shares import Shares


def test_a_holder_takes_as_much_as_is_left_to_others() -> None:
    places = Shares(8)
    taken = {name: sum(places.take(name) for _ in range(9)) for name in "abcd"}
    assert taken == {"a": 4, "b": 2, "c": 1, "d": 1}
    assert not places.take("e")
    places.give_back("a")
    assert places.take("e")
    assert not places.take("a")


def test_small_requests_find_room_however_many_large_ones_came_before() -> None:
    space = Shares(1000)
    assert space.take("a", 500)
    assert not space.take("a")
    assert [space.take(name, 200) for name in "bcd"] == [True, False, False]
    assert space.take("e", 10)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.booleans())))
def test_room_is_neither_lost_nor_given_twice(steps: list[tuple[str, int, bool]]) -> None:
    space, held = Shares(20), dict.fromkeys("abc", 0)
    for holder, amount, takes in steps:
        if takes and space.take(holder, amount):
            held[holder] += amount
        elif not takes and held[holder] >= amount:
            space.give_back(holder, amount)
            held[holder] -= amount
        assert sum(held.values()) <= 20
    for holder, amount in held.items():
        space.give_back(holder, amount)
    assert space.take("a", 10)
    assert space.fits("b", 5)


def test_the_header_that_names_the_node_is_not_sent() -> None:
    (name, node), other = *ungated("gpu-1").items(), (b"etag", b"x")
    message = {"headers": [(name.encode(), node.encode()), other]}
    assert pop_holder(message) == "gpu-1"
    assert message["headers"] == [other]
    assert pop_holder(message) is None
