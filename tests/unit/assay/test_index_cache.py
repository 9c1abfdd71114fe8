"""The gateway's cache of indexes and texts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from assay.gateway.knowledge.index_cache import SizedCache
from tests.waiting import PATIENCE_S


def test_of_two_threads_that_lack_an_index_one_loads_it() -> None:
    kept: SizedCache[str] = SizedCache(1)
    begun, go_on, loads = threading.Event(), threading.Event(), []

    def load() -> tuple[int, str]:
        loads.append(1)
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return 1, "index"

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(kept.get, "digest", load)
        assert begun.wait(PATIENCE_S)
        second = threads.submit(kept.get, "digest", load)
        go_on.set()
        assert (first.result(PATIENCE_S), second.result(PATIENCE_S)) == ("index", "index")
    assert loads == [1]


def test_a_failed_load_is_tried_again() -> None:
    kept: SizedCache[str] = SizedCache(1)
    with pytest.raises(ZeroDivisionError):
        kept.get("digest", lambda: (1 // 0, ""))
    assert kept.get("digest", lambda: (1, "index")) == "index"


def test_the_least_used_goes_and_the_newest_stays_whatever_its_size(settings: Any) -> None:
    settings.KNOWLEDGE_CACHE_BYTES = 80
    kept: SizedCache[str] = SizedCache(1 / 8)
    for key in ("a", "b", "a", "c"):
        kept.get(key, lambda: (5, "first"))
    found = {key: kept.get(key, lambda: (5, "again")) for key in ("a", "c")}
    assert found == {"a": "first", "c": "first"}
    assert kept.get("b", lambda: (999, "again")) == "again"
    assert kept.get("b", lambda: (999, "thrice")) == "again"
