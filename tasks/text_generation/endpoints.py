"""POST /v1/chat/completions and /v1/completions, byte for byte as OpenAI's client reads them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from registry.catalog.endpoints import Plan
from registry.catalog.generation import (
    MAX_BIASES,
    MAX_CALLS,
    MAX_CHOICES,
    MAX_N,
    MAX_PROMPTS,
    MAX_TOKEN,
    MAX_TOKENS,
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
    ChatMessage,
    GenerationInputs,
    SamplingOptions,
    Tool,
    Variables,
)
from registry.catalog.grounding import (
    DEFAULT_PASSAGES,
    MAX_PASSAGES,
    Grounding,
    Passage,
)
from registry.catalog.requests import (
    Body,
    Metadata,
    Name,
    RequestInvalid,
    Strict,
    Text,
    User,
    estimate_tokens,
    one_or_many,
    parse,
)
from tasks.text_generation.rendering import ChatRenderer, CompletionRenderer
from tasks.text_generation.stored_chats import stored_plan
from tasks.text_generation.tools import (
    CalledTool,
    FunctionTool,
    NamedTool,
    ResponseFormat,
    ToolChoice,
    ToolWord,
    chosen_tools,
    prompt_estimate,
)

DEFAULT_CHAT_TOKENS = 512
DEFAULT_COMPLETION_TOKENS = 16
MAX_COMPLETION_LOGPROBS = 5  # OpenAI's
# A longer question is searched for by its beginning.
QUERY_CHARACTERS = 4_000

StopText = Annotated[str, Field(min_length=1, max_length=200)]
TokenCount = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
TokenName = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Token = Annotated[int, Field(ge=0, le=MAX_TOKEN)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=200_000)]


def _kind_of_prompt(value: Any) -> str:
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, list):
        return "~lists"
    return ("~tokens" if isinstance(first, int) else "many") if isinstance(value, list) else "one"


Prompt = Annotated[
    Annotated[Text, Tag("one")]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS), Tag("many")]
    | Annotated[Tokens, Tag("~tokens")]
    | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_PROMPTS), Tag("~lists")],
    Discriminator(_kind_of_prompt),
]
Stop = Annotated[
    Annotated[StopText, Tag("one")]
    | Annotated[list[StopText], Field(min_length=1, max_length=4), Tag("many")],
    Discriminator(one_or_many),
]


class TextPart(Strict):
    """A part of a message; text is the only kind."""

    type: Literal["text"]
    text: Text


Content = Annotated[
    Annotated[str, Field(max_length=1_000_000), Tag("one")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=256), Tag("many")],
    Discriminator(one_or_many),
]


class Message(Strict):
    """One turn. `developer` is read as `system`; a turn of `tool` answers a call."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: Name | None = None
    tool_calls: Annotated[list[CalledTool], Field(max_length=MAX_CALLS)] | None = None
    tool_call_id: Name | None = None
    # Fields of the client's own answer, when it is sent back as history.
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _fits_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only messages of the assistant hold tool_calls")
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise ValueError("tool_call_id names the call that a message of the role tool answers")
        if self.content is None and not self.tool_calls:
            raise ValueError("content is missing")
        return self

    def plain(self) -> ChatMessage:
        """Return the turn as an engine takes it. Raises RequestInvalid."""
        if isinstance(self.content, str):
            text = self.content
        else:
            text = "\n".join(part.text for part in self.content or ())
        role = "system" if self.role == "developer" else self.role
        return ChatMessage(
            role=role,
            content=text,
            tool_calls=[call.plain() for call in self.tool_calls or ()],
            tool_call_id=self.tool_call_id,
        )


def stated(**settings: Any) -> list[Any]:
    """Return the names of the settings that a request gives."""
    return [name for name, value in settings.items() if value is not None]


# There is one tier: every request is served as its quotas allow.
ServiceTier = Literal["auto", "default"]


