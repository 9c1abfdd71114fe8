"""POST /v1/embeddings in OpenAI's shape, and vectors in Hugging Face's shapes."""

from __future__ import annotations

import base64
import math
import operator
import struct
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from assay.plugins import declare

TOKENS_MAX = 100_000
TOKENS_REFUSED = (
    "{param} has tokens, which mean other text to another tokenizer. Send the text: LangChain's "
    "OpenAIEmbeddings does with check_embedding_ctx_length=False."
)
Tokens = Annotated[
    list[Annotated[int, Field(ge=0, le=declare.MAX_TOKEN)]],
    Field(min_length=1, max_length=TOKENS_MAX),
]


class EncoderInputs(declare.TextInputs):
    """Texts, or tokens by the tokenizer whose `tokenizer.json` has the SHA-256 `tokenizer`."""

    input: Annotated[list[declare.TextInput], Field(max_length=declare.MAX_INPUTS)] = Field(
        default_factory=list
    )
    tokens: Annotated[list[Tokens], Field(max_length=declare.MAX_INPUTS)] = Field(
        default_factory=list
    )
    tokenizer: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        if bool(self.input) == bool(self.tokens) or bool(self.tokens) != bool(self.tokenizer):
            raise ValueError("it has either texts, or tokens and their tokenizer")
        return self


class EncoderOptions(declare.TextOptions):
    """`dimensions` is the length of the vectors; the endpoint shortens those of own models."""

    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None


def _kind(value: Any) -> str:
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, list):
        return "~lists"
    return "~tokens" if isinstance(first, int) and value is not first else "texts"


TextsOrTokens = Annotated[
    Annotated[declare.Texts, Tag("texts")]
    | Annotated[Tokens, Tag("~tokens")]
    | Annotated[list[Tokens], Field(min_length=1, max_length=declare.MAX_INPUTS), Tag("~lists")],
    Discriminator(_kind),
]


class EmbeddingsRequest(declare.Strict):
    """POST /v1/embeddings. `dimensions` shortens each vector and makes its length 1 again.

    `input` may be tokens if `tokenizer` is the SHA-256 of the deployment's own `tokenizer.json`.
    """

    model: declare.Name
    input: TextsOrTokens
    tokenizer: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    user: declare.User | None = None

    def inputs(self) -> EncoderInputs:
        """Return the texts or tokens. Raises RequestInvalid for tokens of an unnamed tokenizer."""
        value: Any = self.input
        if (kind := _kind(value)) == "texts":
            if self.tokenizer is not None:
                raise declare.RequestInvalid(
                    "tokenizer names the tokenizer of tokens; leave it out for texts.",
                    param="tokenizer",
                )
            return EncoderInputs(input=declare.as_list(value))
        if self.tokenizer is None:
            raise declare.RequestInvalid(
                f"{TOKENS_REFUSED.format(param='input')} Tokens of the deployment's own tokenizer "
                "are read if tokenizer is the SHA-256 of its tokenizer.json.",
                param="input",
            )
        tokens = [value] if kind == "~tokens" else value
        return EncoderInputs(tokens=tokens, tokenizer=self.tokenizer)


def read_embeddings(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/embeddings. Raises RequestInvalid."""
    request = declare.parse(EmbeddingsRequest, body.data)
    inputs = request.inputs()
    # Special tokens come on top: one before, and one after each input.
    tokens = sum(len(each) + 2 for each in inputs.tokens) or declare.estimate_tokens(inputs.input)
    return declare.Plan(
        model=request.model,
        user=request.user or "",
        inputs=inputs,
        renderer=EmbeddingsRenderer(
            model=request.model,
            as_base64=request.encoding_format == "base64",
            dimensions=request.dimensions,
        ),
        options=EncoderOptions(dimensions=request.dimensions),
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
        inputs=EncoderInputs(input=texts),
        options=EncoderOptions(truncate=request.side, dimensions=request.dimensions),
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
        inputs=EncoderInputs(input=texts),
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
