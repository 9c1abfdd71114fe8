"""POST /v1/rerank, in the shape that Cohere and Jina share, and Cohere's /v2/rerank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from assay.plugins import declare
from tasks.rerank.schema import MAX_DOCUMENTS, RerankInputs

# Bound on query and documents; the query counts once per document, because each pair is read.
MAX_CHARACTERS = 10_000_000
_BYTES_PER_TOKEN = 3

Query = Annotated[str, Field(min_length=1, max_length=10_000)]
DocumentText = Annotated[str, Field(min_length=1, max_length=100_000)]


class DocumentObject(declare.Strict):
    """A document as an object."""

    text: DocumentText


def _kind(value: Any) -> str:
    return "one" if isinstance(value, str) else "many"


Document = Annotated[
    Annotated[DocumentText, Tag("one")] | Annotated[DocumentObject, Tag("many")],
    Discriminator(_kind),
]


class RerankRequest(declare.Strict):
    """POST /v1/rerank and /v2/rerank. `top_n` keeps the best documents; all by default.

    `truncate` cuts the longer text of each query–document pair that exceeds the model's context.
    """

    model: declare.Name
    query: Query
    documents: Annotated[list[Document], Field(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    truncate: declare.CohereTruncate | None = None
    user: declare.User | None = None
    rank_fields: None = None
    max_chunks_per_doc: None = None
    max_tokens_per_doc: None = None
    relevant_spans: None = None
    priority: Literal[0] | None = None


def read_rerank(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/rerank. Raises RequestInvalid."""
    return _plan(body, request_id, "1")


def read_rerank_v2(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v2/rerank, which Cohere's newer client calls. Raises RequestInvalid."""
    return _plan(body, request_id, "2")


def _plan(body: declare.Body, request_id: str, api_version: str) -> declare.Plan:
    request = declare.parse(RerankRequest, body.data)
    documents = [each if isinstance(each, str) else each.text for each in request.documents]
    characters = sum(map(len, documents)) + len(request.query) * len(documents)
    if characters > MAX_CHARACTERS:
        raise declare.RequestInvalid(
            f"The query is read with each document: that is {characters:,} characters, and at most "
            f"{MAX_CHARACTERS:,} are accepted. Send fewer or shorter documents.",
            param="documents",
        )
    query_bytes = len(request.query.encode("utf-8", "replace"))
    tokens = sum(
        1 + (query_bytes + len(each.encode("utf-8", "replace"))) // _BYTES_PER_TOKEN
        for each in documents
    )
    return declare.Plan(
        model=request.model,
        user=request.user or "",
        inputs=RerankInputs(query=request.query, documents=documents),
        options=declare.TextOptions(truncate=declare.cohere_side(request.truncate)),
        renderer=RerankRenderer(
            id=f"rerank-{request_id[4:]}",
            model=request.model,
            documents=documents,
            top_n=request.top_n or len(documents),
            return_documents=bool(request.return_documents),
            api_version=api_version,
        ),
        tokens=tokens,
        prompt_tokens=tokens,
    )


@dataclass(slots=True)
class RerankRenderer:
    """The documents' indexes, most relevant first; equal scores keep the request's order."""

    id: str
    model: str
    documents: list[str]
    top_n: int
    return_documents: bool
    api_version: str

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        scores = answer.results
        best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: self.top_n]
        results: list[dict[str, Any]] = []
        for index in best:
            result = {"index": index, "relevance_score": scores[index]}
            if self.return_documents:
                result["document"] = {"text": self.documents[index]}
            results.append(result)
        return {
            "id": self.id,
            "object": "list",
            "model": self.model,
            "results": results,
            "usage": {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens},
            "meta": {
                "api_version": {"version": self.api_version},
                "tokens": {"input_tokens": answer.prompt_tokens, "output_tokens": 0},
                **declare.cohere_warnings(answer),
            },
        }
