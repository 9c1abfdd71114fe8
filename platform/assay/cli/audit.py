"""`assay audit`: the log taken along, and checked: the whole, one event, or that it only grew."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from assay.cli.audit_exports import check_file, export, key_in
from assay.cli.client import Client
from assay.cli.output import CliError, console, errors
from governance.audit.checkpoint import BadCheckpoint, parse
from governance.audit.cosignature import Quorum
from governance.audit.tree.proof_files import BadProof, check_proof
from governance.audit.verify import VerificationReport

Key = Annotated[
    str,
    typer.Option(
        envvar="ASSAY_AUDIT_KEY",
        help="The log's public key, or keys with commas between, known from elsewhere.",
    ),
]

app = typer.Typer(no_args_is_help=True, help="The audit log: take it along, and check it.")


app.command()(export)


@app.command()
def verify(
    file: Annotated[
        Path | None, typer.Argument(help="An export; downloaded from the server if left out.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="A checkpoint kept elsewhere; shows truncation. May be repeated."),
    ] = None,
    tiles: Annotated[
        Path | None, typer.Option(help="A folder of published tiles; names a replaced row.")
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(help="A witness's key; a --checkpoint must be cosigned. May be repeated."),
    ] = None,
    quorum: Annotated[
        int | None, typer.Option(help="How many of the witnesses suffice; all if left out.")
    ] = None,
    key: Key = "",
) -> None:
    """Recompute every hash and signature of an export, offline; exits with 1 on the first fault.

    Of the whole log, of selected events, or of a zip with a table of them.
    """
    notes = [_read(path) for path in checkpoint or []]
    if tiles is not None and not tiles.is_dir():
        raise CliError(f"{tiles} is not a folder.", "Name the folder that the sealer publishes to.")
    cosigned = _quorum(witness or [], quorum)
    if file is not None:
        show(_verify(file, key, notes, tiles, cosigned))
        return
    with tempfile.TemporaryDirectory(prefix="assay-audit-") as folder:
        downloaded = Path(folder) / "export.jsonl"
        Client.signed_in().download("audit/export", downloaded)
        show(_verify(downloaded, key, notes, tiles, cosigned))


@app.command()
def proof(
    event: Annotated[int, typer.Argument(min=1, help="The event's id.")],
    out: Annotated[Path | None, typer.Option(help="Where to keep the proof.")] = None,
    key: Key = "",
) -> None:
    """Prove that one event is in the log, and check the proof here."""
    document = Client.signed_in().get(f"audit/events/{event}/proof")
    _say(document, key)
    _keep(document, out)


@app.command()
def consistent(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint that you kept.")],
    out: Annotated[Path | None, typer.Option(help="Where to keep the proof.")] = None,
    key: Key = "",
) -> None:
    """Prove that the log has only grown since a checkpoint that you kept."""
    kept = _read(checkpoint)
    try:
        size = parse(kept).size
    except BadCheckpoint as error:
        raise CliError(
            f"{checkpoint} is not a checkpoint: {error}",
            "GET /api/v1/audit/checkpoint gives one; keep it elsewhere.",
        ) from error
    document = Client.signed_in().get("audit/consistency", old=size)
    _say(document, key, kept)
    _keep(document, out)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A proof that was kept.")], key: Key = ""
) -> None:
    """Check a proof that was kept, offline; exits with 1 when it proves nothing."""
    try:
        document = json.loads(_read(file))
    except (ValueError, RecursionError) as error:
        raise CliError(f"{file} is not a proof: it is not JSON.") from error
    _say(document, key)


def _say(document: Any, key: str, kept: str = "") -> None:
    named = document.get("public_keys") if isinstance(document, dict) else None
    if not key and isinstance(named, str):
        key = named
        _say_whose_key("proof")
    try:
        said = check_proof(document, public_keys=key, kept=kept)
    except (BadProof, BadCheckpoint) as error:
        raise CliError(f"The proof is not valid. {error}") from error
    console.print(f"[green]✓[/] {escape(said)}")


def _say_whose_key(what: str) -> None:
    errors.print(
        f"Checked with the key that the {what} itself names; --key checks with one that you know "
        "from elsewhere.",
        style="dim",
    )


def _keep(document: Any, out: Path | None) -> None:
    if out is None:
        return
    try:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CliError(f"{out} cannot be written: {error.strerror}.") from error
    console.print(f"The proof is in {out}.", markup=False)


def _quorum(witnesses: list[str], needed: int | None) -> Quorum | None:
    if not witnesses and needed is None:
        return None
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
                    "`assay audit export FILE` or GET /api/v1/audit/export makes one.",
                )
            _say_whose_key("export")
        return check_file(file, key, notes, tiles, quorum)
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}.") from error


def show(report: VerificationReport) -> None:
    """Say how it went.

    Raises:
        CliError: it did not verify.
    """
    if not report.ok:
        raise CliError(
            f"The log does not verify. {report.message}",
            f"{report.events} events before it are as they were sealed.",
        )
    console.print(f"[green]✓[/] {report.message}")
    console.print(f"root {report.root}", style="dim", soft_wrap=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"The checkpoint {path} cannot be read: {error}.") from error
