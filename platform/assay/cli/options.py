"""Options and arguments that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.output import CliError

if TYPE_CHECKING:
    from governance.errors import DomainError

Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")]


def pair(text: str) -> tuple[str, str]:
    """Split NAME=VALUE.

    Raises:
        CliError: the text has no name or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise CliError(f"{text!r} is not NAME=VALUE.", "For example state=active.")
    return name, value


def json_pair(text: str) -> tuple[str, Any]:
    """Split NAME=VALUE; a value that parses as JSON is decoded, any other is text.

    Raises:
        CliError: the text has no name or no equals sign.
    """
    name, value = pair(text)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def faults(error: DomainError) -> str:
    """Return the faults of an error's fields, one a line and at most ten."""
    return "\n".join(f"{name}: {'; '.join(each)}" for name, each in list(error.fields.items())[:10])


def text_of(file: Path, *, at_most: int) -> str:
    """Return the text of a file.

    Raises:
        CliError: the file cannot be read, or is larger than `at_most` bytes.
    """
    try:
        if file.stat().st_size > at_most:
            raise CliError(f"{file} has more than {at_most:,} bytes.")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{file} cannot be read: {error}.") from error
