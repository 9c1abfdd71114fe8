"""Progress of jobs and deployments, on stderr until they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from assay.cli.client import Client
from assay.cli.output import Answer, CliError, errors, sentence

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Draws words, a note, total and done; prints a line above.
Bar = Callable[..., None]
OVER = frozenset({"succeeded", "failed", "canceled", "dead"})
POLL_S = 0.5


def follow_job(client: Client, job_id: str, *, log: bool = True) -> Answer:
    """Show a job's progress until it ends, and that of the evaluations which follow it.

    Raises:
        CliError: the job did not succeed, or a step that follows it was stopped.
    """
    with _stopping_leaves(f"`assay jobs watch {job_id}` follows it again."), _progress() as bar:
        job = _until_over(client, job_id, bar, log=log)
        _require_success(job)
        for position in range(len(job["then"])):
            step = _until(partial(_started, client, job_id, position))
            if step["job"] is None:
                raise CliError(f"The evaluation after {job['title']} was stopped.", step["reason"])
            _require_success(_until_over(client, step["job"], bar, log=log))
    created = next((f"{kind} {job[kind]}" for kind in ("version", "evaluation") if job[kind]), "")
    return sentence(job, f"{job['title']}: succeeded{f', created {created}.' if created else '.'}")


def follow_deployment(client: Client, deployment_id: int) -> Answer:
    """Show a deployment's progress until it serves.

    Raises:
        CliError: it was refused or stopped.
    """
    with _stopping_leaves(f"`assay deployments show {deployment_id}`."), _progress() as bar:

        def settled() -> dict[str, Any] | None:
            row: dict[str, Any] = client.get(f"deployments/{deployment_id}")
            said = row["message"] or ", ".join(
                f"{each['worker']} {each['state']}" for each in row["replicas"]
            )
            bar(f"{row['name']} · {row['state']}", said)
            return row if row["state"] != "pending" else None

        deployment = _until(settled)
    name, where = deployment["name"], f"deployment {deployment['id']}"
    if deployment["state"] != "serving":
        raise CliError(f"{name} ({where}) is {deployment['state']}.", deployment["message"])
    return sentence(deployment, f"{name} serves {deployment['version']['name']} ({where}).")


@contextmanager
def _progress() -> Iterator[Bar]:
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
        yield _drawing(progress, task)


def _drawing(progress: Progress, task: TaskID) -> Bar:
    def draw(
        words: str, note: str = "", total: int | None = None, done: int = 0, line: str = ""
    ) -> None:
        if line:
            progress.console.print(line, markup=False, soft_wrap=True)
        if words:
            progress.update(task, description=words, total=total, completed=done, note=note)

    return draw


@contextmanager
def _stopping_leaves(hint: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise CliError("No longer following; the work goes on.", hint) from None


def _until_over(client: Client, job_id: str, bar: Bar, *, log: bool) -> dict[str, Any]:
    after, note, warned = 0, "", False
    while True:
        job: dict[str, Any] = client.get(f"jobs/{job_id}")
        page = client.get(f"jobs/{job_id}/events", after=after, limit=500)
        after = page["last"]
        for warning in () if warned else job["warnings"]:
            bar("", line=f"Warning: {warning}")
        warned = True
        for event in page["results"]:
            note = _loss(event) or note
            if log and event["message"]:
                bar("", line=event["message"])
        done = job["progress"]
        words = f"{job['title']} · {done.get('phase') or job['state']}"
        bar(words, job["waits"] or note, done.get("total") or None, done.get("step") or 0)
        if job["state"] in OVER and not page["results"]:
            return job
        if not page["results"]:
            time.sleep(POLL_S)


def _until(read: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
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
