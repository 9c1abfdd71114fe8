"""Jobs with progress bars."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
from tqdm.auto import tqdm

from ..api.jobs import job_cancel_post, job_events_get, job_get
from ..models import JobDetailAnswer, JobEventAnswer
from .errors import RequestRefused
from .rows import Rows, pandas_module

if TYPE_CHECKING:
    from pandas import DataFrame

    from .assay import Assay

ENDED = frozenset({"succeeded", "failed", "canceled", "dead"})
# Pauses between tries while the server cannot be reached, such as during an upgrade.
PAUSES_S = (1, 2, 4, 8, 15, 30, 60)


class JobFailed(Exception):
    """Failure or cancellation of a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(f"{job.title} ended {job.state}. {job.error}".strip())


class Job:
    """Job as it was last read, with the attributes of `JobDetailAnswer`, such as `state`."""

    def __init__(self, assay: Assay, answer: JobDetailAnswer) -> None:
        self._assay = assay
        self.answer = answer

    def __getattr__(self, name: str) -> Any:
        # `answer` is not set yet while an object is unpickled.
        if name == "answer":
            raise AttributeError(name)
        return getattr(self.answer, name)

    def __repr__(self) -> str:
        progress = self.answer.progress or {}
        step, total = progress.get("step", 0), progress.get("total")
        steps = f" {step}/{total}" if total else ""
        return f"<Job {self.id}: {self.title}, {self.state}{steps}>"

    @property
    def ended(self) -> bool:
        """True once the job's state is final."""
        return self.answer.state in ENDED

    def refresh(self) -> Job:
        """Read the job again."""
        self.answer = self._assay.call(job_get, job_id=self.answer.id)
        return self

    def wait(
        self, *, poll_s: float = 1.0, timeout_s: float | None = None, progress: bool = True
    ) -> Job:
        """Show the job's progress until it ends. Interrupting this does not stop the job.

        Raises:
            JobFailed: it failed or was canceled.
            TimeoutError: it has not ended within `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        with tqdm(desc=self.title, unit="step", disable=not progress) as bar:
            while True:
                _show(bar, self.answer)
                if self.ended:
                    break
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(f"{self.title} has not ended; it is {self.state}.")
                time.sleep(poll_s)
                self._refresh_patiently()
        if self.state != "succeeded":
            raise JobFailed(self)
        return self

    def _refresh_patiently(self) -> None:
        for pause_s in PAUSES_S:
            try:
                self.refresh()
                return
            except (httpx.TransportError, json.JSONDecodeError):
                pass  # A proxy may answer in HTML.
            except RequestRefused as refused:
                if refused.problem.status not in {429, 502, 503, 504}:
                    raise
            time.sleep(pause_s)
        self.refresh()

    def cancel(self) -> Job:
        """Request the job's cancellation."""
        self._assay.call(job_cancel_post, job_id=self.answer.id)
        return self.refresh()

    def events(self) -> Rows[JobEventAnswer]:
        """Return the lines of the job's log and the points of its curves, in order."""
        rows: list[JobEventAnswer] = []
        last = 0
        while True:
            page = self._assay.call(job_events_get, job_id=self.answer.id, after=last)
            if not page.results:
                return Rows(rows)
            rows += page.results
            last = page.last

    def curves(self) -> DataFrame:
        """Return a data frame of the job's measurements, such as its loss, by step."""
        points = [event for event in self.events() if event.step is not None and event.data]
        rows = [{"step": point.step, **point.data} for point in points]
        frame: DataFrame = pandas_module().DataFrame(rows, columns=None if rows else ["step"])
        # Training and validation report the same step in two points.
        return frame.groupby("step").last()

    def following(self) -> list[Job]:
        """Return the evaluations of `then` that have started."""
        return [self._assay.job(link.job) for link in self.answer.then if link.job]


def _show(bar: tqdm[Any], job: JobDetailAnswer) -> None:
    progress = job.progress or {}
    step, total = progress.get("step") or 0, progress.get("total") or None
    if job.state == "succeeded" and total:
        step = total
    bar.total, bar.n = total, step
    bar.set_postfix_str(job.waits or progress.get("phase") or job.state, refresh=False)
    bar.refresh()
