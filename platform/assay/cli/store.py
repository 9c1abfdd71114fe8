"""`assay store`: maintain the artifact store, on a machine that reaches it and the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from assay.cli.doctor import set_up_django
from assay.cli.output import (
    Answer,
    CliError,
    console,
    errors,
    facts,
    json_option,
    progress_bar,
    table,
)

if TYPE_CHECKING:
    from workers.storage.inspection import Contents

app = typer.Typer(no_args_is_help=True)
# Maximum number of listed rows; sums count all.
SHOWN = 200


@contextmanager
def prepared() -> Iterator[None]:
    """Load Django, and turn errors of the store and database into errors of the command."""
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
    """Return a size in bytes and GiB."""
    return f"{count:,} bytes ({count / 1024**3:.2f} GiB)"


@app.command()
@json_option
def status() -> Answer:
    """Count files and bytes in the store, and unneeded and missing files."""
    with prepared():
        from registry.storage import store
        from workers.storage.inspection import store_contents

        contents, url = store_contents(), store.store_url()
    return Answer({"store": url, **asdict(contents)}, lambda: _show(url, contents))


def _show(url: str, contents: Contents) -> None:
    facts(
        (
            ("store", url),
            ("files", f"{contents.objects['files']:,}, {gib(contents.bytes['files'])}"),
            ("records", f"{contents.objects['records']:,}, {gib(contents.bytes['records'])}"),
            ("referenced", f"{gib(contents.named_bytes)}, counted for each owner"),
            (
                "unneeded",
                f"{contents.unneeded_objects:,}, {gib(contents.unneeded_bytes)}; "
                "see `assay store gc`",
            ),
            (
                "missing",
                Text(f"{contents.missing:,}", style="red" if contents.missing else "green"),
            ),
        )
    )


@app.command()
def fsck(
    quick: Annotated[bool, typer.Option(help="Compare only sizes; do not read files.")] = False,
) -> None:
    """List damaged, missing, unreadable and unknown files; exit with 1 if there are any.

    Also lists the versions and other objects that a file belongs to. A file that belongs to none is
    unknown once it is a day old.
    """
    with prepared(), progress_bar() as bar:
        from workers.storage.inspection import store_faults

        task = bar.add_task("Checking", total=None)
        counts: Counter[str] = Counter()
        for fault in store_faults(
            hashes=not quick,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        ):
            counts[fault.kind] += 1
            if sum(counts.values()) <= SHOWN:
                affects = f" Affects {', '.join(fault.owners)}." if fault.owners else ""
                console.print(
                    Text(f"{fault.kind}: {fault.key}: {fault.detail}.{affects}"), soft_wrap=True
                )
    if counts:
        parts = ", ".join(f"{number:,} {kind}" for kind, number in sorted(counts.items()))
        raise CliError(
            f"The store has faults: {parts}.",
            "Restore damaged and missing files from a backup. Correct the owner or permissions of "
            "unreadable ones. `assay store gc` removes unknown ones.",
        )
    console.print("No faults.")


@app.command()
def gc(
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove the files instead of listing them.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, help="Keep files that are younger.")] = 7,
) -> None:
    """List unneeded files; with --apply, remove them and record this in the audit log.

    Files of versions, intakes, datasets, documents, indexes and unfinished jobs are needed.
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
    to: Annotated[str, typer.Option(help="Target: file:///folder or s3://bucket/prefix.")],
    source: Annotated[str, typer.Option("--from", help="Source; ASSAY_STORE_URL by default.")] = "",
) -> None:
    """Copy and verify the store to another place while it is in use. Run it again to resume."""
    with prepared(), progress_bar() as bar:
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
    console.print(
        f"Copied {done.objects:,} files, {gib(done.bytes)}; {before:,} were there already."
    )
    if done.failed:
        raise CliError(
            f"{len(done.failed):,} files were not copied.",
            "`assay store fsck` lists what they belong to.",
        )
    console.print(
        "To switch:\n"
        f"  1. Set ASSAY_STORE_URL={to} for every process. Restart them one after another, workers "
        "first.\n"
        "  2. Copy the files that were stored in the meantime:\n"
        f"     assay store migrate --from {source} --to {to}\n"
        "  3. assay store fsck\n"
        "Keep the old store until fsck finds no faults.",
        soft_wrap=True,
    )
