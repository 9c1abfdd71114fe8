"""Prompt documents: the only file of a version of kind `prompt`, and its application to requests.

A document has a system message, a template for each user message, worked examples and decoding
settings. Its texts are data: `{{name}}` is replaced by a value once, and placeholders in values are
not replaced. Loads neither Django nor torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from governance.errors import InvalidInput
from governance.faults import clauses, field_sentences
from governance.yaml_text import hides
from registry.canonical import canonical_json
from registry.catalog.declaration import Modality, Task
from registry.catalog.generation import (
    MAX_TOKENS,
    MAX_VARIABLES,
    ChatMessage,
    GenerationInputs,
    SamplingOptions,
    VariableName,
)
from registry.catalog.requests import BYTES_PER_TOKEN, RequestInvalid, printable

PROMPT_FILE = "prompt.json"
# Placeholder for the caller's message in the template.
INPUT = "input"
MAX_BYTES = 32_768
MAX_EXAMPLES = 20
MAX_STOPS = 4
MAX_VALUE = 20_000
# Maximum size of a request after the prompt was filled in.
MAX_FILLED = 1_000_000
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]{0,39})\s*\}\}")
# Line ends and tabs, which are visible.
_LAYOUT = dict.fromkeys(map(ord, "\t\n\r"))
# Invisible letters, marks and blanks, which Unicode's categories do not separate from others.
_SHAPELESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0000-\U000e0fff]"
)
# Emoji and several scripts need joiners, and emoji need the color selector: both after a non-ASCII
# character, joiners also before one. A keycap is a digit, the selector and U+20E3.
_JOINED = re.compile(
    "(?<=[^\x00-\x7f\u200c\u200d\ufe0f])"
    "\ufe0f?(?:[\u200c\u200d](?=[^\x00-\x7f\u200c\u200d\ufe0f]))?|\ufe0f(?=\u20e3)"
)


def _visible_text(value: str) -> str:
    rest = _JOINED.sub("", value.translate(_LAYOUT))
    if hides(rest) or _SHAPELESS.search(rest):
        raise ValueError("The text holds a control character or one that cannot be seen")
    return value.replace("\r\n", "\n").replace("\r", "\n")


Visible = Annotated[str, AfterValidator(_visible_text)]
Setting = Literal["temperature", "top_p", "max_tokens", "stop"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Variable(_Strict):
    """A value that callers pass by name; `max_length` is in characters.

    Without a `default` it is required.
    """

    name: VariableName
    description: Annotated[Visible, Field(max_length=300)] = ""
    default: Annotated[Visible, Field(max_length=4_000)] | None = None
    max_length: Annotated[int, Field(ge=1, le=MAX_VALUE)] = 1_000

    @property
    def required(self) -> bool:
        return self.default is None

    @model_validator(mode="after")
    def _default_fits(self) -> Self:
        if self.name == INPUT:
            raise ValueError(f"{INPUT} is reserved for the caller's message; choose another name")
        if self.default is not None and len(self.default) > self.max_length:
            raise ValueError(f"The default of {self.name} is longer than its max_length")
        return self


class Example(_Strict):
    """A worked example: a user message, which the template wraps, and its answer."""

    user: Annotated[Visible, Field(min_length=1, max_length=8_000)]
    assistant: Annotated[Visible, Field(min_length=1, max_length=8_000)]


class Decoding(_Strict):
    """Sampling settings for callers that choose none; callers cannot change those in `fixed`."""

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    stop: Annotated[
        list[Annotated[Visible, Field(min_length=1, max_length=200)]], Field(max_length=MAX_STOPS)
    ] = []
    fixed: Annotated[list[Setting], Field(max_length=4)] = []

    @field_validator("fixed")
    @classmethod
    def _once(cls, value: list[Setting]) -> list[Setting]:
        return sorted(set(value))

    @model_validator(mode="after")
    def _fixes_what_it_sets(self) -> Self:
        for name in self.fixed:
            if name not in self.stated:
                raise ValueError(f"{name} has no value to fix")
        return self

    @property
    def stated(self) -> dict[str, Any]:
        """Return the settings that have a value."""
        settings = self.model_dump(exclude={"fixed"})
        return {name: value for name, value in settings.items() if value not in (None, [])}


class PromptDocument(_Strict):
    """Everything that a prompt version adds to a request.

    `system` and `template` may name variables as `{{name}}`; the template wraps each user message,
    whose text is `{{input}}`.
    """

    format: Literal[1] = 1
    system: Annotated[Visible, Field(max_length=16_000)] = ""
    template: Annotated[Visible, Field(min_length=1, max_length=8_000)] = "{{input}}"
    variables: Annotated[list[Variable], Field(max_length=MAX_VARIABLES)] = []
    examples: Annotated[list[Example], Field(max_length=MAX_EXAMPLES)] = []
    decoding: Decoding = Decoding()

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [variable.name for variable in self.variables]
        for name, count in Counter(names).items():
            if count > 1:
                raise ValueError(f"The variable {name} is declared twice")
        used = set(placeholders(self.system)) | set(placeholders(self.template))
        if placeholders(self.template)[INPUT] != 1 or INPUT in placeholders(self.system):
            raise ValueError("{{input}} must occur in the template once, and nowhere else")
        if unknown := sorted(used - {INPUT, *names}):
            raise ValueError(f"{{{{{unknown[0]}}}}} is used but not declared as a variable")
        if unused := sorted(set(names) - used):
            raise ValueError(f"The variable {unused[0]} is declared but not used")
        return self

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if len(self.canonical()) > MAX_BYTES:
            raise ValueError(f"The prompt takes more than {MAX_BYTES:,} bytes")
        return self

    @classmethod
    def read(cls, content: bytes | Mapping[str, Any]) -> PromptDocument:
        """Return the document in a file or form.

        Raises:
            InvalidInput: the content does not fit the schema; `fields` lists the places.
        """
        try:
            if isinstance(content, bytes):
                return cls.model_validate_json(content)
            return cls.model_validate(dict(content))
        except ValidationError as error:
            raise InvalidInput(
                f"The prompt is invalid: {printable(clauses(error)[0], 300)}.",
                fields=field_sentences(error, whole="document", most=20),
            ) from error

    def canonical(self) -> bytes:
        """Return the bytes of the version's file."""
        return canonical_json(self.model_dump())

    def applied(
        self, inputs: GenerationInputs, options: SamplingOptions
    ) -> tuple[GenerationInputs, SamplingOptions]:
        """Return a request with the prompt filled in and without variables.

        Raises:
            RequestInvalid: variables, messages or settings do not fit the prompt.
        """
        return self.filled(inputs), self._with_decoding(options)

    def check(self, inputs: GenerationInputs) -> dict[str, str]:
        """Return the values of all variables for a request. Raises RequestInvalid."""
        if inputs.messages is None:
            raise RequestInvalid(
                "This model has its own prompt; send messages instead of a prompt.",
                param="prompt",
            )
        if self.system and any(message.role == "system" for message in inputs.messages):
            raise RequestInvalid(
                "This model has its own system message; leave yours out.", param="messages"
            )
        if self.system and inputs.tools:
            # Chat templates write tools into the system message.
            raise RequestInvalid(
                "This model has its own system message; leave tools out.", param="tools"
            )
        if all(message.role == "system" for message in inputs.messages):
            raise RequestInvalid("Send at least one user message.", param="messages")
        values = self._values(inputs.variables or {})
        messages_length = sum(len(message.text) for message in inputs.messages)
        if messages_length + self._added_bytes(inputs.messages, values) > MAX_FILLED:
            raise RequestInvalid(f"The filled prompt has more than {MAX_FILLED:,} bytes.")
        return values

    def filled(self, inputs: GenerationInputs) -> GenerationInputs:
        """Return the inputs with system message, examples and template. Raises RequestInvalid."""
        # Check sizes before filling in, because a value may occur in many places.
        values = self.check(inputs)
        before, after = (_substituted(half, values) for half in self._halves)
        system = _substituted(self.system, values)
        messages = inputs.messages or []

        def turn(message: ChatMessage) -> ChatMessage:
            if message.role != "user":
                return message
            return ChatMessage(role="user", content=f"{before}{message.text}{after}")

        own_turns = [ChatMessage(role="system", content=system)] if system else []
        leading = [message for message in messages if message.role == "system"]
        for example in self.examples:
            own_turns.append(turn(ChatMessage(role="user", content=example.user)))
            own_turns.append(ChatMessage(role="assistant", content=example.assistant))
        turns = [turn(message) for message in messages if message.role != "system"]
        return inputs.model_copy(
            update={
                "messages": [*leading, *own_turns, *turns],
                "variables": None,
                "own_texts": self._own_texts(inputs, values),
            }
        )

    def _own_texts(self, inputs: GenerationInputs, values: Mapping[str, str]) -> list[str]:
        """Return the document's texts with defaults, once for each occurrence in the messages."""
        variables = inputs.variables or {}
        defaults = {name: value for name, value in values.items() if name not in variables}
        wrapped = sum(message.role == "user" for message in inputs.messages or ())
        texts = [_substituted(self.system, defaults)]
        texts += [_substituted(self.template, defaults)] * (wrapped + len(self.examples))
        texts += [text for each in self.examples for text in (each.user, each.assistant)]
        return [text for text in texts if text]

    def added_tokens(self, inputs: GenerationInputs) -> int:
        """Return an upper estimate of the tokens that the prompt adds to a request."""
        values = {each.name: each.default or "" for each in self.variables}
        values.update(inputs.variables or {})
        return self._added_bytes(inputs.messages or (), values) // BYTES_PER_TOKEN + 1

    def _added_bytes(self, messages: Sequence[ChatMessage], values: Mapping[str, str]) -> int:
        turns = sum(message.role == "user" for message in messages) + len(self.examples)
        example_bytes = sum(_bytes(each.user) + _bytes(each.assistant) for each in self.examples)
        return (
            _filled_bytes(self.system, values)
            + turns * _filled_bytes(self.template, values)
            + example_bytes
        )

    def _values(self, variables: Mapping[str, str]) -> dict[str, str]:
        by_name = {variable.name: variable for variable in self.variables}
        for name, value in variables.items():
            if name not in by_name:
                names = ", ".join(by_name) or "none"
                raise RequestInvalid(
                    f"The prompt has no variable {printable(name, 40)}; it has: {names}.",
                    param=f"prompt_variables.{printable(name, 40)}",
                    code="unknown_variable",
                )
            if len(value) > by_name[name].max_length:
                raise RequestInvalid(
                    f"The variable {name} has {len(value)} characters; at most "
                    f"{by_name[name].max_length} are allowed.",
                    param=f"prompt_variables.{name}",
                    code="variable_too_long",
                )
        for name, variable in by_name.items():
            if variable.required and name not in variables:
                raise RequestInvalid(
                    f"The prompt needs the variable {name}; give it in prompt_variables.",
                    param=f"prompt_variables.{name}",
                    code="missing_variable",
                )
        return {name: variables.get(name, each.default or "") for name, each in by_name.items()}

    @cached_property
    def _halves(self) -> tuple[str, str]:
        """Return the template's parts before and after the caller's message."""
        for match in _PLACEHOLDER.finditer(self.template):
            if match[1] == INPUT:
                return self.template[: match.start()], self.template[match.end() :]
        raise AssertionError("the template has no input")

    def _with_decoding(self, options: SamplingOptions) -> SamplingOptions:
        settings = self.decoding.stated
        for name in self.decoding.fixed:
            if name in options.stated and getattr(options, name) != settings[name]:
                raise RequestInvalid(
                    f"The prompt fixes {name} at {printable(str(settings[name]))}; leave it out.",
                    param=name,
                    code="setting_fixed",
                )
        chosen = {name: value for name, value in settings.items() if name not in options.stated}
        return options.model_copy(update={**chosen, "stated": []})

    def measured(self, options: SamplingOptions) -> SamplingOptions:
        """Return the settings of an evaluation: greedy, so that versions compare on equal terms,
        with the prompt's stop texts and maximum length."""
        limits = [each for each in (options.max_tokens, self.decoding.max_tokens) if each]
        return options.model_copy(
            update={
                "max_tokens": min(limits) if limits else None,
                "stop": list(self.decoding.stop) or list(options.stop),
            }
        )


def takes_prompts(task: Task) -> bool:
    """Return whether the task answers text messages, so that its versions can be prompts."""
    return task.input_schema is GenerationInputs and task.inputs == (Modality.MESSAGES,)


def placeholders(text: str) -> Counter[str]:
    """Return the number of occurrences of each `{{name}}` in a text."""
    return Counter(_PLACEHOLDER.findall(text))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _filled_bytes(text: str, values: Mapping[str, str]) -> int:
    """Return the length of a text with its placeholders filled in, without building it."""
    filled = sum(count * _bytes(values.get(name, "")) for name, count in placeholders(text).items())
    return _bytes(_PLACEHOLDER.sub("", text)) + filled


def _substituted(text: str, values: Mapping[str, str]) -> str:
    """Return the text with each placeholder replaced; one without a value stays."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)
