"""`assay jobs`: list, follow, compare, cancel, clone, pause, resume and retry jobs."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from assay.cli.client import Client, present
from assay.cli.comparing import comparison_of
from assay.cli.following import ENDED, POLL_S, follow_job, interruptible, job_goes_on
from assay.cli.options import (
    Follow,
    Limit,
    Resources,
    Settings,
    dataset_version_id,
    json_pairs,
    version_id,
)
from assay.cli.output import Answer, console, facts, json_option, listing, sentence, state

app = typer.Typer(no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="The job's ID.")]


@app.command("list")
@json_option
def list_jobs(
    job_state: Annotated[str | None, typer.Option("--state", help="Filter by state.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Filter by kind: intake, fine_tune, evaluate, prompt, index.")
    ] = None,
    department: Annotated[str | None, typer.Option(help="Filter by department.")] = None,
    limit: Limit = 25,
) -> Answer:
    """List the newest jobs."""
    return newest_jobs(limit, state=job_state, kind=kind, department=department)


def newest_jobs(limit: int, **filters: str | None) -> Answer:
    """Return the newest jobs that match the filters."""
    return listing(
        Client.signed_in().all("jobs", limit=limit, **filters),
        {
            "id": "id",
            "title": "title",
            "state": "state",
            "progress": lambda job: _steps(job["progress"]),
            "created": "created_at",
            "department": "department",
        },
        empty="No matching jobs that you may see.",
    )


@app.command()
@json_option
def show(job_id: JobId) -> Answer:
    """Show a job: its state, progress and result."""
    job = Client.signed_in().get(f"jobs/{job_id}")
    pairs: list[tuple[str, Any]] = [
        ("job", job["id"]),
        ("title", job["title"]),
        ("state", state(job["state"])),
        ("waits", job["waits"]),
        ("error", job["error"]),
        ("warnings", job["warnings"]),
        ("progress", _steps(job["progress"])),
        ("version", job["version"]),
        ("evaluation", job["evaluation"]),
        ("then", [each["job"] or each["reason"] or each["state"] for each in job["then"]]),
        ("department", job["department"]),
        ("priority", job["priority"]),
        ("worker", job["worker"]),
        ("requested by", job["created_by"]["name"]),
        ("created", job["created_at"]),
        ("started", job["started_at"]),
        ("finished", job["finished_at"]),
    ]
    return Answer(job, lambda: facts(pair for pair in pairs if pair[1] not in (None, "", [])))


@app.command()
@json_option
def compare(
    job_ids: Annotated[list[str], typer.Argument(help="IDs of 2 to 8 jobs.", metavar="JOB_ID...")],
) -> Answer:
    """Compare the settings, curves and measurements of up to 8 jobs."""
    return comparison_of(Client.signed_in(), job_ids)


@app.command()
@json_option
def watch(
    job_id: JobId,
    log: Annotated[bool, typer.Option(help="Print the log, too.")] = True,
) -> Answer:
    """Follow a job until it ends; exit with 1 unless it succeeds."""
    return follow_job(Client.signed_in(), job_id, log=log)


@app.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
) -> None:
    """Print a job's log on stdout."""
    client, after = Client.signed_in(), 0
    with interruptible(lambda: job_goes_on(job_id)):
        while True:
            page = client.get(f"jobs/{job_id}/events", after=after, limit=500)
            after = page["last"]
            for event in page["results"]:
                if event["message"]:
                    console.print(event["message"], markup=False, soft_wrap=True)
            if not page["results"]:
                if not follow or page["state"] in ENDED:
                    return
                sys.stdout.flush()
                time.sleep(POLL_S)


@app.command()
@json_option
def cancel(job_id: JobId) -> Answer:
    """Cancel a job; a running one stops within seconds."""
    job = Client.signed_in().post(f"jobs/{job_id}/cancel")
    end = "is canceled" if job["state"] == "canceled" else "stops"
    return sentence(job, f"{job['title']} {end}.")


@app.command()
@json_option
def clone(
    job_id: JobId,
    base: Annotated[
        str, typer.Option(help="Another base version: its ID, or MODEL:NUMBER. Fine-tunes only.")
    ] = "",
    version: Annotated[
        str, typer.Option(help="Another version: its ID, or MODEL:NUMBER. Evaluations only.")
    ] = "",
    data: Annotated[
        str, typer.Option(help="Another dataset version: its ID, DATASET:NUMBER, or DATASET.")
    ] = "",
    method: Annotated[str, typer.Option(help="Another method. Fine-tunes only.")] = "",
    settings: Settings = None,
    resources: Resources = None,
    max_rows: Annotated[
        int, typer.Option(min=0, help="Measure the first rows only. Evaluations only.")
    ] = 0,
    priority: Annotated[str, typer.Option(help="low, normal or high.")] = "",
    follow: Follow = False,
) -> Answer:
    """Queue the request of a fine-tune or evaluation again, with changes."""
    client = Client.signed_in()
    changes = present(
        base_version=version_id(client, base) if base else None,
        version=version_id(client, version) if version else None,
        dataset_version=dataset_version_id(client, data) if data else None,
        method=method,
        hyperparameters=json_pairs(settings),
        resources=json_pairs(resources),
        max_rows=max_rows or None,
        priority=priority,
    )
    return queued(client, client.post(f"jobs/{job_id}/clone", **changes), follow=follow)


@app.command()
@json_option
def pause(job_id: JobId) -> Answer:
    """Pause a job: a running one writes a checkpoint and stops."""
    job = Client.signed_in().post(f"jobs/{job_id}/pause")
    end = "is paused" if job["state"] == "paused" else "writes a checkpoint and stops"
    return sentence(job, f"{job['title']} {end}.")


@app.command()
@json_option
def resume(job_id: JobId, follow: Follow = False) -> Answer:
    """Queue a paused job again."""
    client = Client.signed_in()
    return queued(client, client.post(f"jobs/{job_id}/resume"), follow=follow)


@app.command()
@json_option
def retry(job_id: JobId, follow: Follow = False) -> Answer:
    """Queue a failed job again, from its checkpoint where it has one."""
    client = Client.signed_in()
    return queued(client, client.post(f"jobs/{job_id}/retry"), follow=follow)


def queued(client: Client, job: dict[str, Any], *, follow: bool) -> Answer:
    """Return a new job with its ID, or follow it until it ends."""
    if follow:
        return follow_job(client, job["id"])
    text = f"{job['title']} is {job['state']} as {job['id']}. {job.get('waits', '')}"
    return sentence(job, text.rstrip())


def _steps(progress: dict[str, Any]) -> str:
    step, total = progress.get("step"), progress.get("total")
    return f"{step}/{total}" if step is not None and total else str(progress.get("phase", ""))
