"""`assay store`: maintain the artifact store, on a machine that reaches it and the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from assay.cli.doctor import set_up_django
from assay.cli.local import local_stores
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
from governance.english import counted

if TYPE_CHECKING:
    from registry.storage.backend import Entry
    from workers.storage.collection import CollectionResult
    from workers.storage.copying import CopyResult
    from workers.storage.inspection import Contents, Fault

app = typer.Typer(no_args_is_help=True)
# Maximum number of listed rows; sums count all.
SHOWN = 200


@contextmanager
def prepared() -> Iterator[None]:
    """Load Django, and turn errors of the store and database into errors of the command."""
    with local_stores():
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
    # `asdict` would turn a counter into a count of its items.
    counts = {each.name: getattr(contents, each.name) for each in fields(contents)}
    return Answer({"store": url, **counts}, lambda: _show(url, contents))


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
@json_option
def fsck(
    quick: Annotated[bool, typer.Option(help="Compare only sizes; do not read files.")] = False,
) -> Answer:
    """List damaged, missing, unreadable and unknown files; exit with 1 if there are any.

    Also lists the versions and other objects that a file belongs to. A file that belongs to none is
    unknown once it is a day old.
    """
    with prepared(), progress_bar() as bar:
        from workers.storage.inspection import store_faults

        task = bar.add_task("Checking", total=None)
        faults: list[Fault] = []
        for fault in store_faults(
            hashes=not quick,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        ):
            faults.append(fault)
            bar.update(task, description=f"Checking, {counted(len(faults), 'fault')}")
    error = None
    if faults:
        counts = Counter(fault.kind for fault in faults)
        parts = ", ".join(f"{number:,} {kind}" for kind, number in sorted(counts.items()))
        error = CliError(
            f"The store has faults: {parts}.",
            "Restore damaged and missing files from a backup. Correct the owner or permissions of "
            "unreadable ones. `assay store gc` removes unknown ones.",
        )
    return Answer([asdict(fault) for fault in faults], lambda: _show_faults(faults), error)


def _show_faults(faults: list[Fault]) -> None:
    for fault in faults[:SHOWN]:
        affects = f" Affects {', '.join(fault.owners)}." if fault.owners else ""
        console.print(Text(f"{fault.kind}: {fault.key}: {fault.detail}.{affects}"), soft_wrap=True)
    if not faults:
        console.print("No faults.")


@app.command()
@json_option
def gc(
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove the files instead of listing them.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, help="Keep files that are younger.")] = 7,
) -> Answer:
    """List unneeded files; with --apply, remove them and record this in the audit log.

    Files of versions, intakes, datasets, documents, indexes and unfinished jobs are needed.
    """
    with prepared():
        from governance.principals import service_principal
        from workers.storage.collection import store_collect

        done = store_collect(
            actor=service_principal("store-gc"), age=timedelta(days=days), apply=apply
        )
    data = {
        "objects": [_as_dict(entry) for entry in done.objects],
        "unfinished": [_as_dict(entry) for entry in done.unfinished],
        "removed": done.removed,
        "removed_bytes": done.removed_bytes,
    }
    return Answer(data, lambda: _show_collected(done, apply=apply))


def _as_dict(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "modified": entry.modified.isoformat()}


def _show_collected(done: CollectionResult, *, apply: bool) -> None:
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
@json_option
def migrate(
    to: Annotated[str, typer.Option(help="Target: file:///folder or s3://bucket/prefix.")],
    source: Annotated[str, typer.Option("--from", help="Source; ASSAY_STORE_URL by default.")] = "",
) -> Answer:
    """Copy and verify the store to another place while it is in use. Run it again to resume."""
    with prepared(), progress_bar() as bar:
        from registry.storage import store
        from workers.storage.copying import store_copy

        task = bar.add_task("Copying", total=None)
        source = source or store.store_url()
        done = store_copy(
            source=source, target=to, progress=lambda entry: bar.update(task, advance=1)
        )
    error = None
    if done.failed:
        error = CliError(
            f"{len(done.failed):,} files were not copied.",
            "`assay store fsck` lists what they belong to.",
        )
    data = {"source": source, "target": to, **asdict(done)}
    return Answer(data, lambda: _show_copied(done, source, to), error)


def _show_copied(done: CopyResult, source: str, to: str) -> None:
    for sentence in done.failed[:SHOWN]:
        errors.print(Text(sentence), soft_wrap=True)
    before = done.entries - done.objects
    console.print(
        f"Copied {done.objects:,} files, {gib(done.bytes)}; {before:,} were there already."
    )
    if done.failed:
        return
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
