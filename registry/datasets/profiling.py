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
from registry.datasets.similar import ImageHashes
from registry.datasets.tables import refuse

MAX_LABELS = 1000


class Profile:
    """Counts of the contents of the rows.

    `duplicates` is the number of rows with the input of an earlier row; `characters` has the
    minimum, mean and maximum length of text inputs; `labels` counts rows, or marked passages, by
    label; `passages` has the number and lengths of marked passages; `media` describes the files of
    each media column, and `columns` the values of each other column; `regions.py` counts boxes and
    masks; `personal` counts rows with signs of personal data (`personal.py`).
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
        """Count one validated row. Raises InvalidInput for too many labels."""
        self._rows += 1
        self._columns.look(row)
        self._personal.look({name: row[name] for name in row if name not in self._media})
        input_text = self._row_kind.row_input(dict(row))
        self._seen.add(input_fingerprint(input_text))
        self._lengths.append(len(input_text))
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
        """Return the profile in the form stored in a dataset version."""
        profile: dict[str, Any] = {"duplicates": self._rows - len(self._seen)}
        if self._media:
            profile["media"] = {name: column.to_json() for name, column in self._media.items()}
        if self._is_text:
            profile["characters"] = spread(self._lengths)
        if self._passages:
            lengths = self._passage_lengths
            profile["passages"] = {
                "number": len(lengths),
                "shortest": min(lengths, default=0),
                "longest": max(lengths, default=0),
            }
        if self._labels:
            profile["labels"] = dict(self._labels.most_common())
        if columns := self._columns.to_json():
            profile["columns"] = columns
        profile |= self._regions.to_json()
        profile["personal"] = self._personal.profile()
        return profile


class _Column:
    """Statistics of one media column. Each file counts once, even if several rows name it.

    Masks are not `compared` with each other, because masks of different images are often alike.
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
        statistics: dict[str, Any] = {
            "kind": self._kind,
            "rows": self._rows,
            "files": len(media),
            "bytes": sum(each.size_bytes for each in media),
            "types": dict(Counter(each.content_type for each in media).most_common()),
        }
        if self._kind == "audio":
            seconds = [each.seconds or 0 for each in media]
            statistics["seconds"] = {**spread(seconds), "total": round(sum(seconds), 1)}
            rates = Counter(str(each.sample_rate) for each in media)
            statistics["sample_rates"] = dict(rates.most_common(20))
            statistics["histogram"] = histogram(seconds)
        elif self._kind == "video":
            seconds = [each.seconds or 0 for each in media]
            statistics["seconds"] = {**spread(seconds), "total": round(sum(seconds), 1)}
            statistics["frames"] = spread(each.frames or 0 for each in media)
            statistics["width"] = spread(each.width or 0 for each in media)
            statistics["height"] = spread(each.height or 0 for each in media)
            statistics["histogram"] = histogram([each.frames or 0 for each in media])
        else:
            statistics["width"] = spread(each.width or 0 for each in media)
            statistics["height"] = spread(each.height or 0 for each in media)
            statistics["histogram"] = histogram(
                [(each.width or 0) * (each.height or 0) / 1e6 for each in media]
            )
            if self._compared:
                statistics |= _near_duplicates(records)
        return statistics


def _near_duplicates(records: Iterable[MediaRecord]) -> dict[str, Any]:
    looks, near = ImageHashes(), 0
    for record in records:
        bits = int(record.looks or "0", 16)
        near += looks.near(bits)
        looks.add(bits)
    return {"near_duplicates": near, "near_duplicates_complete": not looks.exhausted}