class StreamOptions(Strict):
    """Content of a stream besides the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class _Generation(Strict):
    model: Name
    max_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    user: User | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[TokenName, Bias], Field(max_length=MAX_BIASES)] | None = None

    def options(self, max_tokens: int, **more: Any) -> SamplingOptions:
        """Return the settings as an engine takes them."""
        return SamplingOptions(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=[self.stop] if isinstance(self.stop, str) else list(self.stop or ()),
            seed=self.seed,
            stated=stated(
                max_tokens=self.stated_limit,
                temperature=self.temperature,
                top_p=self.top_p,
                stop=self.stop,
            ),
            choices=self.n or 1,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=self.logit_bias or {},
            **more,
        )

    @property
    def stated_limit(self) -> int | None:
        """Return the limit on the answer that the caller chose."""
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(_Generation):
    """POST /v1/chat/completions. `prompt_variables` fill in the prompt of a prompt version.

    `user`, `safety_identifier` and `prompt_cache_key` are the caller's own words. They are not
    stored, and change nothing. With `store` the messages and the answer are stored under the
    answer's ID, with `metadata`, where the department keeps responses.
    """

    messages: Annotated[list[Message], Field(min_length=1, max_length=512)]
    prompt_variables: Variables | None = None
    max_completion_tokens: TokenCount | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    functions: None = None
    function_call: None = None
    audio: None = None
    modalities: None = None
    prediction: None = None
    metadata: Metadata | None = None
    reasoning_effort: None = None
    service_tier: ServiceTier | None = None
    safety_identifier: User | None = None
    prompt_cache_key: User | None = None
    verbosity: None = None
    web_search_options: None = None
    # Assay's own: answer from the passages of a knowledge base, with citations.
    knowledge_base: Name | None = None
    max_passages: Annotated[int, Field(ge=1, le=MAX_PASSAGES)] | None = None

    @model_validator(mode="after")
    def _stores(self) -> Self:
        if self.metadata and not self.store:
            raise ValueError("metadata goes with store: true")
        if self.store and self.knowledge_base is not None:
            raise ValueError("store and knowledge_base exclude each other")
        return self

    @property
    def stated_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def token_limit(self) -> int:
        return self.stated_limit or DEFAULT_CHAT_TOKENS

    def shown_tools(self) -> tuple[list[Tool], dict[str, Any]]:
        """Return the tools that the model is shown, and the options of their use.

        Raises:
            RequestInvalid: two parameters exclude each other.
        """
        choice: ToolWord | None = None
        name: str | None = None
        if isinstance(self.tool_choice, NamedTool):
            name = self.tool_choice.function.name
        else:
            choice = self.tool_choice
        given = [tool.plain() for tool in self.tools or ()]
        tools, use = chosen_tools(given, choice, name)
        if self.parallel_tool_calls is not None and not given:
            raise RequestInvalid("parallel_tool_calls needs tools.", param="parallel_tool_calls")
        schema = None if self.response_format is None else self.response_format.enforced
        if tools and schema is not None:
            raise RequestInvalid(
                "response_format and tools exclude each other here.", param="response_format"
            )
        if tools and self.logprobs:
            raise RequestInvalid("logprobs and tools exclude each other here.", param="logprobs")
        return tools, {
            "tool_choice": use,
            "tool_name": name,
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "json_schema": schema,
        }

    def stated_logprobs(self) -> int | None:
        """Return how many likely tokens to state with each. Raises RequestInvalid."""
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestInvalid("top_logprobs needs logprobs: true.", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(_Generation):
    """POST /v1/completions. `prompt` is a text, tokens, or a list of either."""

    prompt: Prompt
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_COMPLETION_LOGPROBS)] | None = None
    suffix: Text | None = None

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
            raise ValueError("suffix goes with one prompt of text, without echo")
        return self

    def inputs(self) -> GenerationInputs:
        """Return the prompts as an engine takes them."""
        prompt: Any = self.prompt
        if isinstance(prompt, str):
            return GenerationInputs(prompt=prompt, suffix=self.suffix or None)
        return GenerationInputs(prompts=[prompt] if isinstance(prompt[0], int) else prompt)


def read_chat(body: Body, request_id: str, name: str) -> Plan:
    """Read POST /v1/chat/completions. Raises RequestInvalid."""
    request = parse(ChatRequest, body.data)
    messages = [message.plain() for message in request.messages]
    if request.knowledge_base is None:
        if request.max_passages is not None:
            raise RequestInvalid("max_passages goes with knowledge_base.", param="max_passages")
        plan = _chat_plan(request, request_id, messages)
        return stored_plan(plan, request) if request.store else plan
    _check_grounded(request)
    asked = [message.text for message in messages if message.role == "user"]
    if not asked or not asked[-1].strip():
        raise RequestInvalid(
            "With knowledge_base, messages must hold a question of the role user.",
            param="messages",
        )

    def plan_with(passages: Sequence[Passage], own_system: bool) -> Plan:
        # Imported late: it builds on this module.
        from tasks.text_generation.grounded import GroundedRenderer, grounded_messages, shown_text

        found = grounded_messages(messages, passages, own_system=own_system)
        plan = _chat_plan(request, request_id, found, [shown_text(each) for each in passages])
        renderer = GroundedRenderer(
            id=f"chatcmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            include_usage=request.include_usage,
            knowledge_base=request.knowledge_base or "",
            passages=passages,
        )
        return replace(plan, renderer=renderer)

    grounding = Grounding(
        knowledge_base=request.knowledge_base,
        query=asked[-1][:QUERY_CHARACTERS],
        most=request.max_passages or DEFAULT_PASSAGES,
        plan_with=plan_with,
    )
    return replace(_chat_plan(request, request_id, messages), grounding=grounding)


def _check_grounded(request: ChatRequest) -> None:
    """Refuse what citations in the text exclude. Raises RequestInvalid."""
    form = request.response_format
    excluded = {
        "n": (request.n or 1) > 1,
        "tools": bool(request.tools),
        "logprobs": bool(request.logprobs),
        "response_format": form is not None and form.enforced is not None,
    }
    for name, given in excluded.items():
        if given:
            raise RequestInvalid(f"{name} and knowledge_base exclude each other.", param=name)


def _chat_plan(
    request: ChatRequest,
    request_id: str,
    messages: list[ChatMessage],
    passages: Sequence[str] = (),
) -> Plan:
    tools, use = request.shown_tools()
    options = request.options(request.token_limit, logprobs=request.stated_logprobs(), **use)
    prompt_tokens = prompt_estimate(messages, tools)
    return Plan(
        model=request.model,
        inputs=GenerationInputs(
            messages=messages,
            tools=tools,
            variables=request.prompt_variables,
            passages=list(passages),
        ),
        options=options,
        stream=bool(request.stream),
        renderer=ChatRenderer(
            id=f"chatcmpl-{request_id[4:]}",
            model=request.model,
            created=int(time.time()),
            include_usage=request.include_usage,
            choices=options.choices,
            tier="default" if request.service_tier else "",
        ),
        tokens=prompt_tokens + request.token_limit * options.made,
        prompt_tokens=prompt_tokens,
    )


def read_completion(body: Body, request_id: str, name: str) -> Plan:
    """Read POST /v1/completions. Raises RequestInvalid."""
    request = parse(CompletionRequest, body.data)
    inputs = request.inputs()
    options = request.options(
        request.token_limit,
        best_of=request.best_of,
        echo=bool(request.echo),
        logprobs=request.logprobs,
    )
    prompts = len(inputs.prompts or (None,))
    if prompts * options.made > MAX_CHOICES:
        raise RequestInvalid(
            f"{prompts} prompts with {options.made} choices each are more than {MAX_CHOICES} "
            "choices.",
            param="n",
        )
    prompt_tokens = _prompt_tokens(inputs)
    return Plan(
        model=request.model,
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


def _prompt_tokens(inputs: GenerationInputs) -> int:
    """Return an estimate of the tokens of all prompts, exact where they are given as tokens."""
    given = [inputs.prompt or "", inputs.suffix or "", *(inputs.prompts or ())]
    tokens = sum(len(each) for each in given if not isinstance(each, str))
    return tokens or estimate_tokens([each for each in given if isinstance(each, str)])
