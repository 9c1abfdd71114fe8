"""What each endpoint takes. Strict and bounded; a field that is not named here is refused.

A field typed `None` is one of OpenAI's that Assay does not honour: null is accepted, a value is
refused with `unsupported_parameter`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from assay.gateway.errors import RequestInvalid, printable

DEFAULT_CHAT_TOKENS = 512
DEFAULT_COMPLETION_TOKENS = 16
MAX_TOKENS = 32_768
MAX_INPUTS = 2048
# A body with more faults than this is refused without saying which.
MAX_FAULTS = 1000

Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(min_length=1, max_length=1_000_000)]
StopText = Annotated[str, Field(min_length=1, max_length=200)]
TokenCount = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Zero = Annotated[float, Field(ge=0, le=0, allow_inf_nan=False)]


def _one_or_many(value: Any) -> str:
    return "many" if isinstance(value, list) else "one"


Stop = Annotated[
    Annotated[StopText, Tag("one")]
    | Annotated[list[StopText], Field(min_length=1, max_length=4), Tag("many")],
    Discriminator(_one_or_many),
]
Inputs = Annotated[
    Annotated[Text, Tag("one")]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS), Tag("many")],
    Discriminator(_one_or_many),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(_Strict):
    """A part of a message; text is the only kind."""

    type: Literal["text"]
    text: Text


Content = Annotated[
    Annotated[str, Field(max_length=1_000_000), Tag("one")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=256), Tag("many")],
    Discriminator(_one_or_many),
]


class Message(_Strict):
    """One turn. `developer` is read as `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Name | None = None
    # What the client's own answer carries when it is sent back as history.
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None

    def plain(self) -> dict[str, str]:
        """Role and text, as an engine takes them."""
        if isinstance(self.content, str):
            text = self.content
        else:
            text = "\n".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(_Strict):
    """What a stream carries besides the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class PlainText(_Strict):
    """The only response format."""

    type: Literal["text"]


class _Generation(_Strict):
    model: Name
    max_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: None = None

    def sampling(self, max_tokens: int) -> dict[str, Any]:
        """`workers.wire.InferenceRequest.sampling`."""
        stop = [self.stop] if isinstance(self.stop, str) else list(self.stop or ())
        values: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "stop": stop,
        }
        if self.seed is not None:
            values["seed"] = self.seed
        return values

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(_Generation):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=512)]
    max_completion_tokens: TokenCount | None = None
    response_format: PlainText | None = None
    logprobs: Literal[False] | None = None
    store: Literal[False] | None = None
    top_logprobs: None = None
    tools: None = None
    tool_choice: None = None
    parallel_tool_calls: None = None
    functions: None = None
    function_call: None = None
    audio: None = None
    modalities: None = None
    prediction: None = None
    metadata: None = None
    reasoning_effort: None = None
    service_tier: None = None
    verbosity: None = None
    web_search_options: None = None

    @property
    def token_limit(self) -> int:
        return self.max_completion_tokens or self.max_tokens or DEFAULT_CHAT_TOKENS


class CompletionRequest(_Generation):
    """POST /v1/completions."""

    prompt: Text
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    suffix: None = None

    @property
    def token_limit(self) -> int:
        return self.max_tokens or DEFAULT_COMPLETION_TOKENS


class EmbeddingsRequest(_Strict):
    """POST /v1/embeddings. `dimensions` shortens each vector and makes its length 1 again."""

    model: Name
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None


class ClassifyRequest(_Strict):
    """POST /v1/classify."""

    model: Name
    input: Inputs
    user: Annotated[str, Field(max_length=512)] | None = None


Request = TypeVar("Request", bound=_Strict)
_VARIANTS = {"one", "many"}


def parse(schema: type[Request], body: bytes) -> Request:
    """The request that `body` holds.

    Raises:
        RequestInvalid: it is not JSON (`invalid_json`), or the first thing wrong with it.
    """
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> RequestInvalid:
    if (faults := error.error_count()) > MAX_FAULTS:
        # Listing them would hold up every other request of this process.
        return RequestInvalid(f"The request body has {faults:,} faults; it was not read further.")
    first = error.errors(include_url=False, include_context=True)[0]
    kind, value = first["type"], first["input"]
    path = _path(first["loc"])
    if kind == "json_invalid":
        detail = first["ctx"].get("error", "it ends too early")
        return RequestInvalid(f"The request body is not valid JSON: {detail}.", code="invalid_json")
    if kind == "extra_forbidden":
        return RequestInvalid(
            f"Unrecognized request argument supplied: {path}.",
            param=path,
            code="unknown_parameter",
        )
    if kind == "none_required":
        return RequestInvalid(
            f"{path} is not supported here; leave it out.",
            param=path,
            code="unsupported_parameter",
        )
    if kind == "missing":
        return RequestInvalid(
            f"You must provide the parameter {path}.", param=path, code="missing_parameter"
        )
    if not path:
        return RequestInvalid("The request body must be a JSON object.", code="invalid_json")
    code = "unsupported_value" if kind == "literal_error" else "invalid_value"
    shown = f" (got {printable(repr(value), 40)})" if isinstance(value, (int, float, str)) else ""
    return RequestInvalid(f"{path} is invalid: {first['msg']}{shown}.", param=path, code=code)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in _VARIANTS:
            path += f".{step}" if path else step
    return printable(path)
