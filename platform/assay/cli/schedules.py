"""`assay schedules list`, `show`, `evaluate`, `create`, `pause`, `resume`, `run`, `delete`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli.client import Client
from assay.cli.models import Limit
from assay.cli.output import CliError, console, facts, state, table

app = typer.Typer(no_args_is_help=True, help="Jobs that start at set times.")
Number = Annotated[int, typer.Argument(help="The schedule's number.", min=1)]
Zone = Annotated[str, typer.Option("--time-zone", help="Time zone of the times.")]


@app.command("list")
def list_schedules(limit: Limit = 25) -> None:
    """The newest schedules."""
    table(
        ("id", "name", "job", "times", "state", "department", "next"),
        (
            (
                each["id"],
                each["name"],
                each["title"],
                f"{each['cron']} ({each['time_zone']})",
                state(each["state"]),
                each["department"],
                each["next_due"][0] if each["next_due"] else "",
            )
            for each in Client.signed_in().all("schedules", limit=limit)
        ),
        empty="There are no schedules that you may see.",
    )


@app.command()
def show(schedule_id: Number) -> None:
    """One schedule: its next times and its last runs."""
    client = Client.signed_in()
    found = client.get(f"schedules/{schedule_id}")
    facts(
        [
            ("schedule", found["name"]),
            ("job", found["title"]),
            ("state", state(found["state"])),
            *([("suspended because", found["reason"])] if found["reason"] else []),
            ("times", f"{found['cron']} ({found['time_zone']})"),
            ("next", found["next_due"]),
            *([("if nothing is new", "runs")] if found["run_unchanged"] else []),
            ("runs as", found["owner"]["name"]),
            ("department", found["department"]),
        ]
    )
    table(
        ("due", "outcome", "version", "data", "job", "reason"),
        (
            (
                run["due_at"],
                run["outcome"],
                run["version"],
                run["data"],
                run["job"] or "",
                run["reason"],
            )
            for run in client.all(f"schedules/{schedule_id}/runs", limit=10)
        ),
        empty="It has not run yet.",
    )


@app.command()
def evaluate(
    name: Annotated[str, typer.Argument(help="A name for the schedule.")],
    cron: Annotated[str, typer.Argument(help='When, as "0 2 * * *" for 02:00 every night.')],
    version: Annotated[int, typer.Option(help="Number of the version.", min=0)] = 0,
    model: Annotated[str, typer.Option(help="Evaluate its newest trusted version.")] = "",
    dataset: Annotated[str, typer.Option(help="Its newest version is measured each time.")] = "",
    dataset_version: Annotated[int, typer.Option(help="Measure always this one.", min=0)] = 0,
    max_rows: Annotated[int, typer.Option(help="Measure the first rows only.", min=0)] = 0,
    time_zone: Zone = "UTC",
    run_unchanged: Annotated[
        bool, typer.Option("--run-unchanged", help="Run even if nothing is new.")
    ] = False,
) -> None:
    """Repeat an evaluation of a version, or of a model's newest."""
    given: dict[str, Any] = {
        "version": version,
        "model": model,
        "dataset": dataset,
        "dataset_version": dataset_version,
        "max_rows": max_rows,
    }
    _create(
        {
            "name": name,
            "cron": cron,
            "time_zone": time_zone,
            "run_unchanged": run_unchanged,
            "evaluation": {field: value for field, value in given.items() if value},
        }
    )


@app.command()
def create(
    file: Annotated[Path, typer.Argument(help="A JSON file, as POST /api/v1/schedules takes it.")],
) -> None:
    """Create the schedule that a file describes, such as one of a fine-tune."""
    try:
        body = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CliError(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(body, dict):
        raise CliError(f"{file} does not hold a JSON object.")
    _create(body)


def _create(body: dict[str, Any]) -> None:
    made = Client.signed_in().post("schedules", **body)
    console.print(
        f"Schedule {made['id']}: {made['title']}, next at {made['next_due'][0]}.", markup=False
    )


@app.command()
def pause(schedule_id: Number) -> None:
    """Start no jobs until the schedule is resumed."""
    made = Client.signed_in().post(f"schedules/{schedule_id}/pause")
    console.print(f"{made['name']} is paused.", markup=False)


@app.command()
def resume(schedule_id: Number) -> None:
    """Start jobs again at the next time, as you."""
    made = Client.signed_in().post(f"schedules/{schedule_id}/resume")
    console.print(f"{made['name']} runs next at {made['next_due'][0]}.", markup=False)


@app.command()
def run(schedule_id: Number) -> None:
    """Start the job now, as you."""
    job = Client.signed_in().post(f"schedules/{schedule_id}/run")
    console.print(f"{job['title']} is queued as {job['id']}.", markup=False)


@app.command()
def delete(schedule_id: Number) -> None:
    """Delete a schedule; its jobs stay."""
    Client.signed_in().delete(f"schedules/{schedule_id}")
    console.print(f"Schedule {schedule_id} is deleted.")
