"""`assay fine-tunes`: train versions of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.client import Client, present
from assay.cli.jobs import newest_jobs, queued
from assay.cli.options import (
    Follow,
    Limit,
    Priority,
    Resources,
    Settings,
    dataset_version_id,
    json_pairs,
    version_id,
)
from assay.cli.output import Answer, json_option

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@json_option
def list_fine_tunes(limit: Limit = 25) -> Answer:
    """List the newest fine-tunes."""
    return newest_jobs(limit, kind="fine_tune")


@app.command()
@json_option
def create(
    model: Annotated[str, typer.Argument(help="Model for the new version.")],
    base: Annotated[
        str, typer.Option(help="Version to start from: its ID, MODEL:NUMBER, or MODEL.")
    ],
    data: Annotated[
        str, typer.Option(help="Training data: a version's ID, DATASET:NUMBER, or DATASET.")
    ],
    method: Annotated[str, typer.Option(help="Method of the task: full, lora, …")] = "full",
    settings: Settings = None,
    evaluate_on: Annotated[
        list[str] | None,
        typer.Option(help="Evaluate the new version on this dataset afterward. Repeatable."),
    ] = None,
    resources: Resources = None,
    priority: Priority = "normal",
    follow: Follow = False,
) -> Answer:
    """Queue a fine-tune, and evaluations of the version that it makes."""
    client = Client.signed_in()
    job = client.post(
        "fine-tunes",
        model=model,
        base_version=version_id(client, base),
        method=method,
        dataset_version=dataset_version_id(client, data),
        hyperparameters=json_pairs(settings),
        priority=priority,
        then=[{"dataset_version": dataset_version_id(client, each)} for each in evaluate_on or ()],
        **present(resources=json_pairs(resources)),
    )
    return queued(client, job, follow=follow)
