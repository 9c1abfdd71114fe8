"""Models of the messages between nodes and the control plane, used by both ends.

This module has those for all nodes: joining, signing in, and facts about the machine. Those of
engine workers are in `protocol`, those of job supervisors in `jobs`. Does not use Django.
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
from governance.faults import clauses, field_sentences
from governance.keys.tokens import SENT_MAX
from registry.manifests import Manifest

M = TypeVar("M", bound=BaseModel)
# Workers are named `<node>/<worker>`, in columns of 120 characters.
NODE_NAME_MAX, WORKER_NAME_MAX = 40, 79
CHALLENGE_MAX = 160
DEVICES_MAX, VERSIONS_MAX = 64, 16
BYTES_MAX = 2**53
# Most characters of the last lines of a run and its traceback.
LINES_MAX = 40_000
# Most characters of an object whose members another module checks.
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
# A number in a query string, where all values are text.
Digits = Annotated[Bytes, BeforeValidator(_digits)]
Whole = Annotated[int, Field(ge=0, le=2**31 - 1)]
Part = Annotated[float, Field(ge=0, le=1)]
ManifestField = Annotated[Manifest, BeforeValidator(_manifest), PlainSerializer(Manifest.to_json)]
Bounded = AfterValidator(_bounded)


class Message(BaseModel):
    """Base of messages. Unknown fields and values of other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def read(kind: type[M], content: Any, *, extra: Literal["ignore"] | None = None) -> M:
    """Parse a message from JSON, given as bytes or parsed. `extra` ignores unknown fields, which
    the answer of a newer control plane may have.

    Raises:
        InvalidInput: has a sentence for each wrong field.
    """
    try:
        # Strict models accept names of states, and lists for tuples, only from JSON.
        text = content if isinstance(content, bytes) else json.dumps(content)
        return kind.model_validate_json(text, extra=extra)
    except ValidationError as error:
        raise _invalid(error) from None


def checked_message(kind: type[M], **values: Any) -> M:
    """Return a message with these values. Raises InvalidInput like `read`."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> InvalidInput:
    fields = field_sentences(error, whole="message")
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return InvalidInput(f"{clauses(error)[0]}{more}.", fields=fields)


def one_line(text: str, most: int) -> str:
    """Return at most `most` characters of a text, as one line without control characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:most]


def many_lines(text: str, most: int) -> str:
    """Return the last `most` characters of a text, without control characters."""
    characters = (each if each.isprintable() or each in "\n\t" else " " for each in text[-most:])
    return "".join(characters).strip()


def signed_text(challenge: str, name: str) -> bytes:
    """Return the bytes that a node signs to answer a challenge."""
    return f"assay node session 1\n{name}\n{challenge}".encode()


class Nothing(Message):
    """An empty message."""


class Accelerator(Message):
    """One accelerator. `used` is its utilization, null if unknown."""

    name: Name
    memory_bytes: Bytes
    memory_used_bytes: Bytes
    used: Part | None


class Facts(Message):
    """Facts about the machine: CPUs, memory, disk (of the file cache) and devices. `clock_ahead_s`
    is 0 if the clock is about right."""

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


def reported_facts(facts: Facts | None) -> dict[str, Any] | None:
    """Return the facts of a message in the form that the database stores."""
    return None if facts is None else facts.model_dump(exclude_unset=True)


class JoinBody(Message):
    """The token, the machine's new public key (Ed25519, hexadecimal), and facts about it."""

    token: Annotated[Text, Field(min_length=1, max_length=SENT_MAX)]
    public_key: Annotated[Text, Field(min_length=1, max_length=_KEY_DIGITS)]
    facts: Facts | None = None


class Joined(Message):
    """Name of the node that the token was made for."""

    node: str


class ChallengeBody(Message):
    """The node that signs in."""

    node: NodeName


class Challenge(Message):
    """A text to sign, and its validity in seconds."""

    challenge: str
    expires_in_s: int


class SessionBody(ChallengeBody):
    """The challenge, and the signature (hexadecimal) of `assay node session 1`, the node's name and
    the challenge, each but the last followed by a line feed."""

    challenge: Annotated[Text, Field(min_length=1, max_length=CHALLENGE_MAX)]
    signature: Annotated[Text, Field(min_length=1, max_length=_SIGNATURE_DIGITS)]


class NodeSessionAnswer(Message):
    """The session's token, its validity in seconds, and the node's user of the broker.

    `realm` is part of the names of the node's keys there; `wire_key` authenticates its messages.
    """

    token: str
    expires_in_s: int
    broker_user: str
    broker_password: str
    realm: str
    wire_key: str


class WorkerBody(Message):
    """A worker of the node."""

    worker: WorkerName
