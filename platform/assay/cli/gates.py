"""`assay gates`: list gates, and set them before an evaluation."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.client import Client
from assay.cli.options import Limit
from assay.cli.output import Answer, CliError, json_option, listing, sentence

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@json_option
def list_gates(
    model: Annotated[str, typer.Option(help="Filter by model.")] = "", limit: Limit = 100
) -> Answer:
    """List gates."""
    return listing(
        Client.signed_in().all("gates", limit=limit, model=model),
        {
            "id": "id",
            "model": "model",
            "dataset": "dataset",
            "metric": "metric",
            "threshold": lambda gate: f"{gate['comparator']} {gate['threshold']:g}",
            "set by": lambda gate: gate["created_by"]["name"],
            "why": "why",
        },
        empty="No gates that you may see. `assay gates create` sets one.",
    )


@app.command()
@json_option
def create(
    model: Annotated[str, typer.Argument(help="Model whose versions must pass.")],
    dataset: Annotated[str, typer.Argument(help="Dataset to measure on.")],
    metric: Annotated[str, typer.Argument(help="Metric of the task, such as accuracy.")],
    at_least: Annotated[float | None, typer.Option(help="Lowest value that passes.")] = None,
    at_most: Annotated[float | None, typer.Option(help="Highest value that passes.")] = None,
    why: Annotated[str, typer.Option(help="Reason for the threshold.")] = "",
) -> Answer:
    """Set a gate, or change its threshold for evaluations that start afterward."""
    threshold = at_most if at_least is None else at_least
    if threshold is None or None not in (at_least, at_most):
        raise CliError("A gate has one threshold.", "Give either --at-least or --at-most.")
    comparator = ">=" if at_most is None else "<="
    gate = Client.signed_in().post(
        "gates",
        model=model,
        dataset=dataset,
        metric=metric,
        comparator=comparator,
        threshold=threshold,
        why=why,
    )
    return sentence(
        gate,
        f"{model} must have {metric} {comparator} {threshold:g} on {dataset} (gate {gate['id']}).",
    )
