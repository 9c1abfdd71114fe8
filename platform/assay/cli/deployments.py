"""`assay deployments`: replicas, and going back to a release that served before."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.client import Client
from assay.cli.output import CliError, console, state, table

app = typer.Typer(no_args_is_help=True, help="What serves.")


@app.callback()
def deployments() -> None:
    """Show deployments."""


@app.command()
def replicas(
    deployment_id: Annotated[int, typer.Argument(help="The deployment's number.", min=1)],
    least: Annotated[
        int | None, typer.Option("--min", help="Minimum; 0 unloads it while unused.", min=0)
    ] = None,
    most: Annotated[int | None, typer.Option("--max", help="Maximum.", min=1)] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Label that its workers need; repeat it for several, empty for none."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device of its workers, cpu or cuda; empty for any.")
    ] = None,
) -> None:
    """Show the replicas of a deployment, or change their number and workers."""
    client = Client.signed_in()
    shown = client.get(f"deployments/{deployment_id}")
    if any(value is not None for value in (least, most, label, device)):
        shown = client.post(
            f"deployments/{deployment_id}/replicas",
            replicas_min=shown["replicas_min"] if least is None else least,
            replicas_max=shown["replicas_max"] if most is None else most,
            labels=shown["labels"] if label is None else [each for each in label if each],
            device=shown["device"] if device is None else device,
        )
    bounds = f"{shown['replicas_min']} to {shown['replicas_max']}"
    console.print(f"{shown['name']}: {shown['replicas_wanted']} wanted, {bounds}.", markup=False)
    if shown["message"]:
        console.print(shown["message"], markup=False)
    states = {each["worker"]: each["state"] for each in shown["replicas"]}
    table(
        ("worker", "state", "since", "reason"),
        (
            (
                place["worker"],
                state(states.get(place["worker"], "assigned")),
                place["since"],
                place["reason"],
            )
            for place in shown["placements"]
        ),
        empty="Assigned to no worker.",
    )


@app.command()
def rollback(
    deployment_id: Annotated[int, typer.Argument(help="The deployment's number.", min=1)],
    to: Annotated[
        int | None, typer.Option(help="The release to go back to; without it, only the list.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
) -> None:
    """Go back to a release that served under the name before and is still approved."""
    client = Client.signed_in()
    if to is not None:
        if not reason:
            raise CliError("A rollback needs a reason; nothing was rolled back.", "Give --reason.")
        made = client.post(f"deployments/{deployment_id}/rollback", release=to, reason=reason)
        console.print(
            f"{made['name']} goes back to {made['version']['name']}, as deployment {made['id']}.",
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
        empty="Nothing else served under its name before.",
    )
