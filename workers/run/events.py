"""Events of a run: one JSON object per line in `FOLDER/events.jsonl`, written during the run.

A supervisor reads them as untrusted input: it checks sizes and types, and drops malformed lines.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from governance.errors import InvalidInput
from registry.manifests import build_manifest, open_beneath
from workers.run.failures import FaultyCode
from workers.run.order import CHECKPOINTS
from workers.run.storable import cleaned, storable

EVENTS_FILE = "events.jsonl"
MESSAGE_CHARACTERS = 1_000
POINTS_PER_RUN = 2_000
# A checkpoint's event carries its manifest.
MAX_LINE_BYTES = 4 * 1024**2
MAX_EVENTS_BYTES = 64 * 1024**2
MAX_VALUES = 64
MAX_CHECKPOINTS = 64
CHECKPOINT_NAME = r"^checkpoint-[0-9]{1,12}$"
_CHECKPOINT = re.compile(r"checkpoint-[0-9]{1,12}")
# Minimum interval between points that only update the progress.
_MOVES_S = 0.25
CheckpointName = Annotated[str, Field(pattern=CHECKPOINT_NAME)]
ValueName = Annotated[str, Field(min_length=1, max_length=80)]


class _Event(BaseModel):
    """An event whose text and numbers the database can store."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        return storable(value)


class Log(_Event):
    """One line for people; they must not miss a warning."""

    event: Literal["log"] = "log"
    message: str
    warning: bool = False


class Metric(_Event):
    """One point of the curves, or only the progress if `values` is empty."""

    event: Literal["metric"] = "metric"
    step: int = Field(ge=0, le=2**31 - 1)
    total: int = Field(ge=0, le=2**31 - 1)
    values: dict[ValueName, float] = Field(default_factory=dict, max_length=MAX_VALUES)


class Phase(_Event):
    """The run's current activity in one or two words."""

    event: Literal["phase"] = "phase"
    name: str = Field(max_length=40)


class Checkpoint(_Event):
    """A complete checkpoint; `there` lists all checkpoints in the folder."""

    event: Literal["checkpoint"] = "checkpoint"
    name: CheckpointName
    manifest: dict[str, Any]
    there: tuple[CheckpointName, ...] = Field(max_length=MAX_CHECKPOINTS)


Event = Log | Metric | Phase | Checkpoint
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


class EventProgress:
    """Implements `workers.trainers.protocol.Progress`: writes events, and stops when `stop` is set.

    Keeps about 2,000 evenly spaced points of a run, and the last one.
    """

    def __init__(self, folder: Path, stop: threading.Event) -> None:
        self._file = (folder / EVENTS_FILE).open("ab", buffering=0)
        self._checkpoints = folder / CHECKPOINTS
        self._stop = stop
        self._lock = threading.Lock()
        self._moved = 0.0

    def close(self) -> None:
        """Close the file of events, which the work may already have closed."""
        with contextlib.suppress(OSError):
            self._file.close()

    def log(self, message: str) -> None:
        """Write one line for people."""
        self._write(Log(message=cleaned(message)[:MESSAGE_CHARACTERS]))

    def warn(self, message: str) -> None:
        """Write one line that people must not miss."""
        self._write(Log(message=cleaned(message)[:MESSAGE_CHARACTERS], warning=True))

    def metric(self, step: int, total: int, values: dict[str, float]) -> None:
        """Write one point of the curves, or only the progress."""
        every = max(1, math.ceil(total / POINTS_PER_RUN))
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        point = finite if step % every == 0 or step >= total else {}
        now = time.monotonic()
        # Always write the last step, or a finished run would seem unfinished.
        if not point and step < total and now - self._moved < _MOVES_S:
            return
        self._moved = now
        self._write(Metric(step=step, total=total, values=point))

    def enter(self, phase: str) -> None:
        """Report the run's current activity in one or two words."""
        self._write(Phase(name=phase))

    def checkpoint(self, folder: Path) -> None:
        """Report a complete checkpoint with the manifest of its files. Raises FaultyCode."""
        there = _checked(folder, self._checkpoints)
        try:
            manifest = build_manifest(folder).to_json()
        except InvalidInput as error:
            raise FaultyCode(
                f"The checkpoint {folder.name} cannot be kept. {error.message}"
            ) from error
        event = Checkpoint(name=folder.name, manifest=manifest, there=tuple(there))
        if len(event.model_dump_json()) > MAX_LINE_BYTES:
            raise FaultyCode(
                f"The checkpoint {folder.name} has too many files to be kept. Write fewer and "
                "larger ones."
            )
        self._write(event)

    def should_stop(self) -> bool:
        """Return whether the run was requested to stop."""
        return self._stop.is_set()

    def _write(self, event: Event) -> None:
        line = event.model_dump_json().encode() + b"\n"
        with self._lock:
            self._file.write(line)


