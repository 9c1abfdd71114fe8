"""Previews of the first rows of a dataset version: bounded, and masked by default.

Columns with signs of personal data are masked as a whole, because data that is personal by its
meaning often occurs next to what a pattern finds. All columns are masked if that search was never
recorded. Images, recordings and videos are always hidden, because faces and voices are personal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

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
from registry.catalog.regions import region_columns
from registry.catalog.series import moment_after
from registry.datasets.media_files import MediaRecord
from registry.datasets.models import DatasetVersion
from registry.datasets.overlays import Overlay, Overlays, counted_labels
from registry.datasets.selectors import dataset_version_get
from registry.datasets.stored import PREVIEW_ROWS, media_records
from registry.datasets.tables import MAX_ROW_BYTES
from registry.manifests import ManifestMismatch
from registry.media.checks import Media
from registry.resources import acting_person, dataset_resource, dataset_version_subject
from registry.storage import store

ROWS = PREVIEW_ROWS
# Maximum bytes to read of the file, and characters to show of one field.
READ_BYTES = 2 * MAX_ROW_BYTES
FIELD_CHARACTERS = 500
CHART_PARTS = 150
# Maximum features to show of one record.
FEATURES = 40
# All non-ASCII characters, because `\w` lacks the vowel signs of many scripts, and emoji.
_SIGN = re.compile(r"\w|[^\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text; a `marked` one may have a label."""

    text: str
    marked: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A field, one message of a conversation (`role`), or one feature of a record (`label`).
    `left_out` characters are not shown.

    `pieces` are the same text in parts if it has marked passages.
    """

    text: str
    role: str = ""
    left_out: int = 0
    pieces: tuple[Piece, ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """An image, recording or video. If `shown`, it may be opened while `address` is valid, and the
    mask in its overlay while `mask_address` is valid; the portal sets both."""

    media: Media
    shown: bool
    address: str = ""
    overlay: Overlay | None = None
    mask_address: str = ""

    @property
    def plays(self) -> bool:
        """Return whether it is a video that needs a player; browsers show animations as images."""
        return self.media.content_type.startswith("video/")


@dataclass(frozen=True, slots=True)
class Chart:
    """A line chart of a series: its `points` in an area of 300 by 60, and the axes' ranges."""

    points: str
    steps: int
    start: str
    end: str
    least: float
    most: float


Cell = list[Text | File | Chart]


@dataclass(frozen=True, slots=True)
class RowsPreview:
    """`rows` have the texts, files or charts of each cell, in the order of `columns`. Texts of
    `masked` columns are unreadable; files of `hidden` columns are described but not shown."""

    columns: list[str]
    rows: list[list[Cell]]
    total: int
    masked: list[str]
    hidden: list[str] = field(default_factory=list)


def rows_preview(version: DatasetVersion) -> RowsPreview:
    """Return the first rows of a version with sensitive columns masked; callers check access.

    Raises:
        Unavailable: its rows are missing from the store, or damaged.
    """
    return _preview(version, masked=_masked_columns(version), hidden=_media_columns(version))


