"""Objects of the artifact store that rows of the database name.

Rows that name files: model versions (on which releases, dossiers and evidence packs are based),
intakes that were not rejected, indexes, dataset versions, document versions, exported months, and
the results of jobs that are not over. Add every new table that names files here; garbage collection
removes all other objects.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from governance.errors import InvalidInput, Unavailable
from governance.retention.models import ArchivedMonth
from registry.datasets.models import DatasetVersion
from registry.intake.models import Intake, IntakeState
from registry.knowledge.models import DocumentVersion, KnowledgeIndex
from registry.manifests import Manifest
from registry.storage import store
from registry.storage.backend import Hashing, StoreUnavailable, file_key, record_key
from registry.versions.models import ModelVersion
from workers.jobs.models import Job, JobState

logger = logging.getLogger(__name__)
# The damage of a list that cannot be read.
UNREADABLE = "cannot be read"
_OVER = (JobState.SUCCEEDED, JobState.FAILED, JobState.DEAD, JobState.CANCELED)


@dataclass(frozen=True, slots=True)
class Need:
    """One object that must be in the store: its size in bytes, if known, and its owner.

    `damage` describes the fault of a record, whose name does not contain its SHA-256.
    """

    key: str
    size: int | None
    owner: str
    damage: str = ""


class Unknowable(Unavailable):
    """The needed files cannot be determined, because rows or lists cannot be read (503)."""

    code = "store_needs_unknown"


def store_needs(*, strict: bool = True) -> Iterator[Need]:
    """Yield every needed object, once for each of its owners.

    Raises:
        Unknowable: with `strict`, a manifest or a list of media cannot be read.
        StoreUnavailable: the store does not answer.
    """
    for owner, manifest in recorded_manifests():
        if manifest is not None:
            yield Need(file_key(manifest.digest), len(manifest.canonical), owner)
            for file in manifest.files:
                yield Need(file_key(file.sha256), file.size, owner)
        elif strict:
            raise Unknowable(f"The manifest of {owner} cannot be read; nothing was done.")
    yield from _data(strict)
    for pk, files in ArchivedMonth.objects.values_list("pk", "files").iterator():
        for file in files:
            yield Need(file_key(file["sha256"]), file["bytes"], f"exported month {pk}")
    for document in DocumentVersion.objects.select_related("document").iterator():
        owner = f"document version {document.pk} ({document})"
        yield Need(file_key(document.sha256), document.size_bytes, owner)
        yield Need(file_key(document.text_sha256), None, owner)


def recorded_manifests() -> Iterator[tuple[str, Manifest | None]]:
    """Yield a description of the owner and the manifest of every recorded manifest; None for a
    manifest that cannot be read."""
    versions = ModelVersion.objects.select_related("model").only(
        "number", "manifest", "model__name"
    )
    for version in versions.iterator():
        yield _read(f"version {version.pk} ({version})", version.manifest)
    intakes = Intake.objects.exclude(manifest=None).exclude(state=IntakeState.REJECTED)
    for pk, data in intakes.values_list("pk", "manifest").iterator():
        yield _read(f"intake {pk}", data)
    for pk, data in KnowledgeIndex.objects.values_list("pk", "manifest").iterator():
        yield _read(f"index {pk}", data)
    jobs = Job.objects.exclude(state__in=_OVER).exclude(result=None)
    for job, result in jobs.values_list("pk", "result").iterator():
        if isinstance(result, dict) and result.get("manifest") is not None:
            yield _read(f"job {job}", result["manifest"])


def _data(strict: bool) -> Iterator[Need]:
    recorded: dict[str, set[str]] = {}
    lists = DatasetVersion.objects.exclude(media_list_sha256="")
    for digest, sha256 in lists.values_list("digest", "media_list_sha256").iterator():
        recorded.setdefault(digest, set()).add(sha256)
    fields = ("number", "digest", "size_bytes", "profile", "dataset__name")
    for data in DatasetVersion.objects.select_related("dataset").only(*fields).iterator():
        owner = f"dataset version {data.pk} ({data})"
        yield Need(file_key(data.digest), data.size_bytes, owner)
        if not data.profile.get("media"):
            continue
        names, fault = _media(data, recorded.get(data.digest, set()), strict)
        if fault and strict:
            raise Unknowable(
                f"The list of the media of {owner} {fault}; nothing was done.", hint=store.RESTORE
            )
        yield Need(record_key("media-lists", data.digest, ".tsv"), None, owner, damage=fault)
        for name in names:
            yield Need(file_key(name), None, owner)


def _media(data: DatasetVersion, recorded: set[str], strict: bool) -> tuple[set[str], str]:
    """Return the SHA-256s of a version's media, and the fault of their list.

    `recorded` holds the SHA-256 of each list of these rows. The rows also name the media, and are
    read if the list is damaged.

    Raises:
        StoreUnavailable: the list cannot be read, with `strict`; the store does not answer at all,
            without.
    """
    try:
        listing = store.media_list_read(data.digest)
        if listing.sha256 not in recorded:
            # Possibly only this machine's cache is damaged; read from the store.
            listing = store.media_list_read(data.digest, fresh=True)
    except FileNotFoundError:
        return _named_by_rows(data), "is missing"
    except (OSError, StoreUnavailable) as error:
        if strict and isinstance(error, StoreUnavailable):
            raise
        store.backend().check()
        return _named_by_rows(data), UNREADABLE
    if listing.sha256 in recorded and listing.names is not None:
        return listing.names, ""
    fault = "does not match its recorded SHA-256"
    return (listing.names or set()) | _named_by_rows(data), fault


def _named_by_rows(data: DatasetVersion) -> set[str]:
    """Return the media that a version's rows name; none if the rows are missing or damaged."""
    names, hashing = set(), Hashing()
    try:
        with store.file_open(data.digest) as rows:
            for line in rows:
                hashing.update(line)
                row = json.loads(line)
                names |= {row[name] for name in data.profile["media"] if row.get(name)}
    except (OSError, StoreUnavailable, ValueError, TypeError, AttributeError):
        return set()
    return names if hashing.sha256 == data.digest else set()


def _read(owner: str, data: Any) -> tuple[str, Manifest | None]:
    try:
        return owner, Manifest.from_json(data)
    except InvalidInput:
        return owner, None
