"""Settings of generation that chats and completions share, and their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from assay.plugins import declare

StopText = Annotated[str, Field(min_length=1, max_length=200)]
TokenCount = Annotated[int, Field(ge=1, le=declare.MAX_TOKENS)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
TokenName = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Stop = Annotated[
    Annotated[StopText, Tag("one")]
    | Annotated[list[StopText], Field(min_length=1, max_length=4), Tag("many")],
    Discriminator(declare.one_or_many),
]


def chosen_settings(**settings: Any) -> list[Any]:
    """Return the names of the settings that a request contains."""
    return [name for name, value in settings.items() if value is not None]


# The only tier: every request is served within its quotas.
ServiceTier = Literal["auto", "default"]


class StreamOptions(declare.Strict):
    """Optional content of a stream."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


def named_user(*ids: str | None, metadata: Mapping[str, str] | None = None) -> str:
    """Return the ID of the end user whom a request names: the first of `ids`, or `user_id` in its
    metadata; empty without one."""
    return next(filter(None, (*ids, (metadata or {}).get("user_id"))), None) or ""


class Generation(declare.Strict):
    """Settings that chats and completions share."""

    model: declare.Name
    max_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=declare.MAX_N)] | None = None
    user: declare.User | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[TokenName, Bias], Field(max_length=declare.MAX_BIASES)] | None = None

    @model_validator(mode="after")
    def _streams_with_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise declare.idle_field(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                "stream_options",
            )
        return self

    def options(self, max_tokens: int, **more: Any) -> declare.SamplingOptions:
        """Return the settings in the engine's form."""
        return declare.SamplingOptions(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=[self.stop] if isinstance(self.stop, str) else list(self.stop or ()),
            seed=self.seed,
            stated=chosen_settings(
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
        """Return the caller's limit on the answer's tokens."""
        return self.max_tokens

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage
