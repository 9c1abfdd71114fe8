"""`assay releases evidence`, `export` and `check-evidence`: dossiers and packs as files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from assay.cli.client import Client
from assay.cli.options import Key, warn_of_own_key
from assay.cli.output import Answer, CliError, console, json_option, sentence

# Equals FORMATS of `registry.releases.exports.services`, which loads Django; a test compares them.
SUFFIXES = {
    "pdf": "pdf",
    "html": "html",
    "json": "json",
    "cyclonedx": "cdx.json",
    "spdx": "spdx.json",
}
ReleaseId = Annotated[int, typer.Argument(help="The release's ID.", min=1)]


@json_option
def evidence(
    release_id: ReleaseId,
    file: Annotated[Path, typer.Argument(help="File for the pack, a .zip.")],
    key: Key = "",
) -> Answer:
    """Download the signed evidence pack of a release, and verify it."""
    if not file.parent.is_dir():
        raise CliError(f"{file.parent} is not a folder.", "Create it first.")
    Client.signed_in().download(f"releases/{release_id}/evidence", file)
    checked = _checked(file, key)
    size = file.stat().st_size

    def show() -> None:
        console.print(f"The pack is in {file} ({size:,} bytes).", markup=False)
        checked.show()

    return Answer({"file": str(file), "size": size, "checks": checked.data}, show, checked.fault)


@json_option
def export_dossier(
    release_id: ReleaseId,
    file_format: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(SUFFIXES)}.")
    ] = "pdf",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File for the dossier; in this folder by default."),
    ] = None,
) -> Answer:
    """Download the frozen dossier of a release as a file."""
    if file_format not in SUFFIXES:
        raise CliError(f"Unknown format {file_format}.", f"Choose one of {', '.join(SUFFIXES)}.")
    file = out or Path(f"release-{release_id}.{SUFFIXES[file_format]}")
    if not file.parent.is_dir():
        raise CliError(f"{file.parent} is not a folder.", "Create it first.")
    Client.signed_in().download(f"releases/{release_id}/export/{file_format}", file)
    digest, size = hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size
    return sentence(
        {"file": str(file), "size": size, "sha256": digest},
        f"The dossier is in {file} ({size:,} bytes), SHA-256 {digest}"
        + (", which the approvals name." if file_format == "json" else "."),
    )


@json_option
def check_evidence(
    pack: Annotated[
        Path, typer.Argument(help="Evidence pack, or the folder of an unpacked one.", exists=True)
    ],
    key: Key = "",
    witness: Annotated[
        list[str] | None,
        typer.Option(help="Key of a witness that must have cosigned the log. Repeatable."),
    ] = None,
) -> Answer:
    """Verify an evidence pack offline; exit with 1 if a check fails."""
    return _checked(pack, key, tuple(witness or ()))


def _checked(pack: Path, key: str, witnesses: tuple[str, ...] = ()) -> Answer:
    # Imported when it is used: the verifier takes longer than `--help`.
    from registry.releases.evidence_verifier import Fault, check, load

    try:
        rows = check(load(str(pack)), key, witnesses)
    except (Fault, OSError) as error:
        raise CliError(f"{pack} cannot be read: {error}.") from error
    if not key:
        warn_of_own_key("evidence pack")

    def show() -> None:
        for holds, title, detail in rows:
            mark = ("✓", "green") if holds else ("✗", "red")
            console.print(Text.assemble(mark, f" {title}: {detail}"))

    fault = None
    if not all(holds for holds, _, _ in rows):
        fault = CliError("The evidence pack is not valid.", "Do not rely on it.")
    data = [{"holds": holds, "title": title, "detail": detail} for holds, title, detail in rows]
    return Answer(data, show, fault)
