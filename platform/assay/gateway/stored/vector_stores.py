"""`/v1/vector_stores`: knowledge bases under OpenAI's paths and in its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from assay.gateway.access.knowledge_entries import KnowledgeEntry
from assay.gateway.knowledge.rights import find_knowledge, visible_knowledge
from assay.gateway.quota.ledger import Settlement
from assay.gateway.stored.requests import OwnRequest, answer_json, list_body, read_json
from registry.catalog.grounding import Passage
from registry.catalog.requests import Strict, Text, one_or_many

PATH = "/v1/vector_stores"
DEFAULT_RESULTS = 10
MAX_RESULTS = 50


class RankingOptions(Strict):
    """Minimum score of results. The only ranker uses the cosine."""

    ranker: Literal["auto", "none"] | None = None
    score_threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None


class SearchRequest(Strict):
    """POST /v1/vector_stores/{name}/search."""

    query: Annotated[
        Annotated[Text, Tag("one")]
        | Annotated[list[Text], Field(min_length=1, max_length=8), Tag("many")],
        Discriminator(one_or_many),
    ]
    max_num_results: Annotated[int, Field(ge=1, le=MAX_RESULTS)] | None = None
    rewrite_query: Literal[False] | None = None
    ranking_options: RankingOptions | None = None
    filters: None = None


async def page(request: OwnRequest) -> None:
    """Answer with all knowledge bases that the caller may see."""
    entries = visible_knowledge(request.snapshot, request.key, request.caller.client_address)
    await answer_json(request, list_body([_store(entry) for entry in entries], has_more=False))


async def show(request: OwnRequest) -> None:
    """Answer with one knowledge base."""
    await answer_json(request, _store(_find(request)))


async def search(request: OwnRequest) -> None:
    """Answer with the passages of a search."""
    _find(request)  # Before the body is read, so that a refused caller does not upload it.
    body = await read_json(request, SearchRequest)
    queries = [body.query] if isinstance(body.query, str) else list(body.query)
    query, most = "\n".join(queries), body.max_num_results or DEFAULT_RESULTS
    call, desks = request.call, request.desks
    ranked, _ = await desks.retrieval.search(call, request.caller, request.id, query, most)
    options = body.ranking_options
    least = -1.0 if options is None or options.score_threshold is None else options.score_threshold
    passages = [each for each in ranked if each.score >= least]
    call.sources = tuple(sorted({each.version for each in passages}))
    # Every search that returned passages is recorded, without a rate limit: each had to pay for an
    # embedding.
    call.recorded = True
    await desks.ledger.settle(Settlement(call.entry("ok", ran=False)))
    page = {
        "object": "vector_store.search_results.page",
        "search_query": queries,
        "data": [_result(each) for each in passages],
        "has_more": False,
        "next_page": None,
    }
    await answer_json(request, page, recorded=True)


def _find(request: OwnRequest) -> KnowledgeEntry:
    return find_knowledge(request.snapshot, request.key, request.id, request.caller.client_address)


def _result(passage: Passage) -> dict[str, Any]:
    attributes: Mapping[str, Any] = {
        "document": passage.title,
        "document_version": passage.version_number,
        "sha256": passage.sha256,
        "classification": passage.classification,
        "start": passage.start,
        "end": passage.end,
        "url": passage.url,
    }
    return {
        "file_id": f"file-{passage.version}",
        "filename": passage.filename,
        "score": passage.score,
        "attributes": attributes,
        "content": [{"type": "text", "text": passage.text}],
    }


def _store(entry: KnowledgeEntry) -> dict[str, Any]:
    total = len(entry.documents)
    ready = sum(version in entry.indexed for version in entry.documents)
    return {
        "id": entry.name,
        "object": "vector_store",
        "created_at": int(entry.created_at),
        "name": entry.title,
        "usage_bytes": sum(each.size_bytes for each in entry.documents.values()),
        "file_counts": {
            "in_progress": total - ready,
            "completed": ready,
            "failed": 0,
            "cancelled": 0,
            "total": total,
        },
        "status": "completed" if ready == total else "in_progress",
        "last_active_at": int(entry.created_at),
        "metadata": {
            "department": entry.resource.department or "",
            "index": "" if entry.manifest is None else entry.manifest.digest,
            "embedding": entry.embedding_name,
        },
    }
