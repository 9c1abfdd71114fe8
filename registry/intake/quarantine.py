"""Writing a delivery where nothing loads it, bounded in bytes and files."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from django.conf import settings

from governance.errors import InvalidInput, TooLarge
from registry.intake.bounded import check_bounded
from registry.intake.checks import Finding, Limits, check_names
from registry.storage import store


class DeliveredFile(Protocol):
    """One uploaded file, as Django's upload handlers give it; `name` may hold slashes."""

    name: str | None
    size: int | None

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, in order."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as it lies in quarantine: `files` is [{"name", "size", "sha256"}]."""

    folder: Path
    files: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def refusals(self) -> list[str]:
        """Return the messages of the failed checks."""
        return [finding.detail for finding in self.findings if not finding.passed]


@contextmanager
def quarantined(
    files: Sequence[DeliveredFile], limits: Limits, *, owner: str
) -> Iterator[Delivery]:
    """Write `files` to a scratch folder in quarantine and check them, for `owner`.

    The folder is gone afterward, unless the caller moved it on.

    Raises:
        InvalidInput: no file at all.
        TooLarge: more files or bytes than `limits`.
        QuotaExceeded, Unavailable: too many deliveries are being checked.
    """
    if not files:
        raise InvalidInput("The delivery holds no file.", fields={"files": ["At least one file."]})
    if len(files) > limits.max_files:
        raise TooLarge(
            f"The delivery holds {len(files)} files; at most {limits.max_files} are accepted."
        )
    parent = Path(settings.DATA_DIR) / "quarantine"
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=parent))
    try:
        names = [file.name or "" for file in files]
        # A name that cannot be written safely is a finding, not a file.
        if refused := check_names(names):
            yield Delivery(folder=scratch, findings=refused)
            return
        _check_folders(names)
        written = _write(files, scratch, limits)
        findings = check_bounded(scratch, limits, owner=owner)
        yield Delivery(folder=scratch, files=written, findings=findings)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def keep(delivery: Delivery, intake_id: int) -> None:
    """Move a delivery to the place where the job that checks it looks."""
    delivery.folder.rename(store.quarantine_folder(intake_id))


def discard(intake_id: int) -> None:
    """Delete what an intake delivered; its names, sizes and digests stay on record."""
    shutil.rmtree(store.quarantine_folder(intake_id), ignore_errors=True)


def _check_folders(names: Sequence[str]) -> None:
    """Refuse a file in a file before anything is copied: uploads can be delivered again at no cost
    to their owner, and each time the server would copy gigabytes first."""
    known = set(names)
    for name in names:
        for parent in PurePosixPath(name).parents:
            if str(parent) in known:
                raise InvalidInput(
                    f"{parent} is the name of a file and of a folder in this delivery."
                )


def _write(files: Sequence[DeliveredFile], folder: Path, limits: Limits) -> list[dict[str, Any]]:
    total = 0
    written: list[dict[str, Any]] = []
    for file in files:
        name = file.name or ""
        target = folder / name
        digest, size = hashlib.sha256(), 0
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as output:
                for chunk in file.chunks():
                    size += len(chunk)
                    if total + size > limits.max_bytes:
                        raise TooLarge(
                            f"The delivery is larger than {limits.max_bytes} bytes.",
                            hint="ASSAY_INTAKE_MAX_BYTES sets the limit.",
                        )
                    digest.update(chunk)
                    output.write(chunk)
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidInput(
                f"{name} is the name of a file and of a folder in this delivery."
            ) from error
        total += size
        written.append({"name": name, "size": size, "sha256": digest.hexdigest()})
    return written
