"""`assay models`: list, show and create models."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.client import Client
from assay.cli.options import Limit
from assay.cli.output import (
    Answer,
    console,
    facts,
    json_option,
    listing,
    metrics_in_words,
    sentence,
)

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The model's name.")]


@app.command("list")
@json_option
def list_models(
    department: Annotated[str, typer.Option(help="Filter by department.")] = "",
    task: Annotated[str, typer.Option(help="Filter by task.")] = "",
    limit: Limit = 100,
) -> Answer:
    """List models."""
    return listing(
        Client.signed_in().all("models", limit=limit, department=department, task=task),
        {
            "name": "name",
            "task": "task",
            "department": "department",
            "shared": "shared",
            "created": "created_at",
        },
        empty="No matching models that you may see. `assay models create` makes one.",
    )


@app.command()
@json_option
def show(name: Name, limit: Limit = 100) -> Answer:
    """Show a model with its versions."""
    client = Client.signed_in()
    model = client.get(f"models/{name}")
    versions = listing(
        client.all(f"models/{name}/versions", limit=limit),
        {
            "id": "id",
            "version": lambda version: f"v{version['number']}",
            "kind": "kind",
            "state": "state",
            "digest": lambda version: version["digest"][:12],
            "base": lambda version: version["base"] and version["base"]["name"],
            "metrics": lambda version: metrics_in_words(version["metrics"]),
            "created": "created_at",
        },
        empty="No versions yet.",
    )

    def print_answer() -> None:
        facts((key, model[key]) for key in ("name", "task", "department", "shared", "description"))
        console.print()
        versions.show()

    return Answer({**model, "versions": versions.data}, print_answer)


@app.command()
@json_option
def create(
    name: Name,
    department: Annotated[str, typer.Option(help="Department that owns the model.")],
    task: Annotated[str, typer.Option(help="Task of the model, such as text-classification.")],
    description: Annotated[str, typer.Option(help="Purpose of the model.")] = "",
    shared: Annotated[
        bool, typer.Option("--shared", help="Let other departments see and adapt it.")
    ] = False,
) -> Answer:
    """Create a model: a name and a task for a series of versions."""
    model = Client.signed_in().post(
        "models",
        name=name,
        department=department,
        task=task,
        description=description,
        shared=shared,
    )
    return sentence(model, f"Model {name} of {department} is created.")
