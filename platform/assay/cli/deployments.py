"""`assay deployments`: replicas, and rollback to an earlier release."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.client import Client
from assay.cli.output import CliError, console, state, table

app = typer.Typer(no_args_is_help=True, help="Deployments: replicas and rollback.")


@app.callback()
def deployments() -> None:
    """Deployments: replicas and rollback."""


@app.command()
def replicas(
    deployment_id: Annotated[int, typer.Argument(help="The deployment's number.", min=1)],
    least: Annotated[
        int | None, typer.Option("--min", help="Minimum; 0 unloads an unused deployment.", min=0)
    ] = None,
    most: Annotated[int | None, typer.Option("--max", help="Maximum.", min=1)] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Label that its workers must have, or empty for none. Repeatable."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device of its workers: cpu or cuda, or empty for any.")
    ] = None,
) -> None:
    """Show the replicas of a deployment, or change their number and workers."""
    client = Client.signed_in()
    deployment = client.get(f"deployments/{deployment_id}")
    if any(value is not None for value in (least, most, label, device)):
        deployment = client.post(
            f"deployments/{deployment_id}/replicas",
            replicas_min=deployment["replicas_min"] if least is None else least,
            replicas_max=deployment["replicas_max"] if most is None else most,
            labels=deployment["labels"] if label is None else [each for each in label if each],
            device=deployment["device"] if device is None else device,
        )
    bounds = f"{deployment['replicas_min']} to {deployment['replicas_max']}"
    console.print(
        f"{deployment['name']}: {deployment['replicas_wanted']} requested, {bounds}.", markup=False
    )
    if deployment["message"]:
        console.print(deployment["message"], markup=False)
    states = {each["worker"]: each["state"] for each in deployment["replicas"]}
    table(
        ("worker", "state", "since", "reason"),
        (
            (
                place["worker"],
                state(states.get(place["worker"], "assigned")),
                place["since"],
                place["reason"],
            )
            for place in deployment["placements"]
        ),
        empty="Assigned to no worker.",
    )


@app.command()
def rollback(
    deployment_id: Annotated[int, typer.Argument(help="The deployment's number.", min=1)],
    to: Annotated[
        int | None,
        typer.Option(help="Number of the release to roll back to; omit it to list the choices."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Reason, for the audit log.")] = "",
) -> None:
    """Roll back to an approved release that served under the same name before."""
    client = Client.signed_in()
    if to is not None:
        if not reason:
            raise CliError("A rollback needs a reason; nothing was rolled back.", "Add --reason.")
        new = client.post(f"deployments/{deployment_id}/rollback", release=to, reason=reason)
        console.print(
            f"{new['name']} rolls back to {new['version']['name']} as deployment {new['id']}.",
            markup=False,
        )
        return
    table(
        ("release", "version", "state", "served from", "expires", "may serve again"),
        (
            (
                choice["release"],
                choice["version"]["name"],
                state(choice["state"]),
                choice["served_from"],
                choice["expires_at"],
                choice["obstacle"] or "yes",
            )
            for choice in client.get(f"deployments/{deployment_id}/rollback")
        ),
        empty="No other release served under this name.",
    )
