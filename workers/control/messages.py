"""Messages between nodes and the control plane, which both ends read and write by these models.

Here are those of every node: joining, signing in, and facts about the machine. Those of engine
workers are in `protocol`, those of supervisors of jobs in `jobs`. Knows no Django.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
)

from governance.bounds import NOT_IN_TEXT, NOT_ON_A_LINE
from governance.errors import DomainError, InvalidInput
from governance.keys.tokens import SENT_MAX
from registry.manifests import Manifest
from registry.validation import schema_faults

M = TypeVar("M", bound=BaseModel)
# Workers are named `<node>/<worker>`, in columns of 120 characters.
NODE_NAME_MAX, WORKER_NAME_MAX = 40, 79
CHALLENGE_MAX = 160
DEVICES_MAX, VERSIONS_MAX = 64, 16
BYTES_MAX = 2**53
# The last lines of a run and its traceback, in characters.
LINES_MAX = 40_000
# Characters of an object whose members another module checks.
OBJECT_MAX = 32_768
_KEY_DIGITS, _SIGNATURE_DIGITS = 64, 128


def _without(characters: re.Pattern[str]) -> AfterValidator:
    def check(value: str) -> str:
        if characters.search(value):
            raise ValueError("control characters are not allowed here")
        return value

    return AfterValidator(check)


def _manifest(value: Any) -> Manifest:
    try:
        return value if isinstance(value, Manifest) else Manifest.from_json(value)
    except DomainError as error:
        raise ValueError(error.message.rstrip(".")) from None


def _digits(value: Any) -> Any:
    digits = isinstance(value, str) and re.fullmatch("[0-9]{1,16}", value)
    return int(value) if digits else value


def _bounded(value: Any) -> Any:
    if len(str(value)) > OBJECT_MAX:
        raise ValueError(f"an object has at most {OBJECT_MAX:,} characters")
    return value


# Texts that may be empty: one line, and several.
Text = Annotated[str, StringConstraints(strip_whitespace=True), _without(NOT_ON_A_LINE)]
Paragraphs = Annotated[str, StringConstraints(strip_whitespace=True), _without(NOT_IN_TEXT)]
NodeName = Annotated[Text, Field(min_length=1, max_length=NODE_NAME_MAX)]
WorkerName = Annotated[Text, Field(min_length=1, max_length=WORKER_NAME_MAX)]
Name = Annotated[Text, Field(min_length=1, max_length=80)]
Bytes = Annotated[int, Field(ge=0, le=BYTES_MAX)]
# Of a query, whose values are all text.
Digits = Annotated[Bytes, BeforeValidator(_digits)]
Whole = Annotated[int, Field(ge=0, le=2**31 - 1)]
Part = Annotated[float, Field(ge=0, le=1)]
ManifestField = Annotated[Manifest, BeforeValidator(_manifest), PlainSerializer(Manifest.to_json)]
Bounded = AfterValidator(_bounded)


class Message(BaseModel):
    """A message. Unknown fields and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def read(kind: type[M], content: Any, *, extra: Literal["ignore"] | None = None) -> M:
    """Return JSON, as bytes or parsed, as a message. `extra` passes over unknown fields, which an
    answer of a newer control plane may have.

    Raises:
        InvalidInput: with a sentence for each field that is wrong.
    """
    try:
        # Strict models take names of states, and lists for tuples, from JSON alone.
        text = content if isinstance(content, bytes) else json.dumps(content)
        return kind.model_validate_json(text, extra=extra)
    except ValidationError as error:
        raise _invalid(error) from None


def made(kind: type[M], **values: Any) -> M:
    """Return a message of these values. Raises InvalidInput as `read`."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> InvalidInput:
    fields = schema_faults(error, whole="message")
    (path, (sentence, *_)), *others = fields.items()
    more = f" (and {len(others)} more)" if others else ""
    return InvalidInput(f"{path}: {sentence}{more}", fields=fields)


def one_line(text: str, most: int) -> str:
    """Return at most `most` characters of a text, as one line without control characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:most]


def many_lines(text: str, most: int) -> str:
    """Return at most the last `most` characters of a text, without control characters."""
    kept = (each if each.isprintable() or each in "\n\t" else " " for each in text[-most:])
    return "".join(kept).strip()


def signed_text(challenge: str, name: str) -> bytes:
    """Return the bytes that a node signs to answer a challenge."""
    return f"assay node session 1\n{name}\n{challenge}".encode()


class Nothing(Message):
    """No members."""


class Accelerator(Message):
    """One accelerator. `used` is its utilization, null if unknown."""

    name: Name
    memory_bytes: Bytes
    memory_used_bytes: Bytes
    used: Part | None


class Facts(Message):
    """The machine: processors, memory, disk (where files are cached) and devices. `clock_ahead_s`
    is 0 for a clock that is about right."""

    cpus: Annotated[int, Field(ge=1, le=65_536)]
    cpu_used: Part
    load: Annotated[float, Field(ge=0, le=1e6)]
    memory_bytes: Bytes
    memory_used_bytes: Bytes
    disk_free_bytes: Bytes
    clock_ahead_s: Annotated[float, Field(ge=-1e10, le=1e10)] = 0.0
    devices: Annotated[list[Accelerator], Field(max_length=DEVICES_MAX)]
    versions: Annotated[
        dict[Annotated[str, Field(max_length=40)], Name], Field(max_length=VERSIONS_MAX)
    ]


def reported(facts: Facts | None) -> dict[str, Any] | None:
    """Return the facts of a message as they are kept."""
    return None if facts is None else facts.model_dump(exclude_unset=True)


class JoinBody(Message):
    """The token, the machine's new public key (Ed25519, hexadecimal), and what the machine has."""

    token: Annotated[Text, Field(min_length=1, max_length=SENT_MAX)]
    public_key: Annotated[Text, Field(min_length=1, max_length=_KEY_DIGITS)]
    facts: Facts | None = None


class Joined(Message):
    """The name that the token was made for."""

    node: str


class ChallengeBody(Message):
    """The node that wants to sign in."""

    node: NodeName


class Challenge(Message):
    """A text to sign, and for how many seconds it is valid."""

    challenge: str
    expires_in_s: int


class SessionBody(ChallengeBody):
    """The challenge, and the signature (hexadecimal) of `assay node session 1`, the node's name and
    the challenge, each but the last followed by a line feed."""

    challenge: Annotated[Text, Field(min_length=1, max_length=CHALLENGE_MAX)]
    signature: Annotated[Text, Field(min_length=1, max_length=_SIGNATURE_DIGITS)]


class NodeSessionAnswer(Message):
    """The session's token, for how many seconds it is valid, and the node's user of the broker.

    `realm` names the node's keys there; `wire_key` authenticates its messages."""

    token: str
    expires_in_s: int
    broker_user: str
    broker_password: str
    realm: str
    wire_key: str


class WorkerBody(Message):
    """A worker of the node."""

    worker: WorkerName
