"""POST /v1/moderations, in OpenAI's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from assay.plugins import declare

# Clients expect all of these categories. A category that the model does not judge is never flagged,
# and its `category_applied_input_types` is empty.
OPENAI_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


class TextPart(declare.Strict):
    """A text as an object; images are not supported."""

    type: Literal["text"]
    text: declare.TextInput


def _kind(value: Any) -> str:
    return "many" if isinstance(value, dict | TextPart) else "one"


Part = Annotated[
    Annotated[declare.TextInput, Tag("one")] | Annotated[TextPart, Tag("many")],
    Discriminator(_kind),
]
Parts = Annotated[list[Part], Field(min_length=1, max_length=declare.MAX_TEXTS)]


def _number(value: Any) -> str:
    return "many" if isinstance(value, list) else "one"


class ModerationRequest(declare.Strict):
    """POST /v1/moderations. Each text of `input` is judged separately."""

    model: declare.Name
    input: Annotated[
        Annotated[declare.TextInput, Tag("one")] | Annotated[Parts, Tag("many")],
        Discriminator(_number),
    ]


def read_moderation(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/moderations. Raises RequestInvalid."""
    request = declare.parse(ModerationRequest, body.data)
    inputs = [request.input] if isinstance(request.input, str) else request.input
    texts = [each if isinstance(each, str) else each.text for each in inputs]
    tokens = declare.estimate_tokens(texts) + 2 * len(texts)
    return declare.Plan(
        model=request.model,
        inputs=declare.TextInputs(input=texts),
        renderer=ModerationRenderer(id=f"modr-{request_id[4:]}", model=request.model),
        tokens=tokens,
        prompt_tokens=tokens,
    )


@dataclass(slots=True)
class ModerationRenderer:
    """Flags and scores of the model's categories, and of OpenAI's."""

    id: str
    model: str

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        return {
            "id": self.id,
            "model": self.model,
            "results": [_result(judged) for judged in answer.results],
        }


def _result(judged: dict[str, Any]) -> dict[str, Any]:
    scores: dict[str, float] = judged["scores"]
    names = [*OPENAI_CATEGORIES, *(name for name in scores if name not in OPENAI_CATEGORIES)]
    return {
        "flagged": bool(judged["flagged"]),
        "categories": {name: name in judged["flagged"] for name in names},
        "category_scores": {name: scores.get(name, 0.0) for name in names},
        "category_applied_input_types": {
            name: ["text"] if name in scores else [] for name in names
        },
    }
