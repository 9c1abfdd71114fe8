"""`assay deployments rollback`: what served before, and back to it."""

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
