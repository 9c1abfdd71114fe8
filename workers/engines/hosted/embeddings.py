"""Vectors of texts, in the wire shapes of OpenAI and Gemini.

A vector always has the described or requested number of dimensions, and length 1 like the vectors
of own models.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from registry.catalog.hosted import HostedDescription, WireShape
from registry.catalog.inputs import Inputs, Options, TextInputs
from workers.engines.hosted.shapes import Call, State, refused, task_settings
from workers.engines.hosted.whole_answers import WholeReader
from workers.engines.protocol import RequestRefused

# A norm may differ this much from 1 before a vector is divided by it.
_TOLERANCE = 1e-4


def call(description: HostedDescription, inputs: Inputs, options: Options, *, stream: bool) -> Call:
    """Return the call for texts to embed. Raises RequestRefused."""
    if not isinstance(inputs, TextInputs) or getattr(inputs, "tokens", None):
        raise refused("tokens", "send texts")
    texts = inputs.input
    if len(texts) > description.max_inputs:
        raise RequestRefused(
            f"input has {len(texts)} texts; the provider of this model takes at most "
            f"{description.max_inputs} in one request.",
            code="too_many_inputs",
        )
    content = {"input", *(["dimensions"] if _is_whole(description, options) else [])}
    used = task_settings(description, inputs, options, content=content)
    dimensions = used.get("dimensions", 0)
    if dimensions > description.dimensions:
        raise RequestRefused(
            f"dimensions is {dimensions}, but this model has {description.dimensions}."
        )
    if description.shape is WireShape.GEMINI:
        return _gemini(description, texts, dimensions)
    # A quarter of the bytes and a third of the processor time, but not every provider has it.
    encoding = "base64" if "encoding_format" in description.parameters else "float"
    body = {"model": description.model, "input": texts, "encoding_format": encoding}
    return Call("/embeddings", body | ({"dimensions": dimensions} if dimensions else {}))


def _is_whole(description: HostedDescription, options: Options) -> bool:
    """Return whether the request names the length that vectors have anyway."""
    return getattr(options, "dimensions", None) == description.dimensions


def _gemini(description: HostedDescription, texts: Sequence[str], dimensions: int) -> Call:
    settings: dict[str, Any] = {"outputDimensionality": dimensions} if dimensions else {}
    requests = [
        {
            "model": f"models/{description.model}",
            "content": {"parts": [{"text": text}]},
            **settings,
        }
        for text in texts
    ]
    return Call(f"/models/{description.model}:batchEmbedContents", {"requests": requests})


def reader(description: HostedDescription, call: Call) -> VectorsReader:
    """Return a reader for the answer to a call."""
    if description.shape is WireShape.GEMINI:
        requests = call.body["requests"]
        count = len(requests)
        dimensions = requests[0].get("outputDimensionality")
    else:
        count, dimensions = len(call.body["input"]), call.body.get("dimensions")
    # Each text may have as many tokens as the context.
    state = State(most_tokens=description.context_tokens * count)
    return VectorsReader(state, description.shape, count, dimensions or description.dimensions)


class VectorsReader(WholeReader):
    """Reads `count` vectors with `dimensions` numbers each."""

    def __init__(self, state: State, shape: WireShape, count: int, dimensions: int) -> None:
        super().__init__(state)
        self._shape, self._count, self._dimensions = shape, count, dimensions

    def _results(self, body: bytes) -> list[Any]:
        answer = self._parsed(body)
        if self._shape is WireShape.GEMINI:
            vectors = [row["values"] for row in answer["embeddings"]]
            usage = (answer.get("usageMetadata") or {}).get("promptTokenCount")
        else:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            if [row["index"] for row in rows] != list(range(len(rows))):
                raise ValueError("its vectors are not numbered from 0")
            vectors = [row["embedding"] for row in rows]
            usage = (answer.get("usage") or {}).get("prompt_tokens")
        self.state.usage(usage, 0)
        return self._checked(vectors)

    def _checked(self, vectors: Sequence[Any]) -> list[Any]:
        """Return vectors of length 1. Raises ValueError."""
        if len(vectors) != self._count:
            raise ValueError(f"it has {len(vectors)} vectors for {self._count} texts")
        matrix = np.array([_numbers(vector) for vector in vectors], dtype=np.float64)
        if not np.isfinite(matrix).all():
            raise ValueError("a vector is not a list of numbers")
        if matrix.shape[1] != self._dimensions:
            raise ValueError(
                f"its vectors have {matrix.shape[1]} dimensions; {self._dimensions} were expected"
            )
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and norms.all()):
            raise ValueError("a vector has no length")
        unit: list[Any] = np.where(np.abs(norms - 1) > _TOLERANCE, matrix / norms, matrix).tolist()
        return unit


def _numbers(vector: Any) -> Any:
    """Return a vector's numbers; some providers always answer in base64. Raises ValueError."""
    if isinstance(vector, str):
        return np.frombuffer(base64.b64decode(vector, validate=True), dtype="<f4")
    # numpy would read numbers in texts, and turn all numbers into texts of the longest one's size.
    if not isinstance(vector, list) or not set(map(type, vector)) <= {int, float}:
        raise ValueError("a vector is not a list of numbers")
    return vector
