"""`/v1/vector_stores`: knowledge bases under the addresses and in the shapes of OpenAI's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from django.conf import settings
from pydantic import Discriminator, Field, Tag

from assay.gateway.call import Call
from assay.gateway.http import Receive, Scope, encode, parsed, read_body, respond
from assay.gateway.knowledge_entries import KnowledgeEntry
from assay.gateway.ledger import Settlement
from assay.gateway.retrieval import (
    Asker,
    find_knowledge,
    retrieve,
    still_allowed,
    visible_knowledge,
)
from assay.gateway.stored import Asked, listed, require_method
from governance.permissions import Action
from registry.catalog.endpoints import dumps
from registry.catalog.grounding import Passage
from registry.catalog.requests import Strict, Text, one_or_many, parse

if TYPE_CHECKING:
    from assay.gateway.runtime import Runtime

PATH = "/v1/vector_stores"
DEFAULT_RESULTS = 10
MAX_RESULTS = 50


class RankingOptions(Strict):
    """Results below `score_threshold` are left out; there is one ranker, by cosine."""

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


def label(method: str, path: str) -> str:
    """The path as metrics and the ledger name it; empty when it is not one of these."""
    if path == PATH:
        return PATH
    parts = path.removeprefix(f"{PATH}/").split("/") if path.startswith(f"{PATH}/") else []
    if len(parts) == 1 and parts[0]:
        return f"{PATH}/{{id}}"
    return f"{PATH}/{{id}}/search" if len(parts) == 2 and parts[1] == "search" else ""


async def answer(asked: Asked) -> None:
    """Answer one request under `PATH`, and record it.

    Raises:
        DomainError: it is refused.
    """
    runtime, call, key, asker = asked.runtime, asked.call, asked.key, asked.asker
    name = asked.path.removeprefix(PATH).strip("/").partition("/")[0]
    address = asker.circumstances.client_address
    if call.endpoint == PATH:
        entries = visible_knowledge(asked.snapshot, key, address)
        shown = listed([_store(entry) for entry in entries], has_more=False)
    elif call.endpoint.endswith("/search"):
        # Checked before the body is read, so that a refused caller does not upload it.
        find_knowledge(asked.snapshot, key, name, address)
        shown = await _search(runtime, call, asker, name, asked.scope, asked.receive)
    else:
        shown = _store(find_knowledge(asked.snapshot, key, name, address))
    call.recorded = True
    entry = call.entry("ok", ran=False)
    if call.endpoint.endswith("/search"):
        # Every search that gave passages is recorded, whatever the rate; the embedding paid for it.
        await runtime.ledger.settle(Settlement(entry))
    else:
        runtime.ledger.record_bounded(entry)
    await respond(asked.send, 200, encode(dumps(shown)), call.headers())


async def _search(
    runtime: Runtime, call: Call, asker: Asker, name: str, scope: Scope, receive: Receive
) -> dict[str, Any]:
    body = await read_body(scope, receive, settings.GATEWAY_MAX_BODY_BYTES, ("application/json",))
    request = await parsed(body, parse, SearchRequest, body.data)
    queries = [request.query] if isinstance(request.query, str) else list(request.query)
    query = "\n".join(queries)
    most = request.max_num_results or DEFAULT_RESULTS
    found = await retrieve(runtime, call, asker, name, query, most)
    options = request.ranking_options
    least = -1.0 if options is None or options.score_threshold is None else options.score_threshold
    snapshot = await runtime.refresher.knowing(asker.token.public_id)
    current = still_allowed(snapshot, asker, name, found)
    passages = [each for each in current if each.score >= least]
    call.sources = tuple(sorted({each.version for each in passages}))
    return {
        "object": "vector_store.search_results.page",
        "search_query": queries,
        "data": [_result(each) for each in passages],
        "has_more": False,
        "next_page": None,
    }


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
            "canceled": 0,
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


def check_method(endpoint: str, method: str) -> None:
    """Raises WrongMethod unless `endpoint` takes `method`."""
    require_method(endpoint, method, ("POST",) if endpoint.endswith("/search") else ("GET",))


def action_of(endpoint: str, method: str) -> Action:
    """Return the action that a request is."""
    return Action.KNOWLEDGE_SEARCH if endpoint.endswith("/search") else Action.KNOWLEDGE_VIEW
