"""Well-known code of models: chat templates and tokenizer patterns, by SHA-256."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from governance.errors import InvalidInput

MAX_CODE = 16
SHOWN_CHARACTERS = 16 * 1024
NO_NUL = r"^[^\x00]*$"


class Code(BaseModel):
    """One piece of code as a worker found it in the files of a version.

    `shown` is its beginning, `sha256` covers all of it; `known` names the origin of well-known
    code.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: str = Field(min_length=1, max_length=40)
    path: str = Field(min_length=1, max_length=400, pattern=NO_NUL)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    characters: int = Field(ge=0, le=2**31)
    shown: str = Field(max_length=SHOWN_CHARACTERS, pattern=NO_NUL)
    known: str = ""


_CODES = TypeAdapter(list[Code])


@cache
def known_code() -> Mapping[str, str]:
    """Return the name of every well-known piece of code, by SHA-256."""
    listed = json.loads(files("registry.versions").joinpath("known_code.json").read_text("utf-8"))
    return {each["sha256"]: each["name"] for each in listed["code"]}


def checked_code(pieces: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a worker's findings, with the names of known code.

    Raises:
        InvalidInput: an entry is malformed, or there are too many.
    """
    if len(pieces) > MAX_CODE:
        raise InvalidInput(
            f"{len(pieces)} pieces of code were found; at most {MAX_CODE} are allowed."
        )
    try:
        codes = _CODES.validate_python([dict(each) for each in pieces])
    except ValidationError as error:
        raise InvalidInput("The list of the model's code is malformed.") from error
    return [
        {
            **code.model_dump(),
            "known": known_code().get(code.sha256, ""),
        }
        for code in codes
    ]
