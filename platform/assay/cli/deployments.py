"""`assay deployments`: replicas, rollback to an earlier release, and health."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.client import Client
from assay.cli.output import CliError, console, facts, state, table

app = typer.Typer(no_args_is_help=True, help="Deployments: replicas, rollback and health.")


@app.callback()
def deployments() -> None:
    """Deployments: replicas, rollback and health."""


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


@app.command()
def health(
    deployment_id: Annotated[int, typer.Argument(help="The deployment's number.", min=1)],
    span: Annotated[str, typer.Option(help="1h, 24h, 7d, 30d or 12w.")] = "24h",
) -> None:
    """Show latency, errors and cost of a deployment, and why it is slow."""
    body = Client.signed_in().get(f"deployments/{deployment_id}/health", span=span)
    total, slowest = body["total"], body["slowest"]
    times = [("latency", total["latency_ms"]), ("first token", total["first_token_ms"])]
    facts(
        [
            ("deployment", body["name"]),
            ("requests", f"{total['requests']:,}, {100 * total['error_rate']:.1f} % failed"),
            *((name, _percentiles(values)) for name, values in times if values),
            ("used", f"{total['units']:,} {total['unit'].replace('_', ' ')}"),
            ("cost", f"{total['cost_micro'] / 1_000_000:,.2f} {body['currency']}"),
            ("waiting", body["waiting"]),
            ("workers", [each["worker"] for each in body["workers"]]),
        ]
    )
    if body["explanation"]:
        console.print(body["explanation"], markup=False)
    phases = ("load", "queue", "prefill", "stream", "compute")
    table(
        ("phase", "all answers, ms", "slowest 5 %, ms"),
        (
            (name, f"{body['phases'][name]:,.0f}", f"{slowest[name]:,.0f}")
            for name in phases
            if slowest[name] or body["phases"][name]
        ),
        empty="No answers in this period.",
    )
    table(
        ("at", "changed"),
        ((change["at"], change["text"]) for change in body["changes"]),
        empty="Nothing changed in this period.",
    )


def _percentiles(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {value:,} ms" for name, value in values.items())
