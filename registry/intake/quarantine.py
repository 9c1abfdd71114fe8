"""Quarantine of deliveries: a folder from which models are never loaded, with bounded contents."""

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
from registry.catalog.hosted import HOSTED_FILE
from registry.intake.bounded import check_bounded
from registry.intake.checks import Finding, Limits, check_names
from registry.storage import store


class DeliveredFile(Protocol):
    """One uploaded file from Django's upload handlers; `name` may contain slashes."""

    name: str | None
    size: int | None

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the file, in order."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery in quarantine: `files` is [{"name", "size", "sha256"}]."""

    folder: Path
    files: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def describes_hosted(self) -> bool:
        """Return whether the only file is the description of a hosted model."""
        return [file["name"] for file in self.files] == [HOSTED_FILE]

    @property
    def refusals(self) -> list[str]:
        """Return the messages of the failed checks."""
        return [finding.detail for finding in self.findings if not finding.passed]


@contextmanager
def quarantined(
    files: Sequence[DeliveredFile], limits: Limits, *, owner: str
) -> Iterator[Delivery]:
    """Write `files` to a scratch folder in quarantine and check them, for `owner`.

    The folder is removed at the end, unless the caller moved it.

    Raises:
        InvalidInput: the delivery has no files.
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
        # Files with unsafe names are not written; each is a finding.
        if name_findings := check_names(names):
            yield Delivery(folder=scratch, findings=name_findings)
            return
        _check_folders(names)
        written = _write(files, scratch, limits)
        findings = check_bounded(scratch, limits, owner=owner)
        yield Delivery(folder=scratch, files=written, findings=findings)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def keep(delivery: Delivery, intake_id: int) -> None:
    """Move a delivery to the folder that its checking job reads."""
    delivery.folder.rename(store.quarantine_folder(intake_id))


def discard(intake_id: int) -> None:
    """Delete the delivered files of an intake; their names, sizes and digests stay on record."""
    shutil.rmtree(store.quarantine_folder(intake_id), ignore_errors=True)


def _check_folders(names: Sequence[str]) -> None:
    """Raise InvalidInput for a file inside a file, before copying anything: an owner could repeat
    the delivery of uploads at no cost, and the server would copy gigabytes each time."""
    files = set(names)
    for name in names:
        for parent in PurePosixPath(name).parents:
            if str(parent) in files:
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
