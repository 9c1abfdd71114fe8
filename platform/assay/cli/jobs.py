"""`assay jobs`: list, watch, pause, resume and retry jobs."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from assay.cli.client import Client
from assay.cli.options import Limit
from assay.cli.output import CliError, console, state, table

app = typer.Typer(no_args_is_help=True, help="Jobs: fine-tunes, evaluations and other work.")
OVER = frozenset({"succeeded", "failed", "canceled", "dead"})
POLL_S = 0.5


@app.command("list")
def list_jobs(
    job_state: Annotated[str | None, typer.Option("--state", help="Filter by state.")] = None,
    limit: Limit = 25,
) -> None:
    """List the newest jobs."""
    client = Client.signed_in()
    filters = {"state": job_state} if job_state else {}
    table(
        ("id", "title", "state", "progress", "department", "created"),
        (
            (
                job["id"],
                job["title"],
                state(job["state"]),
                _share(job["progress"]),
                job["department"],
                job["created_at"],
            )
            for job in client.all("jobs", limit=limit, **filters)
        ),
        empty="No matching jobs that you may see.",
    )


@app.command()
def watch(
    job_id: Annotated[str, typer.Argument(help="The job's ID.")],
    log: Annotated[bool, typer.Option(help="Print the log, too.")] = True,
) -> None:
    """Follow a job until it ends; exit with 1 unless it succeeds."""
    job = follow(Client.signed_in(), job_id, log=log)
    result = next((f"{kind} {job[kind]}" for kind in ("version", "evaluation") if job[kind]), "")
    if job["state"] == "succeeded":
        end = f", created {result}." if result else "."
        console.print(f"{job['title']}: succeeded{end}", markup=False)
        return
    raise CliError(f"{job['title']}: {job['state']}.", job["error"])


@app.command()
def pause(job_id: Annotated[str, typer.Argument(help="The job's ID.")]) -> None:
    """Pause a job: a running one writes a checkpoint and stops."""
    job = Client.signed_in().post(f"jobs/{job_id}/pause")
    if job["state"] == "paused":
        console.print(f"{job['title']} is paused.", markup=False)
    else:
        console.print(f"{job['title']} writes a checkpoint and stops.", markup=False)


@app.command()
def resume(job_id: Annotated[str, typer.Argument(help="The job's ID.")]) -> None:
    """Queue a paused job again."""
    job = Client.signed_in().post(f"jobs/{job_id}/resume")
    where = f" {job['waits']}" if job["waits"] else ""
    console.print(f"{job['title']} is queued.{where}", markup=False)


@app.command()
def retry(job_id: Annotated[str, typer.Argument(help="The job's ID.")]) -> None:
    """Queue a failed job again, from its checkpoint where it has one."""
    job = Client.signed_in().post(f"jobs/{job_id}/retry")
    console.print(f"{job['title']} is queued as {job['id']}.", markup=False)


def follow(client: Client, job_id: str, *, log: bool) -> dict[str, Any]:
    """Show the job's progress until it ends; return the job in its last state."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[measured]}", markup=False),
        TimeElapsedColumn(),
    )
    after, loss, warned = 0, "", False
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("…", total=None, measured="")
        while True:
            job: dict[str, Any] = client.get(f"jobs/{job_id}")
            page = client.get(f"jobs/{job_id}/events", after=after, limit=500)
            after = page["last"]
            if not warned:
                for warning in job["warnings"]:
                    progress.console.print(f"Warning: {warning}", markup=False)
                warned = True
            for event in page["results"]:
                loss = _loss(event) or loss
                if log and event["message"]:
                    progress.console.print(event["message"], markup=False)
            _draw(progress, bar, job, loss)
            if job["state"] in OVER and not page["results"]:
                return job
            if not page["results"]:
                time.sleep(POLL_S)


def _draw(progress: Progress, bar: Any, job: dict[str, Any], loss: str) -> None:
    done = job["progress"]
    phase = done.get("phase") or job["state"]
    progress.update(
        bar,
        description=f"{job['title']} · {phase}",
        total=done.get("total") or None,
        completed=done.get("step") or 0,
        measured=loss,
    )


def _loss(event: dict[str, Any]) -> str:
    for name in ("loss", "train_loss", "eval_loss"):
        if isinstance(value := event["data"].get(name), (int, float)):
            return f"loss {value:.3f}"
    return ""


def _share(progress: dict[str, Any]) -> str:
    step, total = progress.get("step"), progress.get("total")
    return f"{step}/{total}" if step is not None and total else str(progress.get("phase", ""))
