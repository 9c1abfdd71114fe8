"""`assay task check`: check a package of tasks."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from assay.cli.doctor import set_up_django
from assay.cli.output import Answer, CliError, console, json_option, table
from governance.english import counted

if TYPE_CHECKING:
    from registry.catalog.checks.faults import Fault
    from registry.catalog.discovery import Entry

app = typer.Typer(no_args_is_help=True)


@app.command()
@json_option
def check(
    package: Annotated[str, typer.Argument(help="Name of an installed package, or of its task.")],
) -> Answer:
    """Check the tasks of a package as every process and worker does; exit with 1 on a fault.

    Separate processes try the declaration, the sample, the examples, and the runner, recipes and
    score that the declaration names. Run the command where workers run.
    """
    set_up_django()
    # `assay doctor` lists the faults of other packages.
    logging.getLogger("registry.catalog.discovery").setLevel(logging.CRITICAL)
    entries = _entries(package)
    faults = [(entry, fault) for entry in entries for fault in _faults(entry)]
    data = [
        {
            "task": entry.name,
            "package": entry.package,
            "faults": [asdict(fault) for owner, fault in faults if owner is entry],
        }
        for entry in entries
    ]
    error = CliError(f"{counted(len(faults), 'fault')} in {package}.") if faults else None
    return Answer(data, lambda: _show(entries, faults), error)


def _show(entries: list[Entry], faults: list[tuple[Entry, Fault]]) -> None:
    if faults:
        table(
            ("task", "field", "fault"),
            (
                (entry.name, Text(fault.where), Text(f"{fault.what}\n→ {fault.fix}"))
                for entry, fault in faults
            ),
            empty="",
        )
        return
    for entry in entries:
        console.print(f"{entry.name} of {entry.package} can be used.", markup=False)


def _entries(package: str) -> list[Entry]:
    """Return the entry points of a distribution or task.

    Raises:
        CliError: there are none.
    """
    from registry.catalog.discovery import installed

    name = package.lower().replace("_", "-")
    entries = [
        entry
        for entry in installed()
        if name in (entry.name, entry.distribution_name.lower().replace("_", "-"))
    ]
    if not entries:
        others = sorted({each.distribution_name for each in installed()})
        raise CliError(
            f"No installed package {package} provides a task.",
            f"These do: {', '.join(others)}. Install yours (`pip install -e FOLDER`), and name its "
            'task under [project.entry-points."assay.tasks"] in its pyproject.toml.',
        )
    return entries


def _faults(entry: Entry) -> list[Fault]:
    from registry.catalog import refused_entries
    from workers.offers.self_test import self_test

    for refused in refused_entries():
        if (refused.entry.point, refused.entry.place) == (entry.point, entry.place):
            return list(refused.faults)
    return self_test([entry])
