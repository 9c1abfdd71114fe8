"""Least-recently-used cache of verified indexes and texts of knowledge bases."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from django.conf import settings

from governance.errors import DomainError
from registry.knowledge.index_files import best_rows, read_index
from registry.knowledge.index_format import LoadedIndex, Vectors
from registry.knowledge.selectors import stored_text
from registry.manifests import FilesUnreadable, Manifest, ManifestMismatch

T = TypeVar("T")
_CHARACTER_BYTES = 4
# Share of ASSAY_KNOWLEDGE_CACHE_BYTES reserved for texts, so that they evict no index.
_SHARE_OF_TEXTS = 1 / 8


class IndexRefused(DomainError):
    """The bytes of the index differ from the recorded ones, or cannot be read (503)."""

    code = "index_refused"
    status = 503
    title = "Index refused"


class IndexCache:
    """Loads and searches indexes in its own threads; call `stop` after the last search."""

    def __init__(self) -> None:
        # A search is one product of matrices, which uses several cores by itself.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="assay-knowledge")
        self._indexes: SizedCache[LoadedIndex] = SizedCache(1 - _SHARE_OF_TEXTS)
        self._texts: SizedCache[str] = SizedCache(_SHARE_OF_TEXTS)

    async def search(
        self, manifest: Manifest, query: Vectors, allowed: frozenset[int], most: int
    ) -> list[tuple[int, str, tuple[int, int], str, float]]:
        """Return (version, text SHA-256, span, text, cosine) of the best chunks, best first; of
        chunks with the same text, only the first.

        Raises:
            IndexRefused: the index does not match its manifest, or cannot be read.
            Unavailable: the store lacks a text.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, self._search, manifest, query, allowed, most
        )

    async def stop(self) -> None:
        """Wait for the threads."""
        await asyncio.to_thread(self._threads.shutdown)

    def _search(
        self, manifest: Manifest, query: Vectors, allowed: frozenset[int], most: int
    ) -> list[tuple[int, str, tuple[int, int], str, float]]:
        index = self._index(manifest)
        passages: dict[str, tuple[int, str, tuple[int, int], str, float]] = {}
        looked_at, all_seen = most, False
        # Look further if a text that occurs in many documents took up the best rows.
        while len(passages) < most and not all_seen:
            try:
                rows = best_rows(index, query, allowed, looked_at)
            except ValueError as error:
                raise IndexRefused(f"The index does not fit the question: {error}.") from error
            for row, score in rows:
                document = index.documents[int(index.rows[row])]
                start, end = (int(each) for each in index.spans[row])
                text = self._text(document.text_sha256)[start:end]
                place = (document.version, document.text_sha256, (start, end), text, score)
                passages.setdefault(text, place)
            all_seen = len(rows) < looked_at
            looked_at *= 8
        return list(passages.values())[:most]

    def _index(self, manifest: Manifest) -> LoadedIndex:
        def load() -> tuple[int, LoadedIndex]:
            try:
                loaded = read_index(manifest)
            except (ManifestMismatch, FilesUnreadable) as error:
                raise IndexRefused(
                    f"The index of the knowledge base is not used. {error.message}",
                    hint="Build the index again; it is made from the documents.",
                ) from error
            return loaded.size_bytes, loaded

        return self._indexes.get(manifest.digest, load)

    def _text(self, sha256: str) -> str:
        def load() -> tuple[int, str]:
            text = stored_text(sha256)
            return len(text) * _CHARACTER_BYTES, text

        return self._texts.get(sha256, load)


class SizedCache(Generic[T]):
    """Cache of a share of ASSAY_KNOWLEDGE_CACHE_BYTES; the newest entry always stays."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[int, T]] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}

    def get(self, key: str, load: Callable[[], tuple[int, T]]) -> T:
        """Return the value for `key`. `load` returns its size in bytes and the value; if several
        threads need it, one loads and the others wait."""
        with self._lock:
            if key in self._entries:
                return self._used(key)
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            with self._lock:
                if key in self._entries:
                    return self._used(key)
            try:
                size, value = load()
                with self._lock:
                    self._keep(key, size, value)
            finally:
                with self._lock:
                    self._loading.pop(key, None)
        return value

    def _used(self, key: str) -> T:
        self._entries.move_to_end(key)
        return self._entries[key][1]

    def _keep(self, key: str, size: int, value: T) -> None:
        self._entries[key] = (size, value)
        total = sum(each for each, _ in self._entries.values())
        while total > settings.KNOWLEDGE_CACHE_BYTES * self._share and len(self._entries) > 1:
            total -= self._entries.popitem(last=False)[1][0]
