"""Pages of the rows of a dataset version: bounded, and masked by default.

Columns with signs of personal data are masked as a whole, because data that is personal by its
meaning often occurs next to what a pattern finds. All columns are masked if that search was never
recorded. Images, recordings and videos are always hidden, because faces and voices are personal.

Masked columns are neither searched nor sorted, because the matching rows would reveal their text.
The same holds for rows and ends of texts that were not checked for personal data.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from django.db import transaction
from pydantic import BaseModel

from governance.audit.services import audit_record
from governance.errors import NotFound, Unavailable
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from registry.catalog import get_row_kind
from registry.catalog.columns import column_kinds, media_columns
from registry.catalog.passages import passage_columns
from registry.datasets.cells import FEATURES, Cell, row_cells
from registry.datasets.media_files import MediaRecord
from registry.datasets.models import DatasetVersion
from registry.datasets.personal import MAX_CHARACTERS
from registry.datasets.rows import ROWS, SORTED_MAX, Scope, rows_read
from registry.datasets.schemas import RowsQuery
from registry.datasets.selectors import dataset_version_get
from registry.datasets.stored import media_records
from registry.datasets.tables import MAX_ROW_BYTES
from registry.manifests import ManifestMismatch
from registry.resources import acting_person, dataset_resource, dataset_version_subject
from registry.storage import store

# Kinds of columns by which rows can be sorted.
_SORTED = {"string", "integer", "number", "boolean", "array", "series"}


@dataclass(frozen=True, slots=True)
class RowsPreview:
    """A page of rows, each the cells of the `columns`, and their `numbers` in the file. Texts of
    `masked` columns are unreadable; files of `hidden` columns are described but not shown. If
    `unmasked`, an event records that the person views these rows.

    `query` has the text, order and position that apply; `searched` and `sorts` are the columns that
    can be searched and sorted. After the first `checked` rows, all texts are masked. If time ran
    out (`cut`), only the first `read` rows of the file count.
    """

    columns: list[str]
    rows: list[list[Cell]]
    total: int
    masked: list[str]
    hidden: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    unmasked: bool = False
    query: RowsQuery = field(default_factory=RowsQuery)
    matches: int = 0
    checked: int = 0
    read: int = 0
    cut: bool = False
    searched: list[str] = field(default_factory=list)
    sorts: list[str] = field(default_factory=list)

    @property
    def numbered(self) -> list[tuple[int, list[Cell]]]:
        """Return the rows with their numbers."""
        return list(zip(self.numbers, self.rows, strict=True))

    @property
    def last(self) -> int:
        """Position of the last row of the page."""
        return self.query.row + len(self.rows) - 1

    @property
    def listed(self) -> int:
        """Number of matches that pages reach."""
        return min(self.matches, SORTED_MAX) if self.query.sort else self.matches

    @property
    def next(self) -> int | None:
        """Position of the next page's first row; None on the last page."""
        return self.last + 1 if self.rows and self.last < self.listed else None

    @property
    def previous(self) -> int | None:
        """Position of the previous page's first row; None on the first page."""
        return max(1, self.query.row - ROWS) if self.query.row > 1 else None

    @property
    def unchecked(self) -> int:
        """Number of rows that are masked because they were not checked for personal data."""
        return self.total - self.checked


def rows_preview(version: DatasetVersion, query: RowsQuery | None = None) -> RowsPreview:
    """Return a page of a version's rows with sensitive columns masked; callers check access.

    Raises:
        Unavailable, QuotaExceeded: as `rows_read`.
    """
    return _preview(version, query or RowsQuery(), unmasked=False)


def dataset_rows(*, actor: Principal, id: int, query: RowsQuery) -> RowsPreview:  # noqa: A002
    """Return a page of a version's rows with sensitive columns masked.

    Raises:
        NotFound: the version does not exist, or the actor may not see it; or the query needs a
            column that does not exist or is masked.
        Unavailable, QuotaExceeded: as `rows_read`.
    """
    version = dataset_version_get(actor=actor, id=id)
    _check_query(version, query, unmasked=False)
    return rows_preview(version, query)


def dataset_unmask(
    *,
    actor: Principal,
    id: int,  # noqa: A002
    query: RowsQuery | None = None,
) -> RowsPreview:
    """Return a page of a version's rows without masks, and record an audit event that names them.

    Raises:
        NotFound: the version does not exist, or the actor may not see it; or the query needs a
            column that does not exist.
        NotPermitted: the policy denies it, or the actor is not a person.
        Unavailable, QuotaExceeded: as `rows_read`.
    """
    version = dataset_version_get(actor=actor, id=id)
    decision = authorize(
        actor=actor, action=Action.DATASET_UNMASK, resource=dataset_resource(version.dataset)
    )
    acting_person(actor)
    query = query or RowsQuery()
    _check_query(version, query, unmasked=True)
    # Before the transaction, which would stay open during a long search.
    preview = _preview(version, query, unmasked=True)
    with transaction.atomic():
        audit_record(
            actor=actor,
            action=Action.DATASET_UNMASK,
            subject=dataset_version_subject(version),
            department=version.dataset.department.slug,
            # Without the text of a search, which may be personal.
            data={
                "digest": version.digest,
                "rows": len(preview.rows),
                "numbers": preview.numbers,
            },
            decision=decision,
        )
    return preview


@dataclass(frozen=True, slots=True)
class OpenedMedia:
    """The bytes of a file, or of its small picture."""

    data: bytes
    content_type: str