@transaction.atomic
def dataset_unmask(*, actor: Principal, id: int) -> RowsPreview:  # noqa: A002
    """Return the first rows of a version without masks, and record an audit event.

    Raises:
        NotFound: the version does not exist, or the actor may not see it.
        NotPermitted: the policy denies it, or the actor is not a person.
        Unavailable: its rows are missing from the store, or damaged.
    """
    version = dataset_version_get(actor=actor, id=id)
    decision = authorize(
        actor=actor, action=Action.DATASET_UNMASK, resource=dataset_resource(version.dataset)
    )
    acting_person(actor)
    preview = _preview(version, masked=[], hidden=[])
    audit_record(
        actor=actor,
        action=Action.DATASET_UNMASK,
        subject=dataset_version_subject(version),
        department=version.dataset.department.slug,
        data={"digest": version.digest, "rows": len(preview.rows)},
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


def _preview(version: DatasetVersion, *, masked: list[str], hidden: list[str]) -> RowsPreview:
    columns, media = _columns(version), _media_columns(version)
    kinds = column_kinds(_row(version))
    regions = region_columns(_row(version))
    passages = passage_columns(_row(version))
    sample = _first_rows(version)
    records = media_records(version, {str(row.get(column)) for row in sample for column in media})

    overlays = Overlays(sample, regions, records)

    def cell(row: Mapping[str, Any], column: str) -> Cell:
        value = row.get(column)
        if column in media and value in records:
            is_shown = column not in hidden
            overlay = overlays.over(row, column, names_shown=not masked) if is_shown else None
            return [File(records[value].media, shown=is_shown, overlay=overlay)]
        if kinds[column] == "features" and value is not None:
            return _features(value, hide=column in masked)
        if kinds[column] == "series" and value is not None:
            return [_hidden(value) if column in masked else _chart(value)]
        if column in regions and isinstance(value, dict):
            return _texts(counted_labels(value), hide=column in masked)
        if column in passages:
            source = passages[column]
            return _marked(str(row.get(source)), value, hide=bool({column, source} & set(masked)))
        return _texts(value, hide=column in masked)

    rows = [[cell(row, column) for column in columns] for row in sample]
    return RowsPreview(columns, rows, version.rows, masked, hidden)


def _first_rows(version: DatasetVersion) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    read = 0
    try:
        with store.file_open(version.digest) as lines:
            while len(rows) < ROWS and read < READ_BYTES and (line := lines.readline(READ_BYTES)):
                read += len(line)
                rows.append(json.loads(line))
    except FileNotFoundError as error:
        raise Unavailable(
            f"The rows of {version} are not in the artifact store.",
            hint=store.RESTORE,
        ) from error
    except ValueError as error:
        raise Unavailable(
            f"The stored rows of {version} are damaged.", hint=store.RESTORE
        ) from error
    return rows


def _hidden(series: Mapping[str, Any]) -> Text:
    return Text(f"{len(series['values']):,} values")


def _chart(series: Mapping[str, Any]) -> Chart:
    values: list[float] = series["values"]
    least, most = min(values), max(values)
    # Keep the smallest and largest value of each part of a long series, to preserve all peaks.
    size = -(-len(values) // CHART_PARTS)
    extremes = [
        (at + offset, value)
        for at in range(0, len(values), size)
        for offset, value in _ends(values[at : at + size])
    ]
    wide, high = max(len(values) - 1, 1), (most - least) or 1
    points = " ".join(
        f"{300 * at / wide:.1f},{58 - 56 * (value - least) / high:.1f}" for at, value in extremes
    )
    try:
        end = moment_after(series["start"], series["frequency"], len(values) - 1)
    except OverflowError:
        end = ""
    return Chart(points, len(values), series["start"], end, least, most)


def _ends(values: list[float]) -> list[tuple[int, float]]:
    """Return the smallest and largest value with their positions, in order of position."""
    places = {values.index(min(values)), values.index(max(values))}
    return [(place, values[place]) for place in sorted(places)]


def _features(value: Mapping[str, Any], *, hide: bool) -> Cell:
    """Return the first features of a record, each labeled with its name."""
    cell: Cell = [
        replace(_text("–" if feature is None else _plain(feature), hide), label=name)
        for name, feature in list(value.items())[:FEATURES]
    ]
    more = len(value) - len(cell)
    return [*cell, Text(f"{more:,} more")] if more else cell


def _plain(value: float | str) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _texts(value: Any, *, hide: bool) -> Cell:
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        value = ", ".join(value)
    if isinstance(value, list) and all(
        isinstance(each, dict) and "content" in each for each in value
    ):
        return [_text(str(each["content"]), hide, str(each.get("role", ""))) for each in value]
    return [_text("" if value is None else str(value), hide)]


def _marked(text: str, passages: Any, *, hide: bool) -> Cell:
    """Return the beginning of a text with its passages marked."""
    field_text = _text(text, hide)
    pieces: list[Piece] = []
    at = 0
    for each in sorted(passages or [], key=lambda passage: int(passage["start"])):
        # Passages may overlap; text in an earlier mark is not repeated.
        start, end = max(at, each["start"]), min(each["end"], len(field_text.text))
        if start < end:
            pieces += [
                Piece(field_text.text[at:start]),
                Piece(field_text.text[start:end], marked=True, label=str(each.get("label", ""))),
            ]
            at = end
    pieces.append(Piece(field_text.text[at:]))
    return [replace(field_text, pieces=tuple(piece for piece in pieces if piece.text))]


def _text(text: str, hide: bool, role: str = "") -> Text:
    beginning = text[:FIELD_CHARACTERS]
    left_out = len(text) - len(beginning)
    return Text(_SIGN.sub("•", beginning) if hide else beginning, role, left_out)
