"""The gateway's cache of keys: bounded, and out of reach of guesses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from assay.gateway.access import key_cache
from assay.gateway.access.key_cache import KeyCache, KnownIds
from assay.gateway.access.key_entries import KeyEntry
from governance.principals import Principal, PrincipalKind
from governance.quotas.kinds import subjects_of
from governance.quotas.wire import Limit


def entry(public_id: str, **changes: Any) -> KeyEntry:
    actor = Principal(kind=PrincipalKind.KEY, id="1", name="app")
    subjects = frozenset(subjects_of(department="clinical", key=public_id))
    return KeyEntry(
        public_id, b"", 1, "app", "clinical", math.inf, None, actor, (),
        counted_as=public_id, subjects=subjects, **changes,
    )  # fmt: skip


def read(cache: KeyCache, *public_ids: str, proved: bool = False) -> None:
    """Read keys that exist, as a request with each does."""
    for public_id in public_ids:
        cache.update([public_id], {public_id: entry(public_id)})
        if proved:
            cache[public_id].proved.append(b"digest")
            assert cache[public_id].proved


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cache, "PROVED_MAX", 3)
    monkeypatch.setattr(key_cache, "SEEN_MAX", 2)
    monkeypatch.setattr(key_cache, "ABSENT_MAX", 2)


def test_the_key_that_was_not_used_for_longest_goes_first() -> None:
    cache = KeyCache()
    read(cache, "a", "b", "c", proved=True)
    assert cache["a"]
    read(cache, "d", proved=True)
    assert set(cache) == {"a", "c", "d"}


def test_keys_whose_secret_was_never_proved_push_out_only_each_other() -> None:
    """Public IDs are no secret: whoever knows many could use them with wrong secrets."""
    cache = KeyCache()
    read(cache, "a", "b", "c", proved=True)
    read(cache, *"123456789")
    assert set(cache) == {"a", "b", "c", "8", "9"}


def test_unknown_ids_are_remembered_for_a_while_and_in_a_bounded_number() -> None:
    cache = KeyCache()
    read(cache, "a", proved=True)
    for public_id in ("1", "2", "3"):
        cache.update([public_id], {})
    assert [cache.absent(each) for each in ("a", "1", "2", "3")] == [False, False, True, True]
    assert set(cache) == {"a"}
    # From its creation on it is looked up again.
    cache.changed("3")
    assert not cache.absent("3")


def test_a_key_of_a_running_request_stays_until_it_ends() -> None:
    cache = KeyCache()
    read(cache, "a", proved=True)
    cache.pin("a")
    cache.pin("a")
    read(cache, "b", "c", "d", "e", "f", proved=True)
    cache.unpin("a")
    assert cache.forget() == {"a"}
    cache.unpin("a")
    assert cache.forget() == set()


def test_a_change_of_a_cached_key_asks_for_another_reading() -> None:
    cache = KeyCache()
    read(cache, "a", proved=True)
    assert cache.changed("a")
    # Another one is known to exist from then on, and read when it is used.
    assert not cache.changed("b")
    assert "b" in cache.known
    read(cache, "a")
    assert not cache["a"].proved


def test_limits_of_a_subject_reach_its_cached_keys() -> None:
    cache = KeyCache()
    read(cache, "a", proved=True)
    read(cache, "b")
    limit = Limit("key:b", "requests_per_minute", 5)
    before = cache["b"]
    cache.limit({"key:b"}, {"key:b": (limit,)})
    assert (cache["a"].limits, cache["b"].limits) == ((), (limit,))
    # Decisions are cached by the serial number.
    assert cache["b"].serial != before.serial


def test_the_walk_over_all_keys_comes_to_each() -> None:
    cache = KeyCache()
    read(cache, "a", "b", "c", proved=True)
    read(cache, "d", "e")
    assert [cache.next_to_check(2) for _ in range(4)] == [["a", "b"], ["c", "d"], ["e"], ["a", "b"]]


def test_known_ids_are_those_that_were_read_and_added() -> None:
    known = KnownIds(["a", "b", "c"])
    known.add("d")
    known.add("a")
    assert [each in known for each in "abcdef"] == [True, True, True, True, False, False]
    assert len(known) == 4
