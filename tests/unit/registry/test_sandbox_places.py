"""Places for work of several owners: none holds all of them, and whoever waits gets the next."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from governance.errors import QuotaExceeded, Unavailable
from registry.sandbox.places import FairPlaces
from tests.waiting import PATIENCE_S


def places(
    count: int = 3, *, wait_s: float = 20.0, waiting: tuple[int, int] = (8, 4)
) -> FairPlaces:
    return FairPlaces(count, wait_s=wait_s, waiting=waiting, refusal="It is full.")


def test_one_owner_leaves_a_place_for_another() -> None:
    some = places(3, wait_s=0.01)
    with some.place("a"), some.place("a"):
        with pytest.raises(Unavailable, match="It is full"), some.place("a"):
            pass
        with some.place("b"), pytest.raises(Unavailable), some.place("c"):
            pass
    with some.place("a"):
        pass


@pytest.mark.parametrize(("count", "each"), [(1, 1), (2, 1), (3, 2), (9, 8)])
def test_all_but_one_place_are_open_to_one_owner(count: int, each: int) -> None:
    some = places(count, wait_s=0.01)
    with ExitStack() as held:
        for _ in range(each):
            held.enter_context(some.place("a"))
        with pytest.raises(Unavailable), some.place("a"):
            pass


def test_a_group_leaves_a_place_for_another_and_its_owner_one_for_the_group() -> None:
    some = places(4, wait_s=0.01)
    with some.place("a1", "a"), some.place("a1", "a"):
        with pytest.raises(Unavailable), some.place("a1", "a"):
            pass
        with some.place("a2", "a"):
            for name in ("a2", "a3"):
                with pytest.raises(Unavailable), some.place(name, "a"):
                    pass
            with some.place("b1", "b"):
                pass
            # One without a group is a group of that name.
            with pytest.raises(Unavailable), some.place("a"):
                pass


async def test_a_group_of_many_owners_keeps_none_of_another_waiting() -> None:
    some, found = places(1, waiting=(40, 4)), []

    async def ask(name: str) -> None:
        async with some.place_async(name, name[0]):
            found.append(name)

    async with some.place_async("x"):
        many = [asyncio.create_task(ask(f"a{number}")) for number in range(30)]
        await asyncio.sleep(0)
        # Half of those who may wait.
        assert sum(each.done() for each in many) == 10
        other = asyncio.create_task(ask("b"))
        await asyncio.sleep(0)
        assert not other.done()
    refused = [each for each in await asyncio.gather(*many, return_exceptions=True) if each]
    await other
    assert [type(each) for each in refused] == [QuotaExceeded] * 10
    assert len(found) == 21


async def served(some: FairPlaces, order: list[str]) -> list[str]:
    """Ask for places in this order while all are taken; return the order in which they are
    given.
    """
    found: list[str] = []
    ready, release = asyncio.Event(), asyncio.Event()

    async def hold(owner: str) -> None:
        async with some.place_async(owner):
            ready.set()
            await release.wait()

    async def ask(name: str) -> None:
        async with some.place_async(name[0]):
            found.append(name)

    holding = asyncio.create_task(hold("x"))
    await ready.wait()
    asking = [asyncio.create_task(ask(name)) for name in order]
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(holding, *asking)
    return found


async def test_an_owner_with_many_requests_keeps_none_of_another_waiting() -> None:
    order = ["a1", "a2", "a3", "a4", "b1", "c1", "b2"]
    assert await served(places(1), order) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_so_many_wait_and_no_more() -> None:
    some = places(1, waiting=(3, 2))
    async with some.place_async("x"):
        waiting = [asyncio.create_task(_pass(some, owner)) for owner in "aab"]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await _pass(some, "c")
        waiting.pop().cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(QuotaExceeded):
            await _pass(some, "a")
    await asyncio.gather(*waiting)


async def _pass(some: FairPlaces, owner: str) -> None:
    async with some.place_async(owner):
        pass


async def test_who_gives_up_keeps_no_place() -> None:
    some = places(1, wait_s=0.05)
    async with some.place_async("x"):
        with pytest.raises(Unavailable):
            await _pass(some, "a")
        gone = asyncio.create_task(_pass(some, "b"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    await asyncio.wait_for(_pass(some, "c"), 5)


async def test_a_place_that_is_given_to_a_task_that_is_canceled_goes_on_to_the_next() -> None:
    some = places(1)
    async with some.place_async("x"):
        gone = asyncio.create_task(_pass(some, "a"))
        await asyncio.sleep(0)
        following = asyncio.create_task(_pass(some, "b"))
        await asyncio.sleep(0)
    # Given to the first, which has not run since.
    gone.cancel()
    await asyncio.wait_for(following, 5)
    await asyncio.wait_for(_pass(some, "c"), 5)


def test_threads_share_places_and_never_exceed_them() -> None:
    some, now, most = places(3, waiting=(100, 100)), [0], [0]
    lock = threading.Lock()

    def work(owner: str) -> None:
        for _ in range(50):
            with some.place(owner):
                with lock:
                    now[0] += 1
                    most[0] = max(most[0], now[0])
                with lock:
                    now[0] -= 1

    threads = [threading.Thread(target=work, args=(owner,)) for owner in _owners()]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE_S)
    assert now == [0]
    assert most[0] <= 3
    with some.place("a"), some.place("a"), some.place("b"):
        pass


def _owners() -> Iterator[str]:
    yield from "aaabbcd"
