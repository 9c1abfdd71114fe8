"""POST /v1/moderations, in OpenAI's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from registry.catalog.endpoints import Answer, Plan
from registry.catalog.inputs import MAX_TEXTS, TextInput, TextInputs
from registry.catalog.requests import Body, Name, Strict, estimate_tokens, parse

# Clients expect each of these. Those that the model does not judge are never flagged, and
# `category_applied_input_types` is empty for them.
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


class TextPart(Strict):
    """A text as an object; images are not judged here."""

    type: Literal["text"]
    text: TextInput


def _kind(value: Any) -> str:
    return "many" if isinstance(value, dict | TextPart) else "one"


Part = Annotated[
    Annotated[TextInput, Tag("one")] | Annotated[TextPart, Tag("many")],
    Discriminator(_kind),
]
Parts = Annotated[list[Part], Field(min_length=1, max_length=MAX_TEXTS)]


def _number(value: Any) -> str:
    return "many" if isinstance(value, list) else "one"


class ModerationRequest(Strict):
    """POST /v1/moderations. Each text of `input` is judged by itself."""

    model: Name
    input: Annotated[
        Annotated[TextInput, Tag("one")] | Annotated[Parts, Tag("many")],
        Discriminator(_number),
    ]


def read_moderation(body: Body, request_id: str, name: str) -> Plan:
    """Read POST /v1/moderations. Raises RequestInvalid."""
    request = parse(ModerationRequest, body.data)
    given = [request.input] if isinstance(request.input, str) else request.input
    texts = [each if isinstance(each, str) else each.text for each in given]
    tokens = estimate_tokens(texts) + 2 * len(texts)
    return Plan(
        model=request.model,
        inputs=TextInputs(input=texts),
        renderer=ModerationRenderer(id=f"modr-{request_id[4:]}", model=request.model),
        tokens=tokens,
        prompt_tokens=tokens,
    )


@dataclass(slots=True)
class ModerationRenderer:
    """Flags and scores of the model's categories, and of OpenAI's."""

    id: str
    model: str

    def whole(self, answer: Answer) -> dict[str, Any]:
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
