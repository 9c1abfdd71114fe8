"""A launcher starts `workers.run` on a folder, and reports its end."""

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
class Ended:
    """The end of a run's process: its exit status, negative for the signal that ended it.

    `detail` names the status in words. `sentence` is the whole reason, where the launcher knows it.
    `retry` is false where another attempt would end in the same way.
    """

    status: int
    detail: str = ""
    sentence: str = ""
    retry: bool = True

    @property
    def killed(self) -> bool:
        """True when it was killed, as the kernel does when memory runs out."""
        return self.status == -signal.SIGKILL

    @property
    def reason(self) -> str:
        """The status in words."""
        if self.detail:
            return self.detail
        if self.status < 0:
            return f"signal {-self.status}"
        return f"status {self.status}"


class Launcher(Protocol):
    """Starts runs. `poll_s` is the time between two polls, in seconds."""

    poll_s: float

    def submit(self, folder: Path, resources: Resources) -> str:
        """Start the run in `folder`; return a handle.

        A call that raised Unavailable may be repeated, and starts no second run.

        Raises:
            InvalidInput: it can never run with these resources.
            Unavailable: it cannot be started now.
        """

    def poll(self, handle: str) -> Ended | None:
        """Return how the run ended; None while it works or waits."""

    def works(self, handle: str) -> bool:
        """Return whether the run has started; False while it waits for machines."""

    def cancel(self, handle: str, *, kill: bool = False) -> None:
        """Send SIGTERM: checkpoint and end. With `kill`, end it and its children at once.

        Raises:
            Unavailable: it cannot be signaled now.
        """

    def end_earlier(self, folder: Path) -> None:
        """End runs of earlier attempts of the job, which a supervisor that died left behind.

        Raises:
            Unavailable: one may still work.
        """

    def runs(self) -> dict[str, Path]:
        """Return the folders of all runs in the cluster by handle, whoever started them.

        Raises:
            Unavailable: the cluster did not answer.
        """

    def logs(self, handle: str) -> str:
        """Return the last lines that the run printed."""

    def forget(self, handle: str) -> None:
        """Release what is kept of a run that is over."""


def out_of_memory(limited_by: str) -> Ended:
    """Return the end of a run that reached its limit of memory: the next attempt would, too."""
    return Ended(
        -signal.SIGKILL,
        sentence=f"The run reached its limit of memory in {limited_by}. "
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
