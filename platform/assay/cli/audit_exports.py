"""`assay audit export`: export the whole log, or selected events with their proofs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.options import pair
from assay.cli.output import Answer, CliError, errors, json_option, sentence

if TYPE_CHECKING:
    from rich.progress import Progress

    from governance.audit.cosignature import Quorum
    from governance.audit.verify import VerificationReport

POLL_S = 0.5
LIVE = frozenset({"queued", "running"})


@json_option
def export(
    file: Annotated[Path, typer.Argument(help="File for the export.")],
    action: Annotated[str | None, typer.Option(help="Events of this action.")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="Events with this outcome: allowed, denied or failed.")
    ] = None,
    department: Annotated[str | None, typer.Option(help="Events of this department.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Events at or after this day or time.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Events before this day or time.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Events that contain this text.")] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="NAME=VALUE",
            help="Another filter of GET /api/v1/audit/events. Repeatable.",
        ),
    ] = None,
    format: Annotated[  # noqa: A002 (the option's name)
        str | None,
        typer.Option(help="jsonl: events with proofs. csv: a zip with a table and the proofs."),
    ] = None,
) -> Answer:
    """Download the sealed log, or with a filter or format, selected events with their proofs."""
    if not file.parent.is_dir():
        raise CliError(f"{file.parent} is not a folder.", "Create it first.")
    options = {
        "action": action,
        "outcome": outcome,
        "department": department,
        "since": since and _moment(since),
        "until": until and _moment(until),
        "query": text,
        **dict(_pair(item) for item in filters or ()),
    }
    selection_filter = {name: value for name, value in options.items() if value}
    client = Client.signed_in()
    if not selection_filter and format is None:
        client.download("audit/export", file)
        size = file.stat().st_size
        return sentence(
            {"file": str(file), "size": size}, f"The sealed log is in {file} ({size:,} bytes)."
        )
    requested = client.post("audit/exports", filter=selection_filter, format=format or "jsonl")
    done = _finished(client, requested)
    client.download(f"audit/exports/{done['id']}/file", file)
    with file.open("rb") as source:
        if hashlib.file_digest(source, "sha256").hexdigest() != done["sha256"]:
            raise CliError(f"{file} is damaged: its digest is not the export's.", "Try again.")
    rows = f"{done['rows']:,} event{'' if done['rows'] == 1 else 's'}"
    return sentence(
        {**done, "file": str(file)},
        f"{rows} with proofs {'are' if done['rows'] != 1 else 'is'} in {file} "
        f"({done['size']:,} bytes). Verify them: `assay audit verify {file}`.",
    )


def check_file(
    file: Path, key: str, notes: list[str], tiles: Path | None, quorum: Quorum | None = None
) -> VerificationReport:
    """Verify an export of any kind: the whole log, selected events, or a zip of them.

    Raises:
        OSError: the file cannot be read.
        CliError: witnesses are required, and the file is not the whole log.
    """
    from governance.audit.exports import selection, selection_csv
    from governance.audit.verify import verify_file

    kind = _kind(file)
    if quorum is not None and kind != "log":
        raise CliError(
            f"{file} is not an export of the whole log, so no witness can vouch for it.",
            "Omit --witness, or verify the whole log with it: `assay audit verify`.",
        )
    if kind == "zip":
        return selection_csv.verify_zip(file, public_keys=key, checkpoints=notes, tiles=tiles)
    if kind == "selection":
        with file.open("rb") as source:
            return selection.verify_selection(
                source, public_keys=key, checkpoints=notes, tiles=tiles
            )
    return verify_file(file, public_keys=key, checkpoints=notes, tiles=tiles, quorum=quorum)


def key_in(file: Path) -> str:
    """Return the public keys that are in an export; empty if the file is not an export.

    Raises:
        OSError: the file cannot be read.
    """
    if _kind(file) == "zip":
        from governance.audit.exports import selection_csv

        return selection_csv.keys_in_zip(file)
    return str(_header(file).get("public_keys", ""))


def _kind(file: Path) -> str:
    from governance.audit.exports import selection

    with file.open("rb") as source:
        if source.read(2) == b"PK":
            return "zip"
    return "selection" if _header(file).get("format") == selection.FORMAT else "log"


def _header(file: Path) -> dict[str, Any]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        try:
            header = json.loads(lines.readline(64 * 1024))
        except (ValueError, RecursionError):
            return {}
    return header if isinstance(header, dict) else {}


def _pair(text: str) -> tuple[str, str]:
    name, value = pair(text)
    return name, _moment(value) if name in ("since", "until") else value


def _moment(text: str) -> str:
    """Return a day or time in the API's format; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CliError(
            f"{text!r} is not a day or time.", "For example 2026-11-25 or 2026-11-25T14:00+01:00."
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _finished(client: Client, export: dict[str, Any]) -> dict[str, Any]:
    """Show progress until the export is done, and return it; an interrupt cancels the export.

    Raises:
        CliError: the export failed, or someone else canceled it.
    """
    address = f"audit/exports/{export['id']}"
    with _canceled_when_interrupted(client, address), _bar() as progress:
        bar = progress.add_task("waiting", total=100)
        while export["state"] in LIVE:
            time.sleep(POLL_S)
            export = client.get(address)
            description = f"{export['state']} · {export['rows']:,} events"
            progress.update(bar, description=description, completed=export["percent"])
    if export["state"] != "done":
        raise CliError(f"The export is {export['state']}.", export["error"])
    return export


def _bar() -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=errors, transient=True)


@contextlib.contextmanager
def _canceled_when_interrupted(client: Client, address: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(CliError):
            client.post(f"{address}/cancel")
        raise
