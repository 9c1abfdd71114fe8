"""`assay versions`: show and compare versions, their readiness, recall, prompts and exports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.comparing import comparison_of
from assay.cli.exports import export
from assay.cli.options import VersionRef, json_document, version_id
from assay.cli.output import (
    Answer,
    CliError,
    console,
    errors,
    facts,
    json_option,
    listing,
    metrics_in_words,
    sentence,
    state,
    table,
)

app = typer.Typer(no_args_is_help=True)
_DESCRIBED = {None: "not compared yet", True: "no", False: "yes"}


app.command()(export)


@app.command()
@json_option
def show(version: VersionRef) -> Answer:
    """Show a version: its digest, origin, metrics and evaluations."""
    client = Client.signed_in()
    row = client.get(f"versions/{version_id(client, version)}")
    return Answer(row, lambda: _show_version(row))


@app.command()
@json_option
def compare(
    versions: Annotated[
        list[str],
        typer.Argument(
            help="2 to 8 versions: IDs, MODEL:NUMBER, or MODEL for its newest one.",
            metavar="VERSION...",
        ),
    ],
) -> Answer:
    """Compare the measurements, curves and settings of up to 8 versions."""
    client = Client.signed_in()
    return comparison_of(client, [version_id(client, each) for each in versions])


@app.command()
@json_option
def watch(
    version: VersionRef,
    dataset_version: Annotated[
        int | None,
        typer.Option(help="ID of a dataset version. Default: the smallest permitted one.", min=1),
    ] = None,
) -> Answer:
    """Evaluate a hosted version now and every day on up to 100 rows."""
    client = Client.signed_in()
    body = {} if dataset_version is None else {"dataset_version": dataset_version}
    row = client.post(f"versions/{version_id(client, version)}/watch", **body)
    return sentence(row, f"{row['name']} is scheduled; the first evaluation is queued.")


@app.command()
@json_option
def stated(version: VersionRef) -> Answer:
    """List the models and fingerprints that a provider's answers stated."""
    client = Client.signed_in()
    return listing(
        client.all(f"versions/{version_id(client, version)}/stated-models", limit=100),
        {
            "model": lambda row: row["model"] or "none",
            "fingerprint": lambda row: row["fingerprint"] or "none",
            "deployment": "deployment",
            "described": lambda row: _DESCRIBED[row["differs"]],
            "first": "first_at",
            "last": "seen_at",
        },
        empty="No answers yet.",
    )


@app.command()
@json_option
def recall(
    number: Annotated[int, typer.Argument(help="The version's ID.", metavar="ID", min=1)],
    reason: Annotated[
        str, typer.Option(help="Reason; do not name people. Omit it to only show the list.")
    ] = "",
    confirm: Annotated[
        str, typer.Option(help="Digest of the list that you saw; skips the prompt.")
    ] = "",
) -> Answer:
    """Permanently recall a version and its descendants, after showing what this ends."""
    client = Client.signed_in()
    radius = client.get(f"versions/{number}/recall")
    if not reason:
        return Answer(radius, lambda: _show(radius))
    if not confirm:
        _show(radius)
    name = radius["version"]["name"]
    confirm = confirm or _confirmed(name, radius["digest"])
    done = client.post(f"versions/{number}/recall", reason=reason, confirm=confirm)
    return sentence(
        done,
        f"{name} is recalled; this ended {done['versions']} versions, {done['releases']} releases "
        f"and {done['reviews']} open reviews.",
    )


@app.command()
@json_option
def readiness(
    version: VersionRef,
    tier: Annotated[
        str, typer.Option(help="Risk tier; by default the lowest that the training data allows.")
    ] = "",
) -> Answer:
    """Show the requirements for a release of a version, and which are missing."""
    client = Client.signed_in()
    report = client.get(f"versions/{version_id(client, version)}/readiness", tier=tier)
    return Answer(report, lambda: _show_readiness(report))


def _show_readiness(report: dict[str, Any]) -> None:
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
@json_option
def prompt(
    model: Annotated[str, typer.Argument(help="Model for the new version.")],
    file: Annotated[
        Path, typer.Argument(help="Prompt as JSON: system, template, …", dir_okay=False)
    ],
    base: Annotated[str, typer.Option(help="Base version: its ID, MODEL:NUMBER, or MODEL.")],
    note: Annotated[str, typer.Option(help="Changes, for the model card.")] = "",
) -> Answer:
    """Create a prompt version from a file; a job registers it within seconds."""
    document, client = json_document(file), Client.signed_in()
    job = client.post(
        "prompt-versions",
        model=model,
        base_version=version_id(client, base),
        document=document,
        note=note,
    )
    return Answer(job, lambda: facts([("job", job["id"]), ("state", job["state"])]))


def _show_version(version: dict[str, Any]) -> None:
    facts(
        [
            ("version", version["name"]),
            ("id", version["id"]),
            ("state", state(version["state"])),
            ("kind", version["kind"]),
            ("digest", version["digest"]),
            ("size", f"{version['size_bytes']:,} bytes"),
            ("license", version["license"]),
            ("base", version["base"] and version["base"]["name"]),
            ("trained on", version["dataset_version"] and version["dataset_version"]["name"]),
            ("job", version["job"]),
            ("created by", version["created_by"]["name"]),
            ("created", version["created_at"]),
        ]
    )
    console.print()
    table(
        ("evaluation", "dataset", "rows", "metrics", "created"),
        (
            (
                each["id"],
                each["dataset_version"]["name"],
                each["sample_size"],
                metrics_in_words(each["metrics"]),
                each["created_at"],
            )
            for each in version["evaluations"]
        ),
        empty="Not evaluated yet.",
    )


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
