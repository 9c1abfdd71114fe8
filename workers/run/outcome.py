"""Outcome of a run in `FOLDER/result.json`, which the supervisor reads as untrusted input."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from governance.errors import InvalidInput
from governance.faults import clauses
from registry.catalog.answers import ANSWER_MAX, REQUEST_MAX, ROWS_MAX
from registry.manifests import Manifest, open_beneath
from workers.run.storable import cleaned, storable

RESULT_FILE = "result.json"
# Samples of an evaluation contain thumbnails and short recordings; findings name each file.
MAX_RESULT_BYTES = 64 * 1024**2
SENTENCE_CHARACTERS = 2_000
# Limit on a traceback.
DETAIL_CHARACTERS = 16_000
# Exit status after SIGTERM (EX_TEMPFAIL): stopped, and another attempt may continue.
STOPPED = 75
# Exit status of a run that had no room to write its outcome (EX_IOERR).
NO_ROOM = 74
UNREQUESTED = "The run stopped without a request to stop."


class Ending(StrEnum):
    """The end of a run.

    `done`: with a result. `unusable`: the material or the settings cannot be used. `faulty`: the
    code failed, and would fail again. `broken`: another attempt may help. `lacking`: the machine
    temporarily lacks something, such as disk space.
    """

    DONE = "done"
    UNUSABLE = "unusable"
    FAULTY = "faulty"
    BROKEN = "broken"
    LACKING = "lacking"


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Outcome(_Checked):
    """The outcome of a run: its result, or why there is none; `detail` is a traceback."""

    ending: Ending
    result: dict[str, Any] = Field(default_factory=dict)
    sentence: str = Field(default="", max_length=SENTENCE_CHARACTERS)
    detail: str = Field(default="", max_length=DETAIL_CHARACTERS)

    @field_validator("sentence", "detail")
    @classmethod
    def _clean(cls, sentence: str) -> str:
        return cleaned(sentence)

    def write(self, folder: Path) -> None:
        """Write the file atomically."""
        partial = folder / f"{RESULT_FILE}.part"
        partial.write_text(self.model_dump_json(), encoding="utf-8")
        os.replace(partial, folder / RESULT_FILE)


def outcome_read(folder: Path) -> Outcome | None:
    """Return the outcome of the run in this folder; None if it has none yet.

    Raises:
        InvalidInput: the file is too large or not an outcome.
        OSError: it is not a plain file.
    """
    try:
        with open_beneath(folder, RESULT_FILE) as opened:
            content = opened.read(MAX_RESULT_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(content) > MAX_RESULT_BYTES:
        raise InvalidInput(f"The run's result is larger than {MAX_RESULT_BYTES:,} bytes.")
    try:
        return Outcome.model_validate_json(content)
    except ValidationError as error:
        raise InvalidInput("The run's result is malformed.") from error


Name = Annotated[str, Field(min_length=1, max_length=200)]
Numbers = dict[Name, float]


class _Files(_Checked):
    manifest: dict[str, Any]

    @field_validator("manifest")
    @classmethod
    def _well_formed(cls, value: dict[str, Any]) -> dict[str, Any]:
        return Manifest.from_json(value).to_json()


class _Finding(_Checked):
    check: Name
    passed: bool
    detail: str = Field(max_length=20_000)


class _Rejected(_Checked):
    rejected: str = Field(min_length=1, max_length=20_000)
    findings: list[_Finding] = Field(max_length=50_000)


class _Accepted(_Files):
    findings: list[_Finding] = Field(max_length=50_000)
    code: list[dict[str, Any]] = Field(max_length=64)
    converted: dict[str, Any]


class _Tuned(_Files):
    metrics: Numbers = Field(max_length=500)
    parameters: dict[Name, Any] = Field(max_length=500)
    notes: str = Field(default="", max_length=20_000)
    code: list[dict[str, Any]] = Field(default_factory=list, max_length=64)


class _Reference(_Checked):
    row: int = Field(ge=0, le=2**31 - 1)
    inputs: dict[str, Any]
    options: dict[str, Any]
    text: str = Field(max_length=ANSWER_MAX)
    results: list[Any]

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if len(json.dumps(self.model_dump())) > REQUEST_MAX + ANSWER_MAX:
            raise ValueError("a request and its answer are too long")
        return self


class _Measured(_Checked):
    metrics: Numbers = Field(max_length=500)
    baseline: Numbers = Field(max_length=500)
    baseline_name: str = Field(max_length=200)
    sample_size: int = Field(ge=0, le=2**31 - 1)
    details: dict[Name, Any]
    intervals: dict[Name, Any] = Field(default_factory=dict)
    slices: list[dict[str, Any]] = Field(default_factory=list, max_length=200)
    reference: list[_Reference] = Field(default_factory=list, max_length=ROWS_MAX)


class _Indexed(_Files):
    dimensions: int = Field(ge=1, le=8_192)
    chunks: int = Field(ge=0, le=2**31 - 1)
    reused: int = Field(ge=0, le=2**31 - 1)
    versions: list[int] = Field(max_length=1_000_000)
    revision: int = Field(ge=0, le=2**63 - 1)


_RESULTS: dict[str, TypeAdapter[Any]] = {
    "intake": TypeAdapter(_Rejected | _Accepted),
    "fine_tune": TypeAdapter(_Tuned),
    "evaluate": TypeAdapter(_Measured),
    "index": TypeAdapter(_Indexed),
}


def result_checked(kind: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a run with each field's type and size checked.

    Raises:
        InvalidInput: a field does not fit; the message names the first.
    """
    try:
        if len(json.dumps(result, allow_nan=False)) > MAX_RESULT_BYTES:
            raise InvalidInput(f"The run's result is larger than {MAX_RESULT_BYTES:,} bytes.")
        storable(result)
        checked: dict[str, Any] = _RESULTS[kind].validate_python(result).model_dump()
    except ValidationError as error:
        raise InvalidInput(f"The run's result is malformed: {clauses(error)[0]}.") from error
    except ValueError as error:
        raise InvalidInput(
            "The run's result holds a number that is not finite, or a character that cannot be "
            "stored."
        ) from error
    return checked
