"""`assay releases`: list, show and renew releases; dossiers and evidence packs as files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from assay.cli.audit import Key, warn_of_own_key
from assay.cli.client import Client
from assay.cli.options import Limit
from assay.cli.output import CliError, console, errors, facts, state, table
from registry.releases.evidence_verifier import Fault, check, load

# Equals FORMATS of `registry.releases.exports.services`, which loads Django; a test compares them.
SUFFIXES = {
    "pdf": "pdf",
    "html": "html",
    "json": "json",
    "cyclonedx": "cdx.json",
    "spdx": "spdx.json",
}

app = typer.Typer(
    no_args_is_help=True, help="Releases: requests to run a version, and their reviews."
)


@app.command("list")
def list_releases(
    release_state: Annotated[str | None, typer.Option("--state", help="Filter by state.")] = None,
    limit: Limit = 25,
) -> None:
    """List the newest releases."""
    client = Client.signed_in()
    filters = {"state": release_state} if release_state else {}
    table(
        ("id", "deployment", "version", "environment", "state", "department", "expires"),
        (
            (
                release["id"],
                release["deployment_name"],
                release["version"]["name"],
                release["environment"],
                state(release["state"]),
                release["department"],
                release["expires_at"],
            )
            for release in client.all("releases", limit=limit, **filters)
        ),
        empty="No matching releases that you may see.",
    )


@app.command()
def show(release_id: Annotated[int, typer.Argument(help="The release's number.", min=1)]) -> None:
    """Show a release: its terms, checklist and decisions."""
    release = Client.signed_in().get(f"releases/{release_id}")
    facts(
        [
            ("release", release["id"]),
            ("state", state(release["state"])),
            *(
                [("reason for voiding", release["voided_because"])]
                if release["voided_because"]
                else []
            ),
            ("version", release["version"]["name"]),
            ("digest", release["version"]["digest"]),
            ("deployment", f"{release['deployment_name']} ({release['environment']})"),
            ("departments", release["departments"]),
            ("purpose", release["purpose"]),
            ("risk tier", release["tier"]),
            ("engine", f"{release['engine']} ({release['precision']})"),
            ("code of the task", _code_in_words(release["code"])),
            ("dossier", release["dossier_digest"]),
            ("submitted by", release["submitted_by"]["name"]),
            ("expires", release["expires_at"]),
            ("serves until", release["serves_until"]),
            ("conditions", release["conditions"]["words"]),
            *([("renews", f"release {release['renews']}")] if release["renews"] else []),
        ]
    )
    if release["code"]["difference"]:
        console.print(f"The release does not serve: {release['code']['difference']}.", markup=False)
    if release["upgrades"]:
        table(
            ("software", "answers", "state", "checked", "worker"),
            (
                (
                    ", ".join(" ".join(pair) for pair in sorted(each["versions"].items())),
                    each["outcome"],
                    state(each["standing"]),
                    each["checked_at"],
                    each["worker"],
                )
                for each in release["upgrades"]
            ),
            empty="",
        )
    if release["review"] is not None:
        _show_review(release["review"])


def _code_in_words(code: dict[str, Any]) -> str:
    packages = ", ".join(f"{each['name']} {each['version']}" for each in code["packages"])
    return f"{packages or 'Assay itself'} ({code['digest'][:12]})"


@app.command()
def renew(
    release_id: Annotated[int, typer.Argument(help="The release's number.", min=1)],
    yes: Annotated[bool, typer.Option("--yes", help="Submit the release again.")] = False,
) -> None:
    """Show what a renewal of a release would carry over; with --yes, submit it."""
    client = Client.signed_in()
    renewal = client.get(f"releases/{release_id}/renewal")
    if renewal["obstacle"]:
        raise CliError(renewal["obstacle"], renewal["hint"])
    if yes:
        successor = client.post(f"releases/{release_id}/renewal")
        console.print(f"Release {successor['id']} renews release {release_id}; it is in review.")
        return
    table(
        ("carried over", "attested by", "on"),
        (
            (item["title"], item["attested_by"]["name"], item["attested_at"])
            for item in renewal["carried"]
        ),
        empty="Nothing would be carried over.",
    )
    facts(
        [
            ("to attest again", renewal["anew"]),
            (
                "changed since",
                [change["section"].replace("_", " ") for change in renewal["changes"]],
            ),
        ]
    )
    errors.print("Nothing was submitted. To submit, add --yes.", style="dim")


@app.command()
def evidence(
    release_id: Annotated[int, typer.Argument(help="The release's number.", min=1)],
    file: Annotated[Path, typer.Argument(help="File for the pack, a .zip.")],
    key: Key = "",
) -> None:
    """Download the signed evidence pack of a release, and verify it."""
    if not file.parent.is_dir():
        raise CliError(f"{file.parent} is not a folder.", "Create it first.")
    Client.signed_in().download(f"releases/{release_id}/evidence", file)
    console.print(f"The pack is in {file} ({file.stat().st_size:,} bytes).", markup=False)
    _show_checks(file, key)


@app.command("export")
def export_dossier(
    release_id: Annotated[int, typer.Argument(help="The release's number.", min=1)],
    file_format: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(SUFFIXES)}.")
    ] = "pdf",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File for the dossier; in this folder by default."),
    ] = None,
) -> None:
    """Download the frozen dossier of a release as a file."""
    if file_format not in SUFFIXES:
        raise CliError(f"Unknown format {file_format}.", f"Choose one of {', '.join(SUFFIXES)}.")
    file = out or Path(f"release-{release_id}.{SUFFIXES[file_format]}")
    if not file.parent.is_dir():
        raise CliError(f"{file.parent} is not a folder.", "Create it first.")
    Client.signed_in().download(f"releases/{release_id}/export/{file_format}", file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    console.print(
        f"The dossier is in {file} ({file.stat().st_size:,} bytes), SHA-256 {digest}"
        + (", which the approvals name." if file_format == "json" else "."),
        markup=False,
        soft_wrap=True,
    )


@app.command("check-evidence")
def check_evidence(
    pack: Annotated[
        Path, typer.Argument(help="Evidence pack, or the folder of an unpacked one.", exists=True)
    ],
    key: Key = "",
    witness: Annotated[
        list[str] | None,
        typer.Option(help="Key of a witness that must have cosigned the log. Repeatable."),
    ] = None,
) -> None:
    """Verify an evidence pack offline; exit with 1 if a check fails."""
    _show_checks(pack, key, tuple(witness or ()))


def _show_checks(pack: Path, key: str, witnesses: tuple[str, ...] = ()) -> None:
    try:
        rows = check(load(str(pack)), key, witnesses)
    except (Fault, OSError) as error:
        raise CliError(f"{pack} cannot be read: {error}.") from error
    for holds, title, detail in rows:
        console.print(f"{'[green]✓[/]' if holds else '[red]✗[/]'} {title}: {escape(detail)}")
    if not key:
        warn_of_own_key("evidence pack")
    if not all(holds for holds, _, _ in rows):
        raise CliError("The evidence pack is not valid.", "Do not rely on it.")


def waived(item: dict[str, Any]) -> str:
    """Return an item's waiver in words: its end, its decider and the reason; else an empty text."""
    for waiver in item["waivers"]:
        if item["state"] == "waived" and waiver["state"] in ("granted", "revoked", "expired"):
            ended = "" if waiver["state"] == "granted" else f", {waiver['state']}"
            until, by = waiver["expires_at"][:10], waiver["decided_by"]["name"]
            return f"until {until} by {by}{ended}: {waiver['reason']}"
    return ""


def _show_review(review: dict[str, Any]) -> None:
    console.print()
    table(
        ("checklist", "state", "note"),
        (
            (item["title"], state(item["state"]), waived(item) or item["note"] or item["why"])
            for item in review["checklist"]
        ),
        empty="The checklist is empty.",
    )
    console.print()
    table(
        ("decision", "by", "for", "round", "reason"),
        (
            (
                decision["verdict"].replace("_", " "),
                decision["person"]["name"],
                decision["specialty"],
                decision["round"],
                "; ".join([decision["reason"], *decision["conditions"]["words"]]),
            )
            for decision in review["decisions"]
        ),
        empty="No decisions yet.",
    )
    missing = [f"{count} × {name}" for name, count in review["standing"]["missing"].items()]
    facts([("approvals missing", missing)])
