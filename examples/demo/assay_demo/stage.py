"""State that the demo's steps share: the people's API clients, the materials, the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from openai import OpenAIError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from assay.local.stack import Stack
from assay_demo.authenticator import Authenticators
from assay_demo.client import Api, RequestRejected
from assay_demo.patience import NoAnswer

T = TypeVar("T")


class StepFailed(Exception):
    """An expected result did not happen."""


# Errors that make a step fail; clients' errors are OSError, too.
FAULTS = (StepFailed, RequestRejected, NoAnswer, OSError, httpx.HTTPError, OpenAIError)


def job_seconds(job: dict[str, Any]) -> float:
    """Return a job's run time in seconds, from its creation if no worker ran it."""
    started = datetime.fromisoformat(job["started_at"] or job["created_at"])
    return (datetime.fromisoformat(job["finished_at"]) - started).total_seconds()


@dataclass
class Stage:
    """The running demo. `facts` passes results between steps; `waited` is the total of seconds that
    watched jobs waited for workers."""

    console: Console
    stack: Stack
    folder: Path
    materials: dict[str, Path]
    people: dict[str, Api] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    waited: float = 0
    authenticators: Authenticators = field(init=False)

    def __getitem__(self, handle: str) -> Api:
        """Return the API client of one person."""
        return self.people[handle]

    def prove(self, handle: str) -> None:
        """Verify a person's identity with a second factor, which decisions require."""
        api = self[handle]
        self.authenticators.prove(handle, lambda code: api.post("auth/step-up", code=code))

    def say(self, text: str) -> None:
        """Print a result."""
        self.console.print(f"  [green]✓[/] {text}", soft_wrap=True)

    def detail(self, text: str) -> None:
        """Print a line that belongs to the result above it."""
        self.console.print(f"    [dim]{escape(text)}[/]", soft_wrap=True)

    def refused(self, text: str, error: RequestRejected) -> None:
        """Print a refusal that the step expected."""
        self.console.print(f"  [yellow]✗[/] {text} [dim]({error.status})[/]", soft_wrap=True)
        self.console.print(f"    [italic]{escape(error.detail)}[/]", soft_wrap=True)

    def expect(self, condition: bool, promise: str) -> None:
        """Raise StepFailed with `promise` unless `condition` is true."""
        if not condition:
            raise StepFailed(promise)

    def require(self, value: T | None, promise: str) -> T:
        """Return `value`; raise StepFailed with `promise` if it is None."""
        if value is None:
            raise StepFailed(promise)
        return value

    def expect_refusal(self, status: int, promise: str, call: Any) -> RequestRejected:
        """Make a call that must be refused with `status`, and return the refusal."""
        try:
            call()
        except RequestRejected as error:
            self.expect(
                error.status == status, f"{promise}: expected {status}, got {error.status} {error}"
            )
            self.refused(promise, error)
            return error
        raise StepFailed(f"{promise}: the call was not refused.")

    def watch(self, api: Api, job: dict[str, Any], label: str) -> dict[str, Any]:
        """Follow a job with a progress bar, and return it when it has succeeded."""
        columns = (
            TextColumn("  [progress.description]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        with Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        ) as progress:
            bar = progress.add_task(label, total=None, note="queued")
            started = time.monotonic()

            def show(state: dict[str, Any]) -> None:
                at = state.get("progress") or {}
                progress.update(
                    bar,
                    total=at.get("total") or None,
                    completed=at.get("step") or 0,
                    note=at.get("phase") or state["state"],
                )

            ended = api.watch_job(job["id"], show)
            self.waited += max(0.0, time.monotonic() - started - job_seconds(ended))
        self.expect(
            ended["state"] == "succeeded", f"{label} ended {ended['state']}: {ended.get('error')}"
        )
        return ended

    def wait_for(self, promise: str, probe: Any, timeout_s: float = 90) -> Any:
        """Poll `probe` until it returns a true value, and return the value."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.stack.check_alive()
            if value := probe():
                return value
            time.sleep(0.3)
        raise StepFailed(f"{promise}: not within {timeout_s:.0f} s.")

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        """Print a heading, and the chapter's duration at the end."""
        self.console.print(f"\n[bold cyan]{title}[/]")
        started = time.monotonic()
        yield
        self.console.print(f"  [dim]{time.monotonic() - started:.0f} s[/]")
