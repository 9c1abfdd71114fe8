"""Follow jobs and deployments until they end, with their progress on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import typer

from assay.cli.client import Client
from assay.cli.output import INTERRUPTED, Answer, CliError, errors, sentence

# Updates the description, note, total or completed steps of a progress bar.
Update = Callable[..., None]
ENDED = frozenset({"succeeded", "failed", "canceled", "dead"})
POLL_S = 0.5


def follow_job(client: Client, job_id: str, *, log: bool = True) -> Answer:
    """Show a job's progress until it ends, and the progress of the evaluations after it.

    Raises:
        CliError: the job did not succeed, or a later step was stopped.
    """
    followed = [job_id]
    with interruptible(lambda: job_goes_on(followed[-1])), _progress() as update:
        job = _ended_job(client, job_id, update, log=log)
        _require_success(job)
        for position in range(len(job["then"])):
            step = _polled(partial(_started, client, job_id, position))
            if step["job"] is None:
                raise CliError(f"The evaluation after {job['title']} was stopped.", step["reason"])
            followed.append(step["job"])
            _require_success(_ended_job(client, step["job"], update, log=log))
    created = next((f"{kind} {job[kind]}" for kind in ("version", "evaluation") if job[kind]), "")
    return sentence(job, f"{job['title']}: succeeded{f', created {created}.' if created else '.'}")


def follow_deployment(client: Client, deployment_id: int) -> Answer:
    """Show a deployment's progress until it serves.

    Raises:
        CliError: it was refused or stopped.
    """
    goes_on = (
        f"Deployment {deployment_id} continues to start. `assay deployments show {deployment_id}` "
        f"shows its state, `assay deployments stop {deployment_id} --reason …` stops it."
    )
    with interruptible(lambda: goes_on), _progress() as update:

        def settled() -> dict[str, Any] | None:
            row: dict[str, Any] = client.get(f"deployments/{deployment_id}")
            note = row["message"] or ", ".join(
                f"{each['worker']} {each['state']}" for each in row["replicas"]
            )
            update(description=f"{row['name']} · {row['state']}", note=note)
            return row if row["state"] != "pending" else None

        deployment = _polled(settled)
    name, where = deployment["name"], f"deployment {deployment['id']}"
    if deployment["state"] != "serving":
        raise CliError(f"{name} ({where}) is {deployment['state']}.", deployment["message"])
    return sentence(deployment, f"{name} serves {deployment['version']['name']} ({where}).")


@contextmanager
def _progress() -> Iterator[Update]:
    # Imported when something is followed, so that other commands start sooner.
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("…", total=None, note="")
        yield partial(progress.update, task)


@contextmanager
def interruptible(goes_on: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C end the command with a sentence about the work, which the server continues."""
    try:
        yield
    except KeyboardInterrupt:
        # Not printed by `errors`, whose buffer may hold a line that the interrupt cut.
        typer.echo(goes_on(), err=True)
        raise typer.Exit(INTERRUPTED) from None


def job_goes_on(job_id: str) -> str:
    """Return the sentence about a job that is no longer followed."""
    return (
        f"Job {job_id} goes on. `assay jobs watch {job_id}` follows it, "
        f"`assay jobs cancel {job_id}` cancels it."
    )


def _ended_job(client: Client, job_id: str, update: Update, *, log: bool) -> dict[str, Any]:
    after, note, warned = 0, "", False
    while True:
        job: dict[str, Any] = client.get(f"jobs/{job_id}")
        page = client.get(f"jobs/{job_id}/events", after=after, limit=500)
        after = page["last"]
        for warning in () if warned else job["warnings"]:
            _print_above(f"Warning: {warning}")
        warned = True
        for event in page["results"]:
            note = _loss(event) or note
            if log and event["message"]:
                _print_above(event["message"])
        progress = job["progress"]
        update(
            description=f"{job['title']} · {progress.get('phase') or job['state']}",
            note=job["waits"] or note,
            total=progress.get("total") or None,
            completed=progress.get("step") or 0,
        )
        if job["state"] in ENDED and not page["results"]:
            return job
        if not page["results"]:
            time.sleep(POLL_S)


def _print_above(line: str) -> None:
    """Print a line, which stays above the progress bar."""
    errors.print(line, markup=False, soft_wrap=True)


def _polled(read: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    while (row := read()) is None:
        time.sleep(POLL_S)
    return row


def _started(client: Client, job_id: str, position: int) -> dict[str, Any] | None:
    step: dict[str, Any] = client.get(f"jobs/{job_id}")["then"][position]
    return None if step["state"] == "waiting" else step


def _require_success(job: dict[str, Any]) -> None:
    if job["state"] != "succeeded":
        raise CliError(f"{job['title']}: {job['state']}.", job["error"])


def _loss(event: dict[str, Any]) -> str:
    for name in ("loss", "train_loss", "eval_loss"):
        if isinstance(value := event["data"].get(name), (int, float)):
            return f"loss {value:.3f}"
    return ""
