"""POST /v1/completions, byte-compatible with OpenAI's client."""

from __future__ import annotations

import time
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from assay.plugins import declare
from tasks.text_generation.rendering import CompletionRenderer
from tasks.text_generation.sampling import Generation

DEFAULT_COMPLETION_TOKENS = 16
MAX_COMPLETION_LOGPROBS = 5  # OpenAI's

Token = Annotated[int, Field(ge=0, le=declare.MAX_TOKEN)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=200_000)]


def _kind_of_prompt(value: Any) -> str:
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, list):
        return "~lists"
    return ("~tokens" if isinstance(first, int) else "many") if isinstance(value, list) else "one"


Prompt = Annotated[
    Annotated[declare.Text, Tag("one")]
    | Annotated[
        list[declare.Text], Field(min_length=1, max_length=declare.MAX_PROMPTS), Tag("many")
    ]
    | Annotated[Tokens, Tag("~tokens")]
    | Annotated[list[Tokens], Field(min_length=1, max_length=declare.MAX_PROMPTS), Tag("~lists")],
    Discriminator(_kind_of_prompt),
]


class CompletionRequest(Generation):
    """POST /v1/completions. `prompt` is a text, tokens, or a list of either."""

    prompt: Prompt
    max_tokens: Annotated[int, Field(ge=0, le=declare.MAX_TOKENS)] | None = None
    best_of: Annotated[int, Field(ge=1, le=declare.MAX_N)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_COMPLETION_LOGPROBS)] | None = None
    suffix: declare.Text | None = None

    @property
    def token_limit(self) -> int:
        return DEFAULT_COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise ValueError("best_of must not be less than n")
        if (self.best_of or 1) > (self.n or 1) and self.stream:
            raise ValueError("best_of cannot be streamed")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens 0 needs echo")
        if self.suffix and (self.echo or not isinstance(self.prompt, str)):
            raise ValueError("suffix requires one text prompt, without echo")
        return self

    def inputs(self) -> declare.GenerationInputs:
        """Return the prompts in the engine's form."""
        prompt: Any = self.prompt
        if isinstance(prompt, str):
            return declare.GenerationInputs(prompt=prompt, suffix=self.suffix or None)
        return declare.GenerationInputs(prompts=[prompt] if isinstance(prompt[0], int) else prompt)


def read_completion(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/completions. Raises RequestInvalid."""
    request = declare.parse(CompletionRequest, body.data)
    inputs = request.inputs()
    options = request.options(
        request.token_limit,
        best_of=request.best_of,
        echo=bool(request.echo),
        logprobs=request.logprobs,
    )
    prompts = len(inputs.prompts or (None,))
    if prompts * options.made > declare.MAX_CHOICES:
        raise declare.RequestInvalid(
            f"{prompts} prompts with {options.made} choices each are more than "
            f"{declare.MAX_CHOICES} choices.",
            param="n",
        )
    prompt_tokens = _prompt_tokens(inputs)
    return declare.Plan(
        model=request.model,
        user=request.user or "",
        inputs=inputs,
        options=options,
        stream=bool(request.stream),
        renderer=CompletionRenderer(
            id=f"cmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            include_usage=request.include_usage,
            scored=request.logprobs is not None,
        ),
        tokens=prompt_tokens + request.token_limit * prompts * options.made,
        prompt_tokens=prompt_tokens,
    )


def _prompt_tokens(inputs: declare.GenerationInputs) -> int:
    """Return an estimate of the tokens of all prompts; exact for prompts of tokens."""
    texts = [inputs.prompt or "", inputs.suffix or "", *(inputs.prompts or ())]
    tokens = sum(len(each) for each in texts if not isinstance(each, str))
    return tokens or declare.estimate_tokens([each for each in texts if isinstance(each, str)])
