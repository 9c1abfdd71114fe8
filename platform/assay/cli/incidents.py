"""`assay incidents list`, `assay incidents show`, and `assay incidents open`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.models import Limit
from assay.cli.output import console, facts, state, table

app = typer.Typer(no_args_is_help=True, help="Incidents, and what they suspend.")


@app.command("list")
def list_incidents(
    incident_state: Annotated[
        str | None, typer.Option("--state", help="Only incidents in it.")
    ] = None,
    limit: Limit = 25,
) -> None:
    """The newest incidents."""
    filters = {"state": incident_state} if incident_state else {}
    rows = Client.signed_in().all("incidents", limit=limit, **filters)
    table(
        ("id", "title", "severity", "state", "suspends", "about", "opened"),
        (
            (
                each["id"],
                each["title"],
                state(each["severity"]),
                state(each["state"]),
                "yes" if each["suspends"] else "no",
                each["versions"],
                each["opened_at"],
            )
            for each in rows
        ),
        empty="There are no such incidents that you may see.",
    )


@app.command()
def show(incident_id: Annotated[int, typer.Argument(help="The incident's number.", min=1)]) -> None:
    """One incident: what happened, what it reaches, its timeline."""
    _show(Client.signed_in().get(f"incidents/{incident_id}"))


@app.command("open")
def open_incident(
    title: Annotated[str, typer.Argument(help="What it is, in a few words; name no people.")],
    version: Annotated[
        list[int], typer.Option(help="The number of a version that it is about; again for more.")
    ],
    happened: Annotated[str, typer.Option(help="What was seen, when, and whom it concerns.")],
    severity: Annotated[
        str, typer.Option(help="low, medium, high or critical; the last two suspend at once.")
    ] = "medium",
    serious: Annotated[
        str, typer.Option(help="Art. 73 of the EU AI Act: general, widespread or death.")
    ] = "",
) -> None:
    """Report an incident; a high or critical one suspends at once what it is about."""
    found = Client.signed_in().post(
        "incidents",
        title=title,
        versions=version,
        happened=happened,
        severity=severity,
        serious=serious,
    )
    _show(found)


def _show(found: dict[str, Any]) -> None:
    facts(
        [
            ("incident", found["id"]),
            ("title", found["title"]),
            ("happened", found["happened"]),
            ("severity", state(found["severity"])),
            ("state", state(found["state"])),
            ("suspends", "yes" if found["suspends"] else "no"),
            ("reported by", found["reporter"]["name"]),
            *([("report to the authority by", found["report_by"])] if found["report_by"] else []),
        ]
    )
    console.print()
    table(
        ("version reached", "state", "department"),
        ((e["name"], state(e["state"]), e["department"]) for e in found["versions_reached"]),
        empty="It reaches no version that you may see.",
    )
    console.print()
    table(
        ("release", "state", "version", "as"),
        (
            (e["id"], state(e["state"]), e["version"]["name"], e["deployment_name"])
            for e in found["releases_reached"]
        ),
        empty="No approved or suspended release that you may see.",
    )
    console.print()
    table(
        ("when", "who", "what", "said"),
        (
            (e["created_at"], e["person"]["name"], e["detail"] or e["kind"], e["text"])
            for e in found["notes"]
        ),
        empty="No notes yet.",
    )
