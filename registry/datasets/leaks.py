"""Leaks from training to test data: rows whose input also occurs in another dataset version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from governance.errors import Unavailable
from registry.catalog import get_row_kind
from registry.datasets.fingerprints import input_fingerprint
from registry.datasets.media_files import MediaRecord
from registry.datasets.models import DatasetVersion
from registry.datasets.parsing import read_rows
from registry.datasets.similar import ImageHashes
from registry.storage import store


@dataclass(frozen=True, slots=True)
class Overlap:
    """Number of rows of the second version with the `same` input as a row of the first ones, or
    with a different image that looks `alike`. `complete` is false if the comparison of images
    stopped early."""

    same: int
    alike: int = 0
    complete: bool = True


def overlap(a: Sequence[DatasetVersion], b: DatasetVersion) -> Overlap:
    """Count the rows of `b` whose input also occurs in `a`.

    The answer is ignored; texts are compared regardless of letter case and white space, files by
    their SHA-256. If an image is the whole input, images that look alike are counted too.

    Raises:
        Unavailable: the rows of a version are not in the store.
    """
    try:
        return _overlap(frozenset(map(_Rows.of, a)), _Rows.of(b))
    except FileNotFoundError as error:
        names = ", ".join(map(str, a))
        raise Unavailable(
            f"The rows of {names} or {b} are not in the artifact store; the leak check cannot run.",
            hint=store.RESTORE,
        ) from error


@dataclass(frozen=True, slots=True)
class _Rows:
    """A version, identified by its content, so that a cached result is never stale."""

    digest: str
    task: str
    row_kind: str
    has_media: bool

    @classmethod
    def of(cls, version: DatasetVersion) -> _Rows:
        dataset = version.dataset
        has_media = bool(version.profile.get("media"))
        return cls(version.digest, dataset.task, dataset.row_kind, has_media)

    def inputs(self) -> Iterator[str]:
        row_input = get_row_kind(self.task, self.row_kind).row_input
        return map(row_input, read_rows(store.file_open(self.digest)))

    def looks(self) -> dict[str, int]:
        """Return the images' difference hashes by SHA-256; empty for rows without files."""
        if not self.has_media:
            return {}
        with store.media_list_open(self.digest) as listing:
            records = (MediaRecord.from_line(line) for line in listing)
            return {each.media.sha256: int(each.looks, 16) for each in records if each.looks}


@lru_cache(maxsize=256)
def _overlap(a: frozenset[_Rows], b: _Rows) -> Overlap:
    fingerprints = {input_fingerprint(text) for each in a for text in each.inputs()}
    looks, b_looks = ImageHashes([each for rows in a for each in rows.looks().values()]), b.looks()
    same = alike = 0
    for text in b.inputs():
        if input_fingerprint(text) in fingerprints:
            same += 1
        elif text in b_looks:
            alike += looks.near(b_looks[text])
    return Overlap(same, alike, not looks.exhausted)
