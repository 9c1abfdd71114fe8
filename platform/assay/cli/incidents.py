"""`assay incidents`: list, show and report incidents."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.options import Limit
from assay.cli.output import Answer, console, facts, json_option, listing, state, table

app = typer.Typer(no_args_is_help=True)
# In place of a person, for incidents that Assay opens.
_ASSAY = {"name": "Assay"}


@app.command("list")
@json_option
def list_incidents(
    incident_state: Annotated[str | None, typer.Option("--state", help="Filter by state.")] = None,
    limit: Limit = 25,
) -> Answer:
    """List the newest incidents."""
    return listing(
        Client.signed_in().all("incidents", limit=limit, state=incident_state),
        {
            "id": "id",
            "title": "title",
            "severity": "severity",
            "state": "state",
            "suspends": "suspends",
            "about": "versions",
            "opened": "opened_at",
        },
        empty="No matching incidents that you may see.",
    )


@app.command()
@json_option
def show(incident_id: Annotated[int, typer.Argument(help="The incident's ID.", min=1)]) -> Answer:
    """Show an incident: its description, affected versions and releases, and timeline."""
    incident = Client.signed_in().get(f"incidents/{incident_id}")
    return Answer(incident, lambda: _show(incident))


@app.command("open")
@json_option
def open_incident(
    title: Annotated[str, typer.Argument(help="Title, in a few words; do not name people.")],
    version: Annotated[list[int], typer.Option(help="Number of an affected version. Repeatable.")],
    happened: Annotated[
        str, typer.Option(help="Description: what happened, when, and who is affected.")
    ],
    severity: Annotated[
        str, typer.Option(help="low, medium, high or critical; high and critical suspend at once.")
    ] = "medium",
    serious: Annotated[
        str,
        typer.Option(
            help="Type of a serious incident (EU AI Act, Art. 73): general, widespread or death."
        ),
    ] = "",
) -> Answer:
    """Report an incident. High and critical incidents suspend the affected releases at once."""
    incident = Client.signed_in().post(
        "incidents",
        title=title,
        versions=version,
        happened=happened,
        severity=severity,
        serious=serious,
    )
    return Answer(incident, lambda: _show(incident))


def _show(incident: dict[str, Any]) -> None:
    facts(
        [
            ("incident", incident["id"]),
            ("title", incident["title"]),
            ("happened", incident["happened"]),
            ("severity", state(incident["severity"])),
            ("state", state(incident["state"])),
            ("suspends", "yes" if incident["suspends"] else "no"),
            ("reported by", (incident["reporter"] or _ASSAY)["name"]),
            *(
                [("report to the authority by", incident["report_by"])]
                if incident["report_by"]
                else []
            ),
        ]
    )
    console.print()
    table(
        ("affected version", "state", "department"),
        ((e["name"], state(e["state"]), e["department"]) for e in incident["versions_reached"]),
        empty="No affected version that you may see.",
    )
    console.print()
    table(
        ("release", "state", "version", "as"),
        (
            (e["id"], state(e["state"]), e["version"]["name"], e["deployment_name"])
            for e in incident["releases_reached"]
        ),
        empty="No approved or suspended release that you may see.",
    )
    console.print()
    table(
        ("time", "person", "event", "text"),
        (
            (e["created_at"], (e["person"] or _ASSAY)["name"], e["detail"] or e["kind"], e["text"])
            for e in incident["notes"]
        ),
        empty="No notes yet.",
    )
