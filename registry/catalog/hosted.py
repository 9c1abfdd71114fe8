"""Descriptions of hosted models: the only file of a version of kind `hosted`.

A provider runs the model. The description states the provider, its model, the URL for requests, the
settings that callers may use, and the provider's terms. So the version has a manifest and a digest
like any other. Loads neither Django nor torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from governance.errors import InvalidInput
from governance.faults import broken_rule, clauses, field_sentences
from governance.strict_json import loads
from governance.usage.units import Unit
from registry.canonical import canonical_json
from registry.catalog.inputs import MAX_TEXTS
from registry.catalog.operations import OPERATIONS as OPERATIONS
from registry.catalog.operations import OWN_FIELDS, OperationRules
from registry.catalog.operations import PARAMETER_TITLES as PARAMETER_TITLES
from registry.catalog.operations import WIRE_SHAPE_TITLES as WIRE_SHAPE_TITLES
from registry.catalog.operations import Operation as Operation
from registry.catalog.operations import Parameter as Parameter
from registry.catalog.operations import WireShape as WireShape
from registry.catalog.prompt import Visible
from registry.catalog.requests import printable
from registry.manifests import HOSTED_FILE as HOSTED_FILE

MAX_BYTES = 32_768
MAX_URL = 300
# The request of intake's probe, and the longest answer that it permits. Before a release, a
# provider gets only this text and the rows of evaluations.
PROBE_TEXT = "Answer with the word ready."
PROBE_TOKENS = 16
PROBE_ERROR_MAX = 300
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
# `urlsplit` ignores line breaks, so that a URL with them would read differently to people.
_PRINTABLE = re.compile(r"[!-~]+")
_MODEL = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$"
# Longest names in answers; egress workers cut longer ones.
STATED_MODEL_MAX, FINGERPRINT_MAX = 200, 100


# Classifications of data, from least to most, as datasets state them.
Cleared = Literal["public", "internal", "confidential", "restricted"]


# Fields that were added later. Without a value they are not written, so that earlier descriptions
# keep their digests.
_ADDED = frozenset({"operation", "dimensions", "max_inputs", "voices", "unit"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        defaults = type(self).model_fields
        for name in _ADDED & values.keys():
            if getattr(self, name) == defaults[name].get_default(call_default_factory=True):
                del values[name]
        return values


def _day(value: Any) -> Any:
    """Return the date of an ISO text, so that JSON and forms can state one."""
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError as error:
            raise broken_rule("The date is not of the form 2027-03-31") from error
    return value


def _base_url(value: str) -> str:
    if not _PRINTABLE.fullmatch(value):
        raise broken_rule("The URL may only have printable ASCII characters, and no spaces")
    parts = urlsplit(value)
    try:
        port = parts.port
    except ValueError as error:
        raise broken_rule("The port of the URL is not a number up to 65535") from error
    if parts.scheme not in ("https", "http") or not _HOST.fullmatch(parts.hostname or ""):
        raise broken_rule("It is not an https:// URL with the name of a host")
    if parts.username or parts.password or "?" in value or "#" in value or port == 0:
        raise broken_rule("The URL may only have a host, a port and a path")
    return value.rstrip("/")


BaseUrl = Annotated[str, Field(min_length=1, max_length=MAX_URL), AfterValidator(_base_url)]


class Terms(_Strict):
    """Data-processing terms of the provider, for reviewers.

    `sha256` is the digest of the document with the terms, which the department keeps.
    """

    title: Annotated[Visible, Field(min_length=1, max_length=200)]
    url: Annotated[Visible, Field(max_length=MAX_URL)] = ""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    retention_days: Annotated[int, Field(ge=0, le=3660)]
    trains_on_content: bool
    subprocessors: Annotated[
        list[Annotated[Visible, Field(min_length=1, max_length=100)]], Field(max_length=50)
    ] = []


class Prices(_Strict):
    """Prices of the provider, in micro-units of the installation's currency: per million tokens of
    prompts and answers, or for operations that are metered otherwise, per unit."""

    prompt: Annotated[int, Field(ge=0, le=10**12)] = 0
    completion: Annotated[int, Field(ge=0, le=10**12)] = 0
    unit: Annotated[int, Field(ge=0, le=10**12)] = 0


class HostedDescription(_Strict):
    """A model that a provider runs.

    Attributes:
        provider: Name of the provider for people.
        shape: Form of its requests and answers.
        operation: Kind of its endpoint, which decides on the tasks that it can serve.
        base_url: Beginning of its URLs; the shape adds its paths. Egress workers use `http` only
            for internal hosts that an administrator permits.
        model: Name in requests: a dated snapshot if the provider has snapshots.
        answers_as: Other names of the model that answers may state.
        fingerprint: System fingerprint that answers must state; empty for any.
        region: Place of processing, as the provider names it.
        credential: Name of the secret that authenticates requests; empty for none.
        parameters: Settings that requests may use.
        context_tokens: Maximum tokens of a prompt with its answer, or of a text to embed.
        max_tokens: Maximum tokens of an answer.
        dimensions: Length of each vector.
        max_inputs: Maximum number of texts in one request for vectors.
        voices: Voices that callers may name; the first is the default.
        cleared_for: Highest classification of data that evaluations may send to the provider.
        shutdown_on: Day on which the provider ends the model, if it states one.
    """

    provider: Annotated[Visible, Field(min_length=1, max_length=100)]
    shape: Annotated[WireShape, Field(strict=False)]
    operation: Annotated[Operation, Field(strict=False)] = Operation.CHAT
    base_url: BaseUrl
    model: Annotated[str, Field(pattern=_MODEL)]
    answers_as: Annotated[list[Annotated[str, Field(pattern=_MODEL)]], Field(max_length=10)] = []
    fingerprint: Annotated[Visible, Field(max_length=100)] = ""
    region: Annotated[Visible, Field(min_length=1, max_length=60)]
    credential: Annotated[str, Field(pattern=r"^([a-z0-9]+(-[a-z0-9]+)*)?$", max_length=60)] = ""
    parameters: Annotated[list[Parameter], Field(max_length=20)]
    context_tokens: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    dimensions: Annotated[int, Field(ge=0, le=65_536)] = 0
    max_inputs: Annotated[int, Field(ge=0, le=MAX_TEXTS)] = 0
    voices: Annotated[
        list[Annotated[Visible, Field(min_length=1, max_length=100)]], Field(max_length=50)
    ] = []
    cleared_for: Cleared = "public"
    terms: Terms
    shutdown_on: date | None = None
    prices: Prices = Prices()

    _dates = field_validator("shutdown_on", mode="before")(_day)

    @field_validator("parameters")
    @classmethod
    def _once(cls, value: list[Parameter]) -> list[Parameter]:
        return sorted(set(value))

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        rules, name = self.rules, self.operation
        if self.shape not in rules.shapes:
            raise broken_rule(f"The shape {self.shape} has no operation {name}")
        if others := sorted(set(self.parameters) - rules.parameters):
            raise broken_rule(f"The operation {name} has no parameter {others[0]}")
        if missing := sorted(each for each in rules.fields if not getattr(self, each)):
            raise broken_rule(f"{missing[0]} is required for the operation {name}")
        if extra := sorted(each for each in OWN_FIELDS - rules.fields if getattr(self, each)):
            raise broken_rule(f"The operation {name} has no {extra[0]}")
        if self.max_tokens > self.context_tokens:
            raise broken_rule("max_tokens is more than context_tokens")
        by_token = rules.unit is Unit.TOKENS
        if self.prices.unit if by_token else self.prices.prompt or self.prices.completion:
            priced = "million tokens, as prompt and completion" if by_token else "unit"
            raise broken_rule(f"The operation {name} is priced per {priced}")
        return self

    @property
    def rules(self) -> OperationRules:
        """Return the rules of the description's operation."""
        return OPERATIONS[self.operation]

    @property
    def host(self) -> str:
        """Return the host to which requests go, without its port."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def names(self) -> frozenset[str]:
        """Return the names of the model that an answer may state."""
        return frozenset({self.model, *self.answers_as})

    def covers(self, model: str, fingerprint: str) -> bool:
        """Return whether an answer with these names, empty if it states none, is of this model."""
        return (not model or model in self.names) and self.fingerprint in ("", fingerprint)

    @classmethod
    def read(cls, content: bytes | Mapping[str, Any]) -> HostedDescription:
        """Return the description in a file's bytes or a form's values.

        Raises:
            InvalidInput: they are not a valid description; `fields` names the faults.
        """
        try:
            if isinstance(content, bytes):
                if len(content) > MAX_BYTES:
                    raise InvalidInput(f"The description has more than {MAX_BYTES:,} bytes.")
                content = loads(content)
            return cls.model_validate(content)
        except ValidationError as error:
            raise InvalidInput(
                f"The description is invalid: {printable(clauses(error)[0], 300)}.",
                fields=field_sentences(error, whole="description", most=20),
            ) from error
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{HOSTED_FILE} cannot be read as JSON.") from error

    def check_runs(self) -> None:
        """Raise InvalidInput if the provider has ended the model by now."""
        if self.ends_at is not None and self.ends_at <= datetime.now(UTC):
            raise InvalidInput(
                f"{self.provider} ended {self.model} on {self.shutdown_on}.",
                hint="Describe the model that replaces it.",
                fields={"shutdown_on": ["It is in the past."]},
            )

    @property
    def ends_at(self) -> datetime | None:
        """Return the beginning of the day on which the provider ends the model, in UTC."""
        if self.shutdown_on is None:
            return None
        return datetime(
            self.shutdown_on.year, self.shutdown_on.month, self.shutdown_on.day, tzinfo=UTC
        )

    def canonical(self) -> bytes:
        """Return the bytes of the version's file: equal descriptions have equal bytes."""
        return canonical_json(self.model_dump(mode="json"))


class ProbeResult(_Strict):
    """Result of intake's probe: the provider's answer to one short request, and its list of models.

    Attributes:
        reached: The model answered the request.
        listed: The provider's list has the model; None if the provider has no list.
        model: Name of the model in the answer; may be empty.
        fingerprint: Fingerprint in the answer; may be empty.
        latency_ms: Time from the request to the end of its answer.
        prompt_tokens: The provider's count of the prompt's tokens, if it states one.
        completion_tokens: The provider's count of the answer's tokens, if it states one.
        error: Reason of the failure, as a sentence; empty if the model answered.
    """

    reached: bool
    listed: bool | None = None
    model: Annotated[Visible, Field(max_length=200)] = ""
    fingerprint: Annotated[Visible, Field(max_length=100)] = ""
    latency_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    prompt_tokens: Annotated[int, Field(ge=0, le=10**9)] | None = None
    completion_tokens: Annotated[int, Field(ge=0, le=10**9)] | None = None
    error: Annotated[Visible, Field(max_length=PROBE_ERROR_MAX)] = ""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.reached == bool(self.error):
            raise ValueError("A probe has either an answer or an error")
        return self
