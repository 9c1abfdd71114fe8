"""POST /v1/tasks/text-generation/{model}, in the shape of Hugging Face's client and its TGI."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.plugins import declare
from tasks.text_generation.sampling import Fraction, Seed, StopText, TokenCount

DEFAULT_TOKENS = 100


class GenerationParameters(declare.Strict):
    """Settings of the answer, which is greedy without `do_sample`, `temperature` and `top_p`."""

    max_new_tokens: TokenCount | None = None
    temperature: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Fraction | None = None
    do_sample: bool | None = None
    seed: Seed | None = None
    stop: Annotated[list[StopText], Field(max_length=4)] | None = None
    return_full_text: Literal[False] | None = None
    details: Literal[False] | None = None
    best_of: Literal[1] | None = None
    decoder_input_details: Literal[False] | None = None
    watermark: Literal[False] | None = None
    adapter_id: None = None
    frequency_penalty: None = None
    grammar: None = None
    repetition_penalty: None = None
    top_k: None = None
    top_n_tokens: None = None
    truncate: None = None
    typical_p: None = None

    @property
    def token_limit(self) -> int:
        return self.max_new_tokens or DEFAULT_TOKENS

    def options(self) -> declare.SamplingOptions:
        """Return the settings in the engine's form."""
        draws = self.do_sample or self.temperature is not None or self.top_p is not None
        return declare.SamplingOptions(
            max_tokens=self.token_limit,
            temperature=(self.temperature or 1.0) if draws else 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=list(self.stop or ()),
            seed=self.seed,
        )


class TextGenerationRequest(declare.Strict):
    """POST /v1/tasks/text-generation/{model}: continue `inputs`, without a chat template."""

    inputs: declare.Text
    parameters: GenerationParameters | None = None
    stream: bool | None = None


def read_text_generation(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read Hugging Face's shape; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(TextGenerationRequest, body.data)
    parameters = request.parameters or GenerationParameters()
    prompt_tokens = declare.estimate_tokens([request.inputs])
    return declare.Plan(
        model=name,
        inputs=declare.GenerationInputs(prompt=request.inputs),
        options=parameters.options(),
        stream=bool(request.stream),
        renderer=TextGenerationRenderer(),
        tokens=prompt_tokens + parameters.token_limit,
        prompt_tokens=prompt_tokens,
    )


@dataclass(slots=True)
class TextGenerationRenderer:
    """The continuation, as a whole and as TGI's events.

    An event's token has `id` 0 and no `logprob`: a piece of text may be several tokens.
    """

    _parts: list[str] = field(default_factory=list)

    def whole(self, answer: declare.Answer) -> list[dict[str, Any]]:
        return [{"generated_text": answer.text}]

    def opening(self) -> str:
        """Return an empty text: TGI's streams begin with the answer."""
        return ""

    def delta(self, piece: declare.Piece) -> str:
        self._parts.append(piece.text)
        return self._event(piece.text, special=False)

    def closing(self, answer: declare.Answer) -> str:
        """Return the last event: the whole text and the finish reason."""
        return self._event(
            "",
            special=True,
            generated_text="".join(self._parts),
            details={
                "finish_reason": answer.finish_reason,
                "generated_tokens": answer.completion_tokens,
                "input_length": answer.prompt_tokens,
                "seed": None,
            },
        )

    def _event(self, text: str, *, special: bool, **more: Any) -> str:
        token = {"id": 0, "text": text, "logprob": 0.0, "special": special}
        content = {
            "index": len(self._parts),
            "token": token,
            "generated_text": None,
            "details": None,
            **more,
        }
        return f"data: {declare.dumps(content)}\n\n"
