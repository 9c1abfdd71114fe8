"""`assay evaluations`: measure versions, and show the results."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from assay.cli.client import Client, present
from assay.cli.jobs import queued
from assay.cli.options import (
    DataRef,
    Follow,
    Limit,
    Priority,
    VersionRef,
    dataset_version_id,
    version_id,
)
from assay.cli.output import (
    Answer,
    console,
    facts,
    json_option,
    listing,
    metrics_in_words,
    state,
    table,
)

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@json_option
def list_evaluations(
    model: Annotated[str, typer.Option(help="Filter by model.")] = "",
    version: Annotated[str, typer.Option(help="Filter by version: its ID, or MODEL:NUMBER.")] = "",
    limit: Limit = 25,
) -> Answer:
    """List the newest evaluations."""
    client = Client.signed_in()
    number = version_id(client, version) if version else None
    return listing(
        client.all("evaluations", limit=limit, model=model, version=number),
        {
            "id": "id",
            "version": lambda each: each["version"]["name"],
            "dataset": lambda each: each["dataset_version"]["name"],
            "gates": _gates,
            "metrics": lambda each: metrics_in_words(each["metrics"]),
            "rows": lambda each: f"{each['sample_size']:,}",
            "created": "created_at",
        },
        empty="No evaluations that you may see. `assay evaluations create` starts one.",
    )


@app.command()
@json_option
def show(
    evaluation_id: Annotated[int, typer.Argument(help="The evaluation's ID.", min=1)],
) -> Answer:
    """Show an evaluation: metrics with their intervals, baseline and gates."""
    evaluation = Client.signed_in().get(f"evaluations/{evaluation_id}")
    return Answer(evaluation, lambda: _show(evaluation))


@app.command()
@json_option
def create(
    version: VersionRef,
    data: DataRef,
    max_rows: Annotated[
        int, typer.Option(min=0, help="Measure the first rows only; this decides no gates.")
    ] = 0,
    priority: Priority = "normal",
    follow: Follow = False,
) -> Answer:
    """Queue an evaluation of a version on a dataset."""
    client = Client.signed_in()
    job = client.post(
        "evaluations",
        version=version_id(client, version),
        dataset_version=dataset_version_id(client, data),
        priority=priority,
        **present(max_rows=max_rows or None),
    )
    answer = queued(client, job, follow=follow)
    if not follow:
        return answer
    evaluation = client.get(f"evaluations/{answer.data['evaluation']}")

    def print_answer() -> None:
        answer.show()
        _show(evaluation)

    return Answer(answer.data, print_answer)


def _show(evaluation: dict[str, Any]) -> None:
    facts(
        [
            ("evaluation", evaluation["id"]),
            ("version", evaluation["version"]["name"]),
            ("dataset", evaluation["dataset_version"]["name"]),
            ("rows", evaluation["sample_size"]),
            ("baseline", evaluation["baseline_name"]),
            ("on training data", evaluation["on_training_data"]),
        ]
    )
    console.print()
    table(
        ("metric", "value", "95% interval", "baseline"),
        (
            (
                name,
                value,
                _interval(evaluation["intervals"].get("metrics", {}).get(name)),
                evaluation["baseline"].get(name),
            )
            for name, value in evaluation["metrics"].items()
        ),
        empty="No metrics.",
    )
    console.print()
    table(
        ("gate", "threshold", "value", "result"),
        (
            (
                each["metric"],
                f"{each['comparator']} {each['threshold']:g}",
                each["value"],
                state("succeeded" if each["passed"] else "failed"),
            )
            for each in evaluation["gates"]
        ),
        empty="No gates were set before it started.",
    )


def _interval(interval: dict[str, Any] | None) -> str:
    return f"{interval['low']:.4g} to {interval['high']:.4g}" if interval else ""


def _gates(evaluation: dict[str, Any]) -> Any:
    results = [each["passed"] for each in evaluation["gates"]]
    if not results:
        return ""
    return state("succeeded") if all(results) else state("failed")
