"""Statistics of a dataset version, gathered one row at a time while it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from registry.catalog.columns import column_kinds, media_columns
from registry.catalog.declaration import RowKind
from registry.catalog.passages import passage_columns
from registry.datasets.columns import ColumnStatistics, histogram, spread
from registry.datasets.fingerprints import input_fingerprint
from registry.datasets.media_files import MediaRecord
from registry.datasets.personal import PersonalData
from registry.datasets.regions import Regions
from registry.datasets.similar import Looks
from registry.datasets.tables import refuse

MAX_LABELS = 1000


class Profile:
    """Counts what the rows hold.

    `duplicates` is the number of rows whose input stood before; `characters` gives min, mean and
    max of an input's length, where inputs are text; `labels` counts rows, or marked passages, by
    label; `passages` gives the number and lengths of marked passages; `media` describes the files
    of each media column, and `columns` the values of each other one; counts of boxes and masks are
    as in `regions.py`; `personal` says in how many rows there are signs of personal data, as in
    `personal.py`.
    """

    def __init__(self, row_kind: RowKind, records: Mapping[str, MediaRecord]) -> None:
        self._row_kind = row_kind
        self._rows = 0
        self._seen: set[bytes] = set()
        self._lengths: list[int] = []
        self._labels: Counter[str] = Counter()
        self._personal = PersonalData()
        self._columns = ColumnStatistics(row_kind.row)
        self._is_text = not {"series", "features", *media_columns(row_kind.row).values()} & set(
            column_kinds(row_kind.row).values()
        )
        self._regions = Regions(row_kind, records)
        self._passages = passage_columns(row_kind.row)
        self._passage_lengths: list[int] = []
        self._media = {
            name: _Column(kind, records, compared=name not in self._regions.columns)
            for name, kind in media_columns(row_kind.row).items()
        }

    def look(self, place: str, row: Mapping[str, Any]) -> None:
        """Take one validated row. Raises InvalidInput when there are too many labels."""
        self._rows += 1
        self._columns.look(row)
        self._personal.look({name: row[name] for name in row if name not in self._media})
        given = self._row_kind.row_input(dict(row))
        self._seen.add(input_fingerprint(given))
        self._lengths.append(len(given))
        for name, column in self._media.items():
            if row.get(name):
                column.look(row[name])
        self._regions.look(place, row)
        if isinstance(row.get("label"), str):
            self._labels[row["label"]] += 1
        for name in self._passages:
            self._count_passages(row.get(name) or [])
        if len(self._labels) > MAX_LABELS:
            raise refuse(place, f"there are more than {MAX_LABELS} different labels.")

    def _count_passages(self, passages: Iterable[Mapping[str, Any]]) -> None:
        for each in passages:
            self._passage_lengths.append(each["end"] - each["start"])
            if "label" in each:
                self._labels[each["label"]] += 1

    def to_json(self) -> dict[str, Any]:
        """Return the profile as a dataset version keeps it."""
        found: dict[str, Any] = {"duplicates": self._rows - len(self._seen)}
        if self._media:
            found["media"] = {name: column.to_json() for name, column in self._media.items()}
        if self._is_text:
            found["characters"] = spread(self._lengths)
        if self._passages:
            lengths = self._passage_lengths
            found["passages"] = {
                "number": len(lengths),
                "shortest": min(lengths, default=0),
                "longest": max(lengths, default=0),
            }
        if self._labels:
            found["labels"] = dict(self._labels.most_common())
        if columns := self._columns.to_json():
            found["columns"] = columns
        found |= self._regions.to_json()
        found["personal"] = self._personal.profile()
        return found


class _Column:
    """The files of one media column. Each file counts once, also where several rows name it.

    Masks are not `compared` with each other: many are alike, and that says nothing.
    """

    def __init__(self, kind: str, records: Mapping[str, MediaRecord], *, compared: bool) -> None:
        self._kind = kind
        self._compared = compared
        self._records = records
        self._used: dict[str, None] = {}
        self._rows = 0

    def look(self, sha256: str) -> None:
        self._rows += 1
        self._used[sha256] = None

    def to_json(self) -> dict[str, Any]:
        records = [self._records[sha256] for sha256 in self._used]
        media = [record.media for record in records]
        found: dict[str, Any] = {
            "kind": self._kind,
            "rows": self._rows,
            "files": len(media),
            "bytes": sum(each.size_bytes for each in media),
            "types": dict(Counter(each.content_type for each in media).most_common()),
        }
        if self._kind == "audio":
            seconds = [each.seconds or 0 for each in media]
            found["seconds"] = {**spread(seconds), "total": round(sum(seconds), 1)}
            rates = Counter(str(each.sample_rate) for each in media)
            found["sample_rates"] = dict(rates.most_common(20))
            found["histogram"] = histogram(seconds)
        elif self._kind == "video":
            seconds = [each.seconds or 0 for each in media]
            found["seconds"] = {**spread(seconds), "total": round(sum(seconds), 1)}
            found["frames"] = spread(each.frames or 0 for each in media)
            found["width"] = spread(each.width or 0 for each in media)
            found["height"] = spread(each.height or 0 for each in media)
            found["histogram"] = histogram([each.frames or 0 for each in media])
        else:
            found["width"] = spread(each.width or 0 for each in media)
            found["height"] = spread(each.height or 0 for each in media)
            found["histogram"] = histogram(
                [(each.width or 0) * (each.height or 0) / 1e6 for each in media]
            )
            if self._compared:
                found |= _alike(records)
        return found


def _alike(records: Iterable[MediaRecord]) -> dict[str, Any]:
    looks, near = Looks(), 0
    for record in records:
        bits = int(record.looks or "0", 16)
        near += looks.near(bits)
        looks.add(bits)
    return {"near_duplicates": near, "near_duplicates_complete": not looks.exhausted}
