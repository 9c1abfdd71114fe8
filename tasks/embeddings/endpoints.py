"""POST /v1/embeddings in OpenAI's shape, and vectors in Hugging Face's shapes."""

from __future__ import annotations

import base64
import math
import operator
import struct
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.plugins import declare


class EmbeddingsRequest(declare.Strict):
    """POST /v1/embeddings. `dimensions` shortens each vector and makes its length 1 again."""

    model: declare.Name
    input: declare.Texts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    user: declare.User | None = None


def read_embeddings(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/embeddings. Raises RequestInvalid."""
    request = declare.parse(EmbeddingsRequest, body.data)
    texts = declare.as_list(request.input)
    tokens = declare.estimate_tokens(texts)
    return declare.Plan(
        model=request.model,
        inputs=declare.TextInputs(input=texts),
        renderer=EmbeddingsRenderer(
            model=request.model,
            as_base64=request.encoding_format == "base64",
            dimensions=request.dimensions,
        ),
        tokens=tokens,
        prompt_tokens=tokens,
    )


class FeatureExtractionRequest(declare.TruncatedRequest):
    """POST /v1/tasks/feature-extraction/{model}. Vectors always have length 1."""

    inputs: declare.Texts
    normalize: Literal[True] | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    encoding_format: Literal["float"] | None = None
    prompt_name: None = None


def read_feature_extraction(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read Hugging Face's shape; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(FeatureExtractionRequest, body.data)
    texts = declare.as_list(request.inputs)
    tokens = declare.estimate_tokens(texts)
    return declare.Plan(
        model=name,
        inputs=declare.TextInputs(input=texts),
        options=declare.TextOptions(truncate=request.side),
        renderer=VectorsRenderer(model=name, dimensions=request.dimensions),
        tokens=tokens,
        prompt_tokens=tokens,
    )


class SentencePair(declare.Strict):
    """A source sentence, and the sentences to compare with it."""

    source_sentence: declare.Text
    sentences: Annotated[list[declare.Text], Field(min_length=1, max_length=declare.MAX_INPUTS - 1)]


class SentenceSimilarityRequest(declare.Strict):
    """POST /v1/tasks/sentence-similarity/{model}."""

    inputs: SentencePair
    parameters: declare.TruncatedRequest | None = None


def read_sentence_similarity(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read Hugging Face's shape; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(SentenceSimilarityRequest, body.data)
    texts = [request.inputs.source_sentence, *request.inputs.sentences]
    tokens = declare.estimate_tokens(texts)
    return declare.Plan(
        model=name,
        inputs=declare.TextInputs(input=texts),
        options=declare.TextOptions(
            truncate=request.parameters.side if request.parameters else "none"
        ),
        renderer=SimilarityRenderer(),
        tokens=tokens,
        prompt_tokens=tokens,
    )


@dataclass(slots=True)
class SimilarityRenderer:
    """The cosine similarity of the first text with each of the others, from -1 to 1."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        source, *others = answer.results
        return [sum(map(operator.mul, source, other)) for other in others]


@dataclass(slots=True)
class VectorsRenderer:
    """One vector for each text."""

    model: str
    dimensions: int | None

    def whole(self, answer: declare.Answer) -> list[Any]:
        return [shortened(vector, self.dimensions, self.model) for vector in answer.results]


@dataclass(slots=True)
class EmbeddingsRenderer:
    """Vectors, as little-endian float32 in base64 or as numbers."""

    model: str
    as_base64: bool
    dimensions: int | None

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        vectors = [shortened(each, self.dimensions, self.model) for each in answer.results]
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _base64(vector) if self.as_base64 else vector,
                }
                for index, vector in enumerate(vectors)
            ],
            "model": self.model,
            "usage": {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens},
        }


def shortened(vector: list[float], dimensions: int | None, model: str) -> list[float]:
    """Return the first `dimensions` of a vector, with length 1 again.

    Raises:
        RequestInvalid: the vector has fewer.
    """
    if dimensions is None or dimensions == len(vector):
        return vector
    if dimensions > len(vector):
        raise declare.RequestInvalid(
            f"dimensions is {dimensions}, but {model} has {len(vector)}.", param="dimensions"
        )
    head = vector[:dimensions]
    length = math.sqrt(sum(value * value for value in head)) or 1.0
    return [value / length for value in head]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
