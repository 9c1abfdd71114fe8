"""`assay intakes`: uploaded model files and hosted models, their checks and their sign-off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.following import follow_job
from assay.cli.options import Follow, Limit, Reason, json_document
from assay.cli.output import Answer, console, facts, json_option, listing, sentence, state, table

app = typer.Typer(no_args_is_help=True)
IntakeId = Annotated[int, typer.Argument(help="The intake's ID.", min=1)]


@app.command("list")
@json_option
def list_intakes(
    intake_state: Annotated[
        str, typer.Option("--state", help="Filter by state, such as awaiting_sign_off.")
    ] = "",
    model: Annotated[str, typer.Option(help="Filter by model.")] = "",
    limit: Limit = 25,
) -> Answer:
    """List the newest intakes."""
    return listing(
        Client.signed_in().all("intakes", limit=limit, state=intake_state, model=model),
        {
            "id": "id",
            "model": "model",
            "state": "state",
            "source": "source",
            "version ID": "version",
            "by": lambda intake: intake["submitted_by"]["name"],
            "created": "created_at",
        },
        empty="No matching intakes that you may see. `assay upload model` starts one.",
    )


@app.command()
@json_option
def show(intake_id: IntakeId) -> Answer:
    """Show an intake with the findings of its checks."""
    intake = Client.signed_in().get(f"intakes/{intake_id}")
    return Answer(intake, lambda: show_intake(intake))


@app.command()
@json_option
def hosted(
    model: Annotated[str, typer.Argument(help="Model for the new version.")],
    file: Annotated[
        Path, typer.Argument(help="Description as JSON: provider, base_url, …", dir_okay=False)
    ],
    follow: Follow = False,
) -> Answer:
    """Connect a hosted model by its description; a second person signs it off."""
    client = Client.signed_in()
    intake = client.post("hosted-models", model=model, description=json_document(file))
    if follow and intake["job"]:
        follow_job(client, intake["job"])
        intake = client.get(f"intakes/{intake['id']}")
    return Answer(intake, lambda: show_intake(intake))


@app.command("sign-off")
@json_option
def sign_off(
    intake_id: IntakeId,
    accept: Annotated[bool, typer.Option("--accept/--reject", help="The decision.")],
    reason: Reason,
) -> Answer:
    """Accept or reject files that another person delivered, after reading the findings."""
    intake = Client.signed_in().post(f"intakes/{intake_id}/sign-off", accept=accept, reason=reason)
    version = f", version {intake['version']}" if intake["version"] else ""
    return sentence(
        intake, f"Intake {intake_id} of {intake['model']} is {intake['state']}{version}."
    )


def show_intake(intake: dict[str, Any]) -> None:
    """Print an intake."""
    pairs: list[tuple[str, Any]] = [
        ("intake", intake["id"]),
        ("model", intake["model"]),
        ("state", state(intake["state"])),
        ("reason", intake["reason"]),
        ("source", intake["source"]),
        ("license", intake["license"]),
        ("digest", intake["digest"]),
        ("job", intake["job"]),
        ("version", intake["version"]),
        ("submitted by", intake["submitted_by"]["name"]),
        ("signed by", (intake["signed_by"] or {}).get("name")),
    ]
    facts(pairs)
    console.print()
    table(
        ("check", "result", "detail"),
        (
            (
                each["check"],
                state("succeeded" if each["passed"] else "failed"),
                each["detail"],
            )
            for each in intake["findings"]
        ),
        empty="No findings yet.",
    )
