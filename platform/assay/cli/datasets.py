"""`assay datasets`: list, show and create datasets."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.client import Client
from assay.cli.options import Limit
from assay.cli.output import Answer, console, facts, json_option, listing, sentence

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The dataset's name.")]
FACTS = ("name", "task", "department", "classification", "license", "description")


@app.command("list")
@json_option
def list_datasets(limit: Limit = 100) -> Answer:
    """List datasets."""
    return listing(
        Client.signed_in().all("datasets", limit=limit),
        {
            "name": "name",
            "task": "task",
            "department": "department",
            "classification": "classification",
            "license": "license",
            "created": "created_at",
        },
        empty="No datasets that you may see. `assay datasets create` makes one.",
    )


@app.command()
@json_option
def show(name: Name, limit: Limit = 100) -> Answer:
    """Show a dataset with its versions."""
    client = Client.signed_in()
    dataset = client.get(f"datasets/{name}")
    versions = listing(
        client.all(f"datasets/{name}/versions", limit=limit),
        {
            "id": "id",
            "version": lambda version: f"v{version['number']}",
            "rows": lambda version: f"{version['rows']:,}",
            "digest": lambda version: version["digest"][:12],
            "created": "created_at",
        },
        empty=f"No versions yet. `assay upload dataset {name} FILE` adds one.",
    )

    def print_answer() -> None:
        facts((key, dataset[key]) for key in FACTS)
        console.print()
        versions.show()

    return Answer({**dataset, "versions": versions.data}, print_answer)


@app.command()
@json_option
def create(
    name: Name,
    department: Annotated[str, typer.Option(help="Department that owns the data.")],
    task: Annotated[str, typer.Option(help="Task of its rows, such as text-classification.")],
    classification: Annotated[
        str, typer.Option(help="Sensitivity: public, internal, confidential or restricted.")
    ],
    license_: Annotated[str, typer.Option("--license", help="SPDX identifier.")],
    description: Annotated[str, typer.Option(help="Content of the dataset.")] = "",
    row_kind: Annotated[str, typer.Option(help="Kind of rows, if the task has several.")] = "",
) -> Answer:
    """Create a dataset; `assay upload dataset` adds its versions."""
    dataset = Client.signed_in().post(
        "datasets",
        name=name,
        department=department,
        task=task,
        classification=classification,
        license=license_,
        description=description,
        row_kind=row_kind,
    )
    return sentence(
        dataset,
        f"Dataset {name} of {department} is created. `assay upload dataset {name} FILE` adds rows.",
    )
