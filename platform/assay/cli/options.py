"""Options and arguments that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.output import CliError, errors

if TYPE_CHECKING:
    from assay.cli.client import Client
    from governance.errors import DomainError

Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")]
Follow = Annotated[bool, typer.Option("--follow", help="Show the progress until the job ends.")]
Reason = Annotated[str, typer.Option(help="Reason, for the audit log.")]
Priority = Annotated[str, typer.Option(help="Priority: low, normal or high.")]
VersionRef = Annotated[
    str, typer.Argument(help="Version: its ID, MODEL:NUMBER, or MODEL for its newest one.")
]
DataRef = Annotated[
    str, typer.Argument(help="Dataset version: its ID, DATASET:NUMBER, or DATASET for the newest.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="NAME=VALUE of a hyperparameter, such as epochs=3. Repeatable."),
]
Resources = Annotated[
    list[str] | None,
    typer.Option(
        "--resource", help="NAME=NUMBER: devices, nodes, memory_gib or minutes. Repeatable."
    ),
]
Key = Annotated[
    str,
    typer.Option(
        envvar="ASSAY_AUDIT_KEY",
        help="Public key of the log, from a source that you trust; separate several by commas.",
    ),
]
DOCUMENT_BYTES = 1024 * 1024


def warn_of_own_key(kind: str) -> None:
    """Print that a document was checked with the key that is in it."""
    errors.print(
        f"Checked with the key that is in the {kind}. To check with a key that you trust, use "
        "--key.",
        style="dim",
    )


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


def json_pairs(texts: list[str] | None) -> dict[str, Any]:
    """Return the values of repeated NAME=VALUE options by name."""
    return dict(map(json_pair, texts or ()))


def version_id(client: Client, reference: str) -> int:
    """Return the ID of the version that an ID, MODEL:NUMBER or MODEL names."""
    return _id(client, reference, "models", "model")


def dataset_version_id(client: Client, reference: str) -> int:
    """Return the ID of the dataset version that an ID, DATASET:NUMBER or DATASET names."""
    return _id(client, reference, "datasets", "dataset")


def _id(client: Client, reference: str, path: str, kind: str) -> int:
    if reference.isascii() and reference.isdigit():
        return int(reference)
    name, _, number = reference.partition(":")
    for row in client.all(f"{path}/{name}/versions", limit=10_000):
        # The newest comes first. Only its number names a recalled version.
        if number in (str(row["number"]), f"v{row['number']}") or (
            not number and row.get("state") != "recalled"
        ):
            return int(row["id"])
    which = f"version {number}" if number else "version"
    raise CliError(
        f"The {kind} {name} has no {which} that you may see.",
        f"`assay {path} show {name}` lists its versions.",
    )


def json_document(file: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises:
        CliError: the file cannot be read, is too large, or has no JSON object.
    """
    try:
        document = json.loads(text_of(file, at_most=DOCUMENT_BYTES))
    except ValueError as error:
        raise CliError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise CliError(f"{file} is not a JSON object.")
    return document


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
