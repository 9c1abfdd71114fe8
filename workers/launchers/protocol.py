"""Protocol of launchers, which start `workers.run` on a folder and report its end."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry.manifests import open_beneath
from workers.run.order import LOG_FILE, Resources

LOG_LINES = 40
LOG_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """The end of a run's process. A negative exit status is the signal that ended it.

    `detail` describes the status. `sentence` is the full reason, if the launcher knows it. `retry`
    is false if another attempt would end the same way.
    """

    status: int
    detail: str = ""
    sentence: str = ""
    retry: bool = True

    @property
    def killed(self) -> bool:
        """Return true if SIGKILL ended the process, as it does when memory runs out."""
        return self.status == -signal.SIGKILL

    @property
    def reason(self) -> str:
        """Description of the status."""
        if self.detail:
            return self.detail
        if self.status < 0:
            return f"signal {-self.status}"
        return f"status {self.status}"


class Launcher(Protocol):
    """Starts runs. `poll_s` is the interval between polls, in seconds."""

    poll_s: float

    def submit(self, folder: Path, resources: Resources) -> str:
        """Start the run in `folder`; return a handle.

        Repeating a call that raised Unavailable does not start a second run.

        Raises:
            InvalidInput: the run can never start with these resources.
            Unavailable: the run cannot be started now.
        """

    def poll(self, handle: str) -> ProcessExit | None:
        """Return the end of the run; None while it works or waits."""

    def works(self, handle: str) -> bool:
        """Return whether the run has started; False while it waits for machines."""

    def cancel(self, handle: str, *, kill: bool = False) -> None:
        """Send SIGTERM, for a checkpoint and the end. With `kill`, kill the run and its children.

        Raises:
            Unavailable: the run cannot be signaled now.
        """

    def end_earlier(self, folder: Path) -> None:
        """End runs of earlier attempts of the job, which a dead supervisor may have left behind.

        Raises:
            Unavailable: an earlier run may still work.
        """

    def runs(self) -> dict[str, Path]:
        """Return the folders of all runs in the cluster by handle, including other workers' runs.

        Raises:
            Unavailable: the cluster did not answer.
        """

    def logs(self, handle: str) -> str:
        """Return the last lines that the run printed."""

    def forget(self, handle: str) -> None:
        """Release the resources of a run that is over."""


def out_of_memory(limited_by: str) -> ProcessExit:
    """Return the end of a run that reached its memory limit, as another attempt would too."""
    return ProcessExit(
        -signal.SIGKILL,
        sentence=f"The run reached its memory limit in {limited_by}. "
        "Request more memory (memory_gib), or use a smaller batch.",
        retry=False,
    )


def last_lines(folder: Path) -> str:
    """Return the last lines of a run's log in its folder."""
    try:
        with open_beneath(folder, LOG_FILE) as file:
            file.seek(max(0, file.seek(0, 2) - LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-LOG_LINES:])
