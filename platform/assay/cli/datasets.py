"""`assay datasets`: list, show and create datasets, and read their rows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from assay.cli.client import Client, present
from assay.cli.options import DataRef, Limit, dataset_version_id
from assay.cli.output import (
    Answer,
    console,
    errors,
    facts,
    json_option,
    listing,
    sentence,
    table,
)

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


@app.command()
@json_option
def rows(
    version: DataRef,
    search: Annotated[str, typer.Option(help="Only rows that contain this text.")] = "",
    sort: Annotated[str, typer.Option(help="Column, or COLUMN.FEATURE, to sort by.")] = "",
    descending: Annotated[bool, typer.Option("--desc", help="Sort in descending order.")] = False,
    row: Annotated[int, typer.Option(min=1, help="Position of the first row to show.")] = 1,
    unmask: Annotated[
        bool, typer.Option("--unmask", help="Show masked text. The audit log records the rows.")
    ] = False,
) -> Answer:
    """Show a page of the rows of a dataset version."""
    client = Client.signed_in()
    path = f"dataset-versions/{dataset_version_id(client, version)}/rows"
    query = present(q=search, sort=sort, order="desc" if descending else "", row=row)
    page = client.post(f"{path}/unmask", **query) if unmask else client.get(path, **query)
    return Answer(page, lambda: _show_rows(page))


def _show_rows(page: dict[str, Any]) -> None:
    table(
        ("row", *page["columns"]),
        ((each["number"], *map(_cell, each["cells"])) for each in page["rows"]),
        empty="No matching rows.",
        cut=True,
    )
    notes = [f"{page['matches']:,} of {page['total']:,} rows match."]
    if page["cut"]:
        notes.append(f"Time ran out after the first {page['read']:,} rows.")
    if masked := [*page["masked"], *page["hidden"]]:
        notes.append(f"Masked: {', '.join(masked)}. To show it, add --unmask.")
    if page["next_row"]:
        notes.append(f"Next page: --row {page['next_row']}.")
    errors.print(" ".join(notes), style="dim", markup=False)


def _cell(cell: dict[str, Any]) -> str:
    """Return a cell on one line, with files and series in words."""
    return " | ".join(map(_part, cell["parts"]))


def _part(part: dict[str, Any]) -> str:
    if media := part["media"]:
        return f"{media['content_type']}, {media['size_bytes']:,} bytes"
    if series := part["series"]:
        return f"{series['steps']:,} values from {series['start']} to {series['end']}"
    label = part["role"] or part["name"]
    return f"{label}: {part['text']}" if label else str(part["text"])
