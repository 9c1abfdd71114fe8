"""`assay releases list`, `assay releases show`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.models import Limit
from assay.cli.output import console, facts, state, table

app = typer.Typer(no_args_is_help=True, help="Requests to run a version, and their reviews.")


@app.command("list")
def list_releases(
    release_state: Annotated[
        str | None, typer.Option("--state", help="Only releases in it.")
    ] = None,
    limit: Limit = 25,
) -> None:
    """The newest releases."""
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
        empty="There are no such releases that you may see.",
    )


@app.command()
def show(release_id: Annotated[int, typer.Argument(help="The release's number.", min=1)]) -> None:
    """One release: what it asks for, its checklist, its decisions."""
    release = Client.signed_in().get(f"releases/{release_id}")
    facts(
        [
            ("release", release["id"]),
            ("state", state(release["state"])),
            ("version", release["version"]["name"]),
            ("digest", release["version"]["digest"]),
            ("deployment", f"{release['deployment_name']} ({release['environment']})"),
            ("departments", release["departments"]),
            ("purpose", release["purpose"]),
            ("risk tier", release["tier"]),
            ("dossier", release["dossier_digest"]),
            ("submitted by", release["submitted_by"]["name"]),
            ("expires", release["expires_at"]),
        ]
    )
    if release["review"] is not None:
        _show_review(release["review"])


def _show_review(review: dict[str, Any]) -> None:
    console.print()
    table(
        ("checklist", "state", "note"),
        (
            (item["title"], state(item["state"]), item["note"] or item["why"])
            for item in review["checklist"]
        ),
        empty="Nothing is on the checklist.",
    )
    console.print()
    table(
        ("decision", "by", "for", "round", "reason"),
        (
            (
                decision["verdict"].replace("_", " "),
                decision["person"]["name"],
                decision["speciality"],
                decision["round"],
                decision["reason"],
            )
            for decision in review["decisions"]
        ),
        empty="Nobody has decided yet.",
    )
    missing = [f"{count} × {name}" for name, count in review["standing"]["missing"].items()]
    facts([("approvals missing", missing)])
