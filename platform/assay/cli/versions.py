"""`assay versions`: readiness, recall (which shows the list first), new prompts, and exports."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.exports import export
from assay.cli.output import CliError, console, errors, facts, state, table

# More than the server takes, which says what is too long.
PROMPT_BYTES = 1024 * 1024

app = typer.Typer(no_args_is_help=True, help="Versions of models.")


@app.callback()
def versions() -> None:
    """Versions of models."""


app.command()(export)


@app.command()
def recall(
    version_id: Annotated[int, typer.Argument(help="The version's number.", min=1)],
    reason: Annotated[
        str, typer.Option(help="Why. Without it, only the list is shown; name no people.")
    ] = "",
    confirm: Annotated[
        str, typer.Option(help="Digest of the list that was shown; skips the question.")
    ] = "",
) -> None:
    """Recall a version and everything below it, for good; shows first what that is."""
    client = Client.signed_in()
    found = client.get(f"versions/{version_id}/recall")
    _show(found)
    if not reason:
        return
    name = found["version"]["name"]
    confirm = confirm or _confirmed(name, found["digest"])
    done = client.post(f"versions/{version_id}/recall", reason=reason, confirm=confirm)
    console.print(
        f"{name} is recalled: {done['versions']} versions, {done['releases']} releases and "
        f"{done['reviews']} open reviews are at an end.",
        markup=False,
    )


@app.command()
def readiness(
    version_id: Annotated[int, typer.Argument(help="The version's number.", min=1)],
    tier: Annotated[
        str, typer.Option(help="Risk tier. Default: the lowest that its training data allows.")
    ] = "",
) -> None:
    """Show what a release of a version needs, and what is missing now."""
    asked = {"tier": tier} if tier else {}
    found = Client.signed_in().get(f"versions/{version_id}/readiness", **asked)
    rows = sorted(found["requirements"], key=lambda each: each["state"] != "missing")
    table(
        ("state", "requirement", "blocks", "note"),
        ((state(each["state"]), each["title"], each["blocks"], each["note"]) for each in rows),
        empty="",
    )
    console.print()
    missing = sum(each["state"] == "missing" for each in rows)
    facts(
        [("tier", found["tier"]), ("missing", missing), ("reviewers judge", len(found["attested"]))]
    )


@app.command()
def prompt(
    model: Annotated[str, typer.Argument(help="The model that gets the next version.")],
    file: Annotated[
        Path, typer.Argument(help="The prompt as JSON: system, template, …", dir_okay=False)
    ],
    base: Annotated[int, typer.Option(help="The number of the base version.", min=1)],
    note: Annotated[str, typer.Option(help="What is new, for the model card.")] = "",
) -> None:
    """Create a prompt version from a file; its job registers it within seconds."""
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
            f"Read the list, then give --confirm {digest}.",
        )
    errors.print("There is no way back. Type the name of the version to recall it.")
    if typer.prompt(name, default="", show_default=False).strip() != name:
        raise CliError("The name does not match; nothing was recalled.")
    return digest


def _show(found: dict[str, Any]) -> None:
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
            for each in found["versions"]
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
            for each in found["releases"]
        ),
        empty="No releases.",
    )
    console.print()
    table(
        ("serves now", "state", "release", "department"),
        (
            (each["name"], state(each["state"]), each["release"], each["department"])
            for each in found["deployments"]
        ),
        empty="None of them serves now.",
    )
    console.print()
    table(
        ("used by", "requests in 30 days", "tokens", "last"),
        (
            (each["department"], each["requests"], each["tokens"], each["last_at"])
            for each in found["traffic"]
        ),
        empty="No requests in the last 30 days.",
    )
    console.print()
    facts(
        [
            (
                "in all",
                f"{found['versions_total']} versions, {found['releases_total']} releases, "
                f"{found['deployments_total']} deployments",
            ),
            ("digest of the list", found["digest"]),
        ]
    )
