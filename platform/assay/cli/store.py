"""`assay store`: look after the artifact store, on a machine that can reach it and the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from rich.progress import Progress
from rich.text import Text

from assay.cli.doctor import set_up_django
from assay.cli.output import CliError, console, errors, facts, table

app = typer.Typer(
    no_args_is_help=True,
    help="The artifact store. Run these where the controller runs, with its settings.",
)
# Lines of a list; the sum says how many there are.
SHOWN = 200


@contextmanager
def prepared() -> Iterator[None]:
    """Load Django, and show what the store refuses as an error of the command."""
    set_up_django()
    from django.core.exceptions import ImproperlyConfigured
    from django.db import Error

    from governance.errors import DomainError

    try:
        yield
    except DomainError as error:
        raise CliError(error.message, error.hint, error.code) from error
    except (ImproperlyConfigured, Error) as error:
        raise CliError(str(error).strip()) from error


def gib(count: int) -> str:
    """Return a size as people read it."""
    return f"{count:,} bytes ({count / 1024**3:.2f} GiB)"


@app.command()
def status() -> None:
    """Count files and bytes in the store, and what nothing needs."""
    with prepared():
        from registry.storage import store
        from workers.storage.inspection import store_contents

        found = store_contents()
        facts(
            (
                ("store", store.store_url()),
                ("files", f"{found.objects['files']:,}, {gib(found.bytes['files'])}"),
                ("records", f"{found.objects['records']:,}, {gib(found.bytes['records'])}"),
                ("named by rows", f"{gib(found.named_bytes)}, counted for each owner"),
                (
                    "unneeded",
                    f"{found.unneeded_objects:,}, {gib(found.unneeded_bytes)}; "
                    "see `assay store gc`",
                ),
                ("missing", Text(f"{found.missing:,}", style="red" if found.missing else "green")),
            )
        )


@app.command()
def fsck(
    quick: Annotated[bool, typer.Option(help="Compare sizes; read no file.")] = False,
) -> None:
    """Name damaged, missing, unreadable and unknown files and what they affect; exit with 1 if any.

    A file that nothing needs is unknown once it is a day old.
    """
    with prepared(), Progress(console=errors, transient=True) as bar:
        from workers.storage.inspection import store_faults

        task = bar.add_task("Checking", total=None)
        counted: Counter[str] = Counter()
        for fault in store_faults(
            hashes=not quick,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        ):
            counted[fault.kind] += 1
            if sum(counted.values()) <= SHOWN:
                affects = f" Affects {', '.join(fault.owners)}." if fault.owners else ""
                console.print(
                    Text(f"{fault.kind}: {fault.key}: {fault.detail}.{affects}"), soft_wrap=True
                )
    if counted:
        parts = ", ".join(f"{number:,} {kind}" for kind, number in sorted(counted.items()))
        raise CliError(
            f"The store has faults: {parts}.",
            "Restore damaged and missing files from a backup. Correct the owner or permissions of "
            "unreadable ones. `assay store gc` removes unknown ones.",
        )
    console.print("All is well.")


@app.command()
def gc(
    apply: Annotated[bool, typer.Option("--apply", help="Remove; without it, only list.")] = False,
    days: Annotated[int, typer.Option(min=1, help="Spare what is younger.")] = 7,
) -> None:
    """List, and with --apply remove, what nothing needs. The audit log records what is removed.

    Needed are the files of versions, intakes, datasets, documents, indexes, and jobs that are not
    over.
    """
    with prepared():
        from governance.principals import service_principal
        from workers.storage.collection import store_collect

        done = store_collect(
            actor=service_principal("store-gc"), age=timedelta(days=days), apply=apply
        )
        table(
            ("bytes", "last adopted", "key"),
            (
                (f"{entry.size:,}", f"{entry.modified:%Y-%m-%d %H:%M}", entry.key)
                for entry in (*done.objects, *done.unfinished)[:SHOWN]
            ),
            empty="Nothing to remove.",
        )
        if apply:
            console.print(f"Removed {done.removed:,} files, {gib(done.removed_bytes)}.")
        elif done.objects or done.unfinished:
            total = sum(entry.size for entry in done.objects)
            console.print(
                f"{len(done.objects):,} files, {gib(total)}, and {len(done.unfinished):,} "
                "unfinished uploads. Nothing was removed; add --apply."
            )


@app.command()
def migrate(
    to: Annotated[str, typer.Option(help="Where to: file:///folder or s3://bucket/prefix.")],
    source: Annotated[
        str, typer.Option("--from", help="Where from; ASSAY_STORE_URL if left out.")
    ] = "",
) -> None:
    """Copy the store to another place while it is in use, verified; run it again to go on."""
    with prepared(), Progress(console=errors, transient=True) as bar:
        from registry.storage import store
        from workers.storage.copying import store_copy

        task = bar.add_task("Copying", total=None)
        source = source or store.store_url()
        done = store_copy(
            source=source, target=to, progress=lambda entry: bar.update(task, advance=1)
        )
    for sentence in done.failed[:SHOWN]:
        errors.print(Text(sentence), soft_wrap=True)
    before = done.entries - done.objects
    console.print(f"Copied {done.objects:,} files, {gib(done.bytes)}; {before:,} were there.")
    if done.failed:
        raise CliError(
            f"{len(done.failed):,} files were not copied.",
            "`assay store fsck` says what they affect.",
        )
    console.print(
        "To switch:\n"
        f"  1. Set ASSAY_STORE_URL={to} for every process. Restart them one after another, workers "
        "first.\n"
        "  2. Copy what was stored meanwhile:\n"
        f"     assay store migrate --from {source} --to {to}\n"
        "  3. assay store fsck\n"
        "Keep the old store until this finds no faults.",
        soft_wrap=True,
    )