def dataset_media_open(
    *,
    actor: Principal,
    id: int,  # noqa: A002
    sha256: str,
    small: bool = False,
    mask: bool = False,
) -> OpenedMedia:
    """Return a file that a version's rows name, or its small picture, which is in colors for a
    `mask`. The caller has checked that the actor unmasked the rows a short time ago. The unmasking
    is the audit event; opening a file does not record another one.

    Raises:
        NotFound: the actor may not see the version, or its rows do not name the file.
        NotPermitted: the policy denies it, or the actor is not a person.
        Unavailable: the file is missing from the store, or was changed there.
    """
    version = dataset_version_get(actor=actor, id=id)
    authorize(actor=actor, action=Action.DATASET_UNMASK, resource=dataset_resource(version.dataset))
    acting_person(actor)
    record = media_records(version, {sha256}).get(sha256)
    if record is None:
        raise NotFound("The rows of this version do not name the file.")
    return media_open(version, record, small=small, mask=mask)


def media_open(
    version: DatasetVersion, record: MediaRecord, *, small: bool = False, mask: bool = False
) -> OpenedMedia:
    """Return the bytes of a file of a version, or of its small picture; the caller has checked
    access.

    Raises:
        Unavailable: the file is missing from the store, or was changed there.
    """
    sha256 = record.media.sha256
    try:
        if small and record.media.kind in ("image", "video"):
            with suppress(FileNotFoundError):
                data = store.preview_bytes(sha256, mask=mask)
                return OpenedMedia(data, "image/png" if mask else "image/jpeg")
        data = store.file_bytes(sha256)
    except FileNotFoundError as error:
        raise Unavailable(
            f"A file of {version} is not in the artifact store.",
            hint=store.RESTORE,
        ) from error
    except ManifestMismatch as error:
        raise Unavailable(
            f"A file of {version} in the artifact store was changed.", hint=store.RESTORE
        ) from error
    return OpenedMedia(data, record.media.content_type)


def _columns(version: DatasetVersion) -> list[str]:
    return list(_row(version).model_fields)


def _media_columns(version: DatasetVersion) -> list[str]:
    return list(media_columns(_row(version)))


def _row(version: DatasetVersion) -> type[BaseModel]:
    return get_row_kind(version.dataset.task, version.dataset.row_kind).row


def _masked_columns(version: DatasetVersion) -> list[str]:
    personal = version.profile.get("personal")
    media = _media_columns(version)
    if personal is None:
        return [column for column in _columns(version) if column not in media]
    # A message's text is recorded as `messages of the user`.
    personal_columns = {name.partition(" of the ")[0] for name in personal["columns"]}
    return [column for column in _columns(version) if column in personal_columns]


def _sorts(version: DatasetVersion, visible: list[str]) -> list[str]:
    """Return the visible columns by which rows can be sorted; features as `<column>.<feature>`."""
    kinds = column_kinds(_row(version))
    features = tuple(f"{name}." for name in visible if kinds[name] == "features")
    names = [name for name in visible if kinds[name] in _SORTED]
    profiled = version.profile.get("columns", {}) if features else {}
    return names + [name for name in profiled if name.startswith(features)][:FEATURES]


def _searchable(version: DatasetVersion, *, unmasked: bool) -> list[str]:
    """Return the columns with texts that the viewer may read."""
    masked = [] if unmasked else _masked_columns(version)
    passages = passage_columns(_row(version))
    return [
        name
        for name in _columns(version)
        if name not in (*masked, *_media_columns(version)) and passages.get(name) not in masked
    ]


def _check_query(version: DatasetVersion, query: RowsQuery, *, unmasked: bool) -> None:
    """Raise NotFound if a part of the query would have no effect."""
    visible = _searchable(version, unmasked=unmasked)
    if query.q and not visible:
        raise NotFound(
            f"{version} has no column that you can search.",
            hint="Masked columns and files are not searched.",
        )
    sorts = _sorts(version, visible)
    if query.sort and query.sort not in sorts:
        raise NotFound(
            f"{version} has no column {query.sort[:60]!r} by which you can sort.",
            hint=f"Sort by {', '.join(sorts)}." if sorts else "Masked columns are not sorted.",
        )


def _preview(version: DatasetVersion, query: RowsQuery, *, unmasked: bool) -> RowsPreview:
    columns, media = _columns(version), _media_columns(version)
    masked = [] if unmasked else _masked_columns(version)
    hidden = [] if unmasked else media
    checked = version.rows if unmasked else _checked_rows(version)
    visible = _searchable(version, unmasked=unmasked)
    sorts = _sorts(version, visible)
    query = query.model_copy(
        update={
            "q": query.q if visible else "",
            "sort": query.sort if query.sort in sorts else "",
        }
    )
    name, _, feature = query.sort.partition(".")
    characters = MAX_ROW_BYTES if unmasked else MAX_CHARACTERS
    page = rows_read(
        version,
        query,
        Scope(visible, checked, characters),
        (name, feature) if query.sort else None,
    )
    rows = [row for _, row in page.rows]
    records = media_records(version, {str(row.get(column)) for row in rows for column in media})
    # Only pages in the order of the file have rows that were not checked, at their end.
    known = sum(number <= checked for number, _ in page.rows)
    texts = [column for column in columns if column not in media]
    return RowsPreview(
        columns,
        [
            *row_cells(_row(version), rows[:known], records, masked=masked, hidden=hidden),
            *row_cells(_row(version), rows[known:], records, masked=texts, hidden=hidden),
        ],
        version.rows,
        masked,
        hidden,
        numbers=[number for number, _ in page.rows],
        unmasked=unmasked,
        query=query,
        matches=page.matches,
        checked=checked,
        read=page.read,
        cut=page.cut,
        searched=visible,
        sorts=sorts,
    )


def _checked_rows(version: DatasetVersion) -> int:
    """Return the number of rows, from the first one, that were checked for personal data; all rows
    if the check was not recorded, because then all columns are masked."""
    personal = version.profile.get("personal")
    return version.rows if personal is None else min(personal["rows"], version.rows)
