"""`assay versions`: readiness, recall, prompts and exports."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.exports import export
from assay.cli.output import CliError, console, errors, facts, state, table

# Above the server's limit, so that the server can name the field that is too long.
PROMPT_BYTES = 1024 * 1024

app = typer.Typer(
    no_args_is_help=True, help="Versions of models: readiness, recall, prompts and exports."
)


@app.callback()
def versions() -> None:
    """Versions of models: readiness, recall, prompts and exports."""


app.command()(export)


@app.command()
def recall(
    version_id: Annotated[int, typer.Argument(help="The version's number.", min=1)],
    reason: Annotated[
        str, typer.Option(help="Reason; do not name people. Omit it to only show the list.")
    ] = "",
    confirm: Annotated[
        str, typer.Option(help="Digest of the list that you saw; skips the prompt.")
    ] = "",
) -> None:
    """Permanently recall a version and its descendants, after showing what this ends."""
    client = Client.signed_in()
    radius = client.get(f"versions/{version_id}/recall")
    _show(radius)
    if not reason:
        return
    name = radius["version"]["name"]
    confirm = confirm or _confirmed(name, radius["digest"])
    done = client.post(f"versions/{version_id}/recall", reason=reason, confirm=confirm)
    console.print(
        f"{name} is recalled; this ended {done['versions']} versions, {done['releases']} releases "
        f"and {done['reviews']} open reviews.",
        markup=False,
    )


@app.command()
def readiness(
    version_id: Annotated[int, typer.Argument(help="The version's number.", min=1)],
    tier: Annotated[
        str, typer.Option(help="Risk tier; by default the lowest that the training data allows.")
    ] = "",
) -> None:
    """Show the requirements for a release of a version, and which are missing."""
    query = {"tier": tier} if tier else {}
    report = Client.signed_in().get(f"versions/{version_id}/readiness", **query)
    rows = sorted(report["requirements"], key=lambda each: each["state"] != "missing")
    table(
        ("state", "requirement", "blocks", "note"),
        ((state(each["state"]), each["title"], each["blocks"], each["note"]) for each in rows),
        empty="",
    )
    console.print()
    missing = sum(each["state"] == "missing" for each in rows)
    facts(
        [
            ("tier", report["tier"]),
            ("missing", missing),
            ("judged by reviewers", len(report["attested"])),
        ]
    )


@app.command()
def prompt(
    model: Annotated[str, typer.Argument(help="Model for the new version.")],
    file: Annotated[
        Path, typer.Argument(help="Prompt as JSON: system, template, …", dir_okay=False)
    ],
    base: Annotated[int, typer.Option(help="Number of the base version.", min=1)],
    note: Annotated[str, typer.Option(help="Changes, for the model card.")] = "",
) -> None:
    """Create a prompt version from a file; a job registers it within seconds."""
    try:
        with file.open("rb") as opened:
            document = json.loads(opened.read(PROMPT_BYTES))
    except (OSError, ValueError) as error:
        raise CliError(f"{file} cannot be read as JSON: {error}") from error
    job = Client.signed_in().post(
        "prompt-versions", model=model, base_version=base, document=document, note=note
    )
    facts([("job", job["id"]), ("state", job["state"])])


def _confirmed(name: str, digest: str) -> str:
    """Return the digest after the user at the terminal has typed the version's name."""
    if not sys.stdin.isatty():
        raise CliError(
            "The recall needs a confirmation at a terminal; nothing was recalled.",
            f"Read the list, then add --confirm {digest}.",
        )
    errors.print("This cannot be undone. Type the name of the version to recall it.")
    if typer.prompt(name, default="", show_default=False).strip() != name:
        raise CliError("The name does not match; nothing was recalled.")
    return digest


def _show(radius: dict[str, Any]) -> None:
    table(
        ("version", "state", "kind", "department", "digest"),
        (
            (
                each["name"],
                state(each["state"]),
                each["kind"],
                each["department"],
                each["digest"][:12],
            )
            for each in radius["versions"]
        ),
        empty="",
    )
    console.print()
    table(
        ("release", "state", "version", "as", "for"),
        (
            (
                each["id"],
                state(each["state"]),
                each["version"]["name"],
                each["deployment_name"],
                each["departments"],
            )
            for each in radius["releases"]
        ),
        empty="No releases.",
    )
    console.print()
    table(
        ("live deployment", "state", "release", "department"),
        (
            (each["name"], state(each["state"]), each["release"], each["department"])
            for each in radius["deployments"]
        ),
        empty="No live deployments.",
    )
    console.print()
    table(
        ("used by", "requests in 30 days", "tokens", "last request"),
        (
            (each["department"], each["requests"], each["tokens"], each["last_at"])
            for each in radius["traffic"]
        ),
        empty="No requests in the last 30 days.",
    )
    console.print()
    facts(
        [
            (
                "total",
                f"{radius['versions_total']} versions, {radius['releases_total']} releases, "
                f"{radius['deployments_total']} deployments",
            ),
            ("digest of the list", radius["digest"]),
        ]
    )
