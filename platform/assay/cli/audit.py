"""`assay audit`: export and verify the audit log, one event, or the growth of the log."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from assay.cli.audit_exports import check_file, export, key_in
from assay.cli.client import Client
from assay.cli.options import Key, warn_of_own_key
from assay.cli.output import Answer, CliError, console, json_option

if TYPE_CHECKING:
    from governance.audit.cosignature import Quorum
    from governance.audit.verify import VerificationReport

app = typer.Typer(no_args_is_help=True)

app.command()(export)


@app.command()
@json_option
def verify(
    file: Annotated[
        Path | None, typer.Argument(help="Export to verify; downloaded from the server by default.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint that you saved; reveals truncation. Repeatable."),
    ] = None,
    tiles: Annotated[
        Path | None, typer.Option(help="Folder of published tiles; identifies a replaced row.")
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(help="Key of a witness that must have cosigned a --checkpoint. Repeatable."),
    ] = None,
    quorum: Annotated[
        int | None, typer.Option(help="Number of witnesses that suffice; all by default.")
    ] = None,
    key: Key = "",
) -> Answer:
    """Verify every hash and signature of an export, offline; exit with 1 on the first fault.

    The export may be the whole log, selected events, or a zip with a table of them.
    """
    notes = [_read(path) for path in checkpoint or []]
    if tiles is not None and not tiles.is_dir():
        raise CliError(f"{tiles} is not a folder.", "Name the folder that the sealer publishes to.")
    required = _quorum(witness or [], quorum)
    if file is not None:
        return _report(_verify(file, key, notes, tiles, required))
    with tempfile.TemporaryDirectory(prefix="assay-audit-") as folder:
        downloaded = Path(folder) / "export.jsonl"
        Client.signed_in().download("audit/export", downloaded)
        return _report(_verify(downloaded, key, notes, tiles, required))


@app.command()
@json_option
def proof(
    event: Annotated[int, typer.Argument(min=1, help="The event's ID.")],
    out: Annotated[Path | None, typer.Option(help="File for the proof.")] = None,
    key: Key = "",
) -> Answer:
    """Download the proof that one event is in the log, and check it."""
    document = Client.signed_in().get(f"audit/events/{event}/proof")
    return _proved(document, _check(document, key), out)


@app.command()
@json_option
def consistent(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint that you saved.")],
    out: Annotated[Path | None, typer.Option(help="File for the proof.")] = None,
    key: Key = "",
) -> Answer:
    """Download the proof that the log only grew since a checkpoint, and check it."""
    from governance.audit.checkpoint import BadCheckpoint, parse

    note = _read(checkpoint)
    try:
        size = parse(note).size
    except BadCheckpoint as error:
        raise CliError(
            f"{checkpoint} is not a checkpoint: {error}",
            "GET /api/v1/audit/checkpoint returns one; keep it on another machine.",
        ) from error
    document = Client.signed_in().get("audit/consistency", old=size)
    return _proved(document, _check(document, key, note), out)


@app.command()
@json_option
def check(
    file: Annotated[Path, typer.Argument(help="Proof that you saved.")], key: Key = ""
) -> Answer:
    """Check a proof offline; exit with 1 if it is not valid."""
    try:
        document = json.loads(_read(file))
    except (ValueError, RecursionError) as error:
        raise CliError(f"{file} is not a proof: it is not JSON.") from error
    sentence = _check(document, key)
    return Answer({"ok": True, "message": sentence}, lambda: _show_valid(sentence))


def _check(document: Any, key: str, note: str = "") -> str:
    """Return the statement that a proof supports.

    Raises:
        CliError: the proof is not valid.
    """
    from governance.audit.checkpoint import BadCheckpoint
    from governance.audit.tree.proof_files import BadProof, check_proof

    own_keys = document.get("public_keys") if isinstance(document, dict) else None
    if not key and isinstance(own_keys, str):
        key = own_keys
        warn_of_own_key("proof")
    try:
        return check_proof(document, public_keys=key, earlier_note=note)
    except (BadProof, BadCheckpoint) as error:
        raise CliError(f"The proof is not valid. {error}") from error


def _proved(document: Any, sentence: str, out: Path | None) -> Answer:
    """Write a checked proof to a file if requested, and return it."""
    if out is not None:
        try:
            out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise CliError(f"{out} cannot be written: {error.strerror}.") from error

    def show() -> None:
        _show_valid(sentence)
        if out is not None:
            console.print(f"The proof is in {out}.", markup=False)

    return Answer(document, show)


def _show_valid(sentence: str) -> None:
    console.print(Text.assemble(("✓ ", "green"), sentence))


def _quorum(witnesses: list[str], needed: int | None) -> Quorum | None:
    if not witnesses and needed is None:
        return None
    from governance.audit.checkpoint import BadCheckpoint
    from governance.audit.cosignature import Quorum

    try:
        return Quorum.of(witnesses, needed)
    except BadCheckpoint as error:
        raise CliError(str(error), "--witness takes a key of the form name+hash+base64.") from error


def _verify(
    file: Path, key: str, notes: list[str], tiles: Path | None, quorum: Quorum | None
) -> VerificationReport:
    try:
        if not key:
            key = key_in(file)
            if not key:
                raise CliError(
                    f"{file} is not an export of the audit log.",
                    "Create one with `assay audit export FILE` or GET /api/v1/audit/export.",
                )
            warn_of_own_key("export")
        return check_file(file, key, notes, tiles, quorum)
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}.") from error


def _report(report: VerificationReport) -> Answer:
    fault = None
    if not report.ok:
        fault = CliError(
            f"The log does not verify. {report.message}",
            f"The {report.events} events before it are unchanged.",
        )

    def show() -> None:
        if report.ok:
            _show_valid(report.message)
            console.print(f"root {report.root}", style="dim", soft_wrap=True)

    return Answer(asdict(report), show, fault)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{path} cannot be read: {error}.") from error
