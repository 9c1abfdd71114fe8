"""`assay task check`: everything that is wrong with a package of a task, and how to fix it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from assay.cli.doctor import set_up_django
from assay.cli.output import CliError, console, table

if TYPE_CHECKING:
    from registry.catalog.checks.faults import Fault
    from registry.catalog.discovery import Entry

app = typer.Typer(no_args_is_help=True, help="Packages that add tasks.")


@app.callback()
def tasks() -> None:
    """Packages that add tasks."""


@app.command()
def check(
    package: Annotated[str, typer.Argument(help="Name of an installed package, or of its task.")],
) -> None:
    """Check the tasks of a package as every process and worker does; exits with 1 on a fault.

    The declaration is tried in a process of its own, and so are the sample, the examples and what
    the declaration names: runner, recipes and score. Run it where workers run.
    """
    set_up_django()
    # Faults of other packages are not requested; `assay doctor` lists them.
    logging.getLogger("registry.catalog.discovery").setLevel(logging.CRITICAL)
    entries = _entries(package)
    found = [(entry, fault) for entry in entries for fault in _faults(entry)]
    if found:
        table(
            ("task", "field", "fault"),
            (
                (entry.name, Text(fault.where), Text(f"{fault.what}\n→ {fault.fix}"))
                for entry, fault in found
            ),
            empty="",
        )
        count = len(found)
        raise CliError(f"{count} fault{'' if count == 1 else 's'} in {package}.")
    for entry in entries:
        console.print(f"{entry.name} of {entry.package} can be used.", markup=False)


def _entries(package: str) -> list[Entry]:
    """Return the entry points of a distribution or task. Raises CliError when there are none."""
    from registry.catalog.discovery import installed

    wanted = package.lower().replace("_", "-")
    found = [
        entry
        for entry in installed()
        if wanted in (entry.name, entry.distribution_name.lower().replace("_", "-"))
    ]
    if not found:
        others = sorted({each.distribution_name for each in installed()})
        raise CliError(
            f"No installed package {package} provides a task.",
            f"These do: {', '.join(others)}. Install yours (`pip install -e FOLDER`), and name its "
            'task under [project.entry-points."assay.tasks"] in its pyproject.toml.',
        )
    return found


def _faults(entry: Entry) -> list[Fault]:
    from registry.catalog import refused_entries
    from workers.offers.self_test import self_test

    for refused in refused_entries():
        if (refused.entry.point, refused.entry.place) == (entry.point, entry.place):
            return list(refused.faults)
    return self_test([entry])
