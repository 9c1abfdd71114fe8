"""The inference endpoints: each turns a body into what an engine takes and how its answer looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from assay.gateway.rendering import (
    ClassifyRenderer,
    EmbeddingsRenderer,
    GenerationRenderer,
    Renderer,
)
from assay.gateway.schemas import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    EmbeddingsRequest,
    parse,
)

# A token of ordinary text is seldom shorter than three bytes.
_BYTES_PER_TOKEN = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """One validated request. `tokens` is what to reserve: the prompt's estimate and the limit.
    `units` is the most that it can cost in its deployment's unit; 0 means as many as tokens.
    """

    model: str
    inputs: dict[str, Any]
    renderer: Renderer
    tokens: int
    prompt_tokens: int
    sampling: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    units: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path, the task of the catalogue that it serves, and its reading of a body."""

    path: str
    task: str
    plan: Callable[[bytes, str], Plan]


def estimate_tokens(texts: list[str]) -> int:
    """An upper guess of how many tokens the texts are; at least one."""
    return max(1, sum(len(text.encode("utf-8", "replace")) for text in texts) // _BYTES_PER_TOKEN)


def plan_chat(body: bytes, request_id: str) -> Plan:
    """POST /v1/chat/completions. Raises RequestInvalid."""
    request = parse(ChatRequest, body)
    messages = [message.plain() for message in request.messages]
    prompt_tokens = estimate_tokens([message["content"] for message in messages])
    return Plan(
        model=request.model,
        inputs={"messages": messages},
        sampling=request.sampling(request.token_limit),
        stream=bool(request.stream),
        renderer=GenerationRenderer(
            id=f"chatcmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            chat=True,
            include_usage=request.include_usage,
        ),
        tokens=prompt_tokens + request.token_limit,
        prompt_tokens=prompt_tokens,
    )


def plan_completion(body: bytes, request_id: str) -> Plan:
    """POST /v1/completions. Raises RequestInvalid."""
    request = parse(CompletionRequest, body)
    prompt_tokens = estimate_tokens([request.prompt])
    return Plan(
        model=request.model,
        inputs={"prompt": request.prompt},
        sampling=request.sampling(request.token_limit),
        stream=bool(request.stream),
        renderer=GenerationRenderer(
            id=f"cmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            chat=False,
            include_usage=request.include_usage,
        ),
        tokens=prompt_tokens + request.token_limit,
        prompt_tokens=prompt_tokens,
    )


def plan_embeddings(body: bytes, request_id: str) -> Plan:
    """POST /v1/embeddings. Raises RequestInvalid."""
    request = parse(EmbeddingsRequest, body)
    texts = [request.input] if isinstance(request.input, str) else list(request.input)
    tokens = estimate_tokens(texts)
    return Plan(
        model=request.model,
        inputs={"input": texts},
        renderer=EmbeddingsRenderer(
            model=request.model,
            as_base64=request.encoding_format == "base64",
            dimensions=request.dimensions,
        ),
        tokens=tokens,
        prompt_tokens=tokens,
    )


def plan_classify(body: bytes, request_id: str) -> Plan:
    """POST /v1/classify. Raises RequestInvalid."""
    request = parse(ClassifyRequest, body)
    texts = [request.input] if isinstance(request.input, str) else list(request.input)
    tokens = estimate_tokens(texts)
    return Plan(
        model=request.model,
        inputs={"input": texts},
        renderer=ClassifyRenderer(id=f"classify-{request_id[4:]}", model=request.model),
        tokens=tokens,
        prompt_tokens=tokens,
    )


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("/v1/chat/completions", "text-generation", plan_chat),
        Endpoint("/v1/completions", "text-generation", plan_completion),
        Endpoint("/v1/embeddings", "embeddings", plan_embeddings),
        Endpoint("/v1/classify", "text-classification", plan_classify),
    )
}
