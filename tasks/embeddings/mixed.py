"""POST /v1/embeddings for models that read images: texts and images in one list.

An image has the form of Jina's API, `{"image": "data:image/png;base64,…"}`, or of a part of a chat
message, `{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from assay.plugins import declare
from tasks.embeddings.endpoints import TOKENS_REFUSED, EmbeddingsRenderer

# Each image is decoded when it arrives.
MAX_IMAGES = 16


class ImageURL(declare.Strict):
    """An image in the form of OpenAI's chat; `url` is a `data:` URL."""

    url: Annotated[str, Field(min_length=1)]
    detail: Literal["auto"] | None = None


class InputPart(declare.Strict):
    """One text or one image."""

    type: Literal["text", "image", "image_url"] | None = None
    text: declare.Text | None = None
    image: Annotated[str, Field(min_length=1)] | None = None
    image_url: ImageURL | None = None


def _kind(value: Any) -> str:
    return "one" if isinstance(value, str) else "many"


def _no_tokens(value: Any) -> Any:
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, (int, list)):
        raise declare.idle_field(TOKENS_REFUSED.format(param="input"), "input")
    return value


Input = Annotated[
    Annotated[declare.Text, Tag("one")] | Annotated[InputPart, Tag("many")], Discriminator(_kind)
]


class MixedEmbeddingsRequest(declare.Strict):
    """POST /v1/embeddings. `dimensions` shortens each vector and makes its length 1 again."""

    model: declare.Name
    input: Annotated[
        Annotated[Input, Tag("one")]
        | Annotated[list[Input], Field(min_length=1, max_length=declare.MAX_INPUTS), Tag("many")],
        Discriminator(declare.one_or_many),
        BeforeValidator(_no_tokens),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    user: declare.User | None = None

    def read(self) -> list[str | declare.MediaInput]:
        """Return the texts and images. Raises RequestInvalid."""
        many = isinstance(self.input, list)
        values = self.input if isinstance(self.input, list) else [self.input]
        inputs = [
            read_input(each, f"input[{number}]" if many else "input")
            for number, each in enumerate(values)
        ]
        images = sum(isinstance(each, declare.MediaInput) for each in inputs)
        if images > MAX_IMAGES:
            raise declare.RequestInvalid(
                f"input has {images} images; at most {MAX_IMAGES} are accepted in one request.",
                param="input",
            )
        return inputs

    def renderer(self, places: list[int]) -> MixedRenderer:
        """Return the renderer of the answer; `places` holds the position of each input's vector."""
        return MixedRenderer(
            EmbeddingsRenderer(
                model=self.model,
                as_base64=self.encoding_format == "base64",
                dimensions=self.dimensions,
            ),
            places,
        )


def read_input(value: str | InputPart, param: str) -> str | declare.MediaInput:
    """Return the text or the image of one input. Raises RequestInvalid."""
    if isinstance(value, str):
        return value
    filled = {name for name in ("text", "image", "image_url") if getattr(value, name) is not None}
    if len(filled) != 1 or (value.type is not None and {value.type} != filled):
        raise declare.RequestInvalid(
            f'{param} must be a text, {{"text": "…"}}, {{"image": "data:image/png;base64,…"}} or '
            '{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}.',
            param=param,
        )
    if value.image is not None:
        return declare.read_image_text(value.image, f"{param}.image")
    if value.image_url is not None:
        return declare.read_image_url(value.image_url.url, f"{param}.image_url.url")
    return value.text or ""


def images_first(items: Sequence[str | declare.MediaInput]) -> list[int]:
    """Return the position of each input's vector if vectors of images precede vectors of texts."""
    order = sorted(
        range(len(items)),
        key=lambda index: (not isinstance(items[index], declare.MediaInput), index),
    )
    places = [0] * len(items)
    for place, index in enumerate(order):
        places[index] = place
    return places


@dataclass(slots=True)
class MixedRenderer:
    """Vectors in the order of the inputs."""

    vectors: EmbeddingsRenderer
    places: list[int]

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        return self.vectors.whole(
            declare.Answer(
                finish_reason=answer.finish_reason,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=0,
                results=[answer.results[place] for place in self.places],
                units=answer.units,
            )
        )
