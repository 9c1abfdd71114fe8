"""`assay backup`: create, list and restore backups of database and artifact store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.output import Answer, console, errors, json_option, listing, progress_bar
from assay.cli.store import gib, prepared

if TYPE_CHECKING:
    from assay.backups.backup import Backup
    from assay.backups.restore import Restored

app = typer.Typer(no_args_is_help=True)


@app.command()
@json_option
def make(
    folder: Annotated[Path, typer.Argument(help="Folder of the backups; created if missing.")],
) -> Answer:
    """Back up the database and the files of the store while they are in use.

    The next backup in the same folder copies only new files.
    """
    with prepared(), progress_bar() as bar:
        from assay.backups import backup

        task = bar.add_task("Copying files", total=None)
        path, record = backup.make(folder, progress=lambda entry: bar.update(task, advance=1))
    data = {**_summary(path, record), "new_bytes": record.new_bytes}
    return Answer(data, lambda: _show_backup(path, record))


def _summary(path: Path, record: Backup) -> dict[str, Any]:
    names = ("made_at", "assay", "events", "files", "database_bytes")
    return {
        "name": path.name,
        "folder": str(path),
        **{name: getattr(record, name) for name in names},
    }


def _show_backup(path: Path, record: Backup) -> None:
    console.print(
        f"Backed up to {path}: the database ({gib(record.database_bytes)}), {record.events:,} "
        f"audit events and {record.files:,} files, {gib(record.new_bytes)} of them new.",
        soft_wrap=True,
    )
    console.print(
        "Not included, so back them up separately: the secrets, the second place of the audit log, "
        "MLflow's database, intakes in quarantine, uploads in progress, and files of batches.",
        soft_wrap=True,
    )


@app.command("list")
@json_option
def list_(folder: Annotated[Path, typer.Argument(help="Folder of the backups.")]) -> Answer:
    """List the backups in a folder, newest first."""
    with prepared():
        from assay.backups import backup

        rows = [_summary(path, record) for path, record in backup.backups(folder)]
    return listing(
        rows,
        {
            "backup": "name",
            "release": "assay",
            "database": lambda row: gib(row["database_bytes"]),
            "audit events": lambda row: f"{row['events']:,}",
            "files": lambda row: f"{row['files']:,}",
        },
        empty="This folder has no backups.",
    )


@app.command()
@json_option
def restore(
    folder: Annotated[Path, typer.Argument(help="Folder of one backup.")],
    accept_lost_events: Annotated[
        int, typer.Option(min=0, help="Number of events after the backup that may be lost.")
    ] = 0,
    other_secrets: Annotated[
        bool,
        typer.Option(
            "--other-secrets",
            help="Restore even if the secrets differ or the backup is not authentic.",
        ),
    ] = False,
    no_second_place: Annotated[
        bool,
        typer.Option(
            "--i-have-no-second-place",
            help="Restore without a record of what was revoked after the backup.",
        ),
    ] = False,
) -> Answer:
    """Restore a backup into an empty database, and verify that the audit log is complete.

    Ends all sessions. Nothing serves until a controller has confirmed it again. If the restoration
    is interrupted, run it again.
    """
    with prepared(), progress_bar() as bar:
        from assay.backups.restore import restore as run

        task = bar.add_task("", total=None)
        done = run(
            folder,
            accept_lost_events=accept_lost_events,
            other_secrets=other_secrets,
            no_second_place=no_second_place,
            step=lambda name: bar.update(task, description=name),
            progress=lambda entry: bar.update(task, advance=1),
        )
    data = {**asdict(done), "backup": _summary(folder, done.backup)}
    return Answer(data, lambda: _show_restored(done))


def _show_restored(done: Restored) -> None:
    console.print(
        f"Restored the backup of {done.backup.made_at} with {done.files:,} files. "
        f"{done.log.message}",
        soft_wrap=True,
    )
    if done.second_place:
        console.print(f"Compared with the second place {done.second_place}.", soft_wrap=True)
    else:
        console.print(
            "[red]Not compared with a second place:[/] what was revoked or recalled after the "
            "backup is in force again.",
            soft_wrap=True,
        )
    for witness in done.silent:
        errors.print(
            f"Not compared with a witness: {witness}.",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    if done.lost:
        console.print(
            f"[red]{done.lost:,} events after the backup are lost.[/] Before you start the "
            "controller, repeat their revocations and recalls.",
            soft_wrap=True,
        )
    if done.missing:
        console.print(
            f"[red]{done.missing:,} required files are missing;[/] `assay store fsck` lists them.",
            soft_wrap=True,
        )
    console.print("Now start the controller, then `assay store fsck` and `assay doctor`.")