def _checked(folder: Path, checkpoints: Path) -> list[str]:
    """Return the names of all checkpoints, including the reported one. Raises FaultyCode."""
    if not _CHECKPOINT.fullmatch(folder.name):
        raise FaultyCode(
            f"The recipe reported a checkpoint called {folder.name[:80]!r}. Name the folder "
            "`checkpoint-` and a number of up to 12 digits, such as checkpoint-100."
        )
    if folder.is_symlink() or not folder.is_dir():
        raise FaultyCode(
            f"The recipe reported the checkpoint {folder.name}, which is not a folder. Report it "
            "after it is written."
        )
    if folder.resolve().parent != checkpoints.resolve():
        raise FaultyCode(
            f"The recipe wrote the checkpoint {folder.name} into another folder. Write it into "
            "`request.checkpoints`."
        )
    there = sorted(
        path.name
        for path in folder.parent.iterdir()
        if path.is_dir() and _CHECKPOINT.fullmatch(path.name)
    )
    if len(there) > MAX_CHECKPOINTS:
        raise FaultyCode(
            f"The recipe keeps {len(there)} checkpoints; {MAX_CHECKPOINTS} are kept at most. "
            "Remove older ones."
        )
    return there


class SilentProgress:
    """Implements `workers.trainers.protocol.Progress` for the processes that do not report."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def log(self, message: str) -> None:
        """Drop the line, because rank 0 writes the same."""

    def warn(self, message: str) -> None:
        """Drop the line."""

    def metric(self, step: int, total: int, values: dict[str, float]) -> None:
        """Drop the point."""

    def enter(self, phase: str) -> None:
        """Drop the phase."""

    def checkpoint(self, folder: Path) -> None:
        """Drop the report."""

    def close(self) -> None:
        """Do nothing."""

    def should_stop(self) -> bool:
        """Return whether this process was requested to stop."""
        return self._stop.is_set()


class EventReader:
    """Reads the events of a run while the run writes them.

    `malformed` counts dropped lines. `excess` is set if the run has written more than the limit;
    reading stops then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offset = 0
        self._rest = b""
        self._lines: deque[bytes] = deque()
        self.malformed = 0
        self.excess = False

    def read(self) -> Iterator[Event]:
        """Yield new events; a caller may stop at any event and continue later."""
        while True:
            while self._lines:
                if (event := self._parsed(self._lines.popleft())) is not None:
                    yield event
            if not (part := self._more()):
                return
            *lines, self._rest = (self._rest + part).split(b"\n")
            self._lines.extend(lines)
            if len(self._rest) > MAX_LINE_BYTES or self._offset > MAX_EVENTS_BYTES:
                self.excess = True

    def _more(self) -> bytes:
        if self.excess:
            return b""
        try:
            with open_beneath(self._folder, EVENTS_FILE) as file:
                file.seek(self._offset)
                part = file.read(1024**2)
        except FileNotFoundError:
            return b""
        self._offset += len(part)
        return part

    def _parsed(self, line: bytes) -> Event | None:
        if len(line) <= MAX_LINE_BYTES:
            try:
                return _EVENT.validate_json(line)
            except ValidationError:
                pass
        self.malformed += 1
        return None
