"""Verified indexes and texts of knowledge bases in memory, the least used let go first."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.conf import settings

from governance.errors import DomainError
from registry import store
from registry.knowledge.index_files import LoadedIndex, Vectors, best_rows, read_index
from registry.knowledge.selectors import stored_text
from registry.manifests import FilesUnreadable, Manifest, ManifestMismatch

T = TypeVar("T")
_CHARACTER_BYTES = 4


class IndexRefused(DomainError):
    """The index's bytes are not those that were recorded, or cannot be read (503)."""

    code = "index_refused"
    status = 503
    title = "Index refused"


class IndexCache:
    """Loads and searches in threads of its own; `stop` it when nothing searches any more."""

    def __init__(self) -> None:
        # A search is one product of matrices, which uses several cores by itself.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="assay-knowledge")
        self._kept: OrderedDict[str, tuple[int, object]] = OrderedDict()
        self._lock = threading.Lock()

    async def search(
        self, manifest: Manifest, query: Vectors, allowed: frozenset[int], most: int
    ) -> list[tuple[int, str, tuple[int, int], str, float]]:
        """Return (version, text SHA-256, span, text, cosine) of the best chunks, best first.

        Raises:
            IndexRefused: the index has other bytes than its manifest, or cannot be read.
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
        try:
            rows = best_rows(index, query, allowed, most)
        except ValueError as error:
            raise IndexRefused(f"The index does not fit the question: {error}.") from error
        found = []
        for row, score in rows:
            document = index.documents[int(index.rows[row])]
            start, end = (int(each) for each in index.spans[row])
            text = self._text(document.text_sha256)[start:end]
            found.append((document.version, document.text_sha256, (start, end), text, score))
        return found

    def _index(self, manifest: Manifest) -> LoadedIndex:
        def load() -> tuple[int, LoadedIndex]:
            try:
                loaded = read_index(store.version_folder(manifest.digest), manifest)
            except (ManifestMismatch, FilesUnreadable) as error:
                raise IndexRefused(
                    f"The index of the knowledge base is not used. {error.message}",
                    hint="Build the index again; it is made from the documents.",
                ) from error
            return loaded.size_bytes, loaded

        return self._cached(manifest.digest, load)

    def _text(self, sha256: str) -> str:
        def load() -> tuple[int, str]:
            text = stored_text(sha256)
            return len(text) * _CHARACTER_BYTES, text

        return self._cached(f"text:{sha256}", load)

    def _cached(self, key: str, load: Callable[[], tuple[int, T]]) -> T:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                found: T = self._kept[key][1]  # type: ignore[assignment]
                return found
        size, made = load()
        with self._lock:
            self._kept[key] = (size, made)
            total = sum(each for each, _ in self._kept.values())
            while total > settings.KNOWLEDGE_CACHE_BYTES and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1][0]
        return made
