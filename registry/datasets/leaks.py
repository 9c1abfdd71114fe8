"""Find rows whose input stands in another dataset version: the leak from training to test."""

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
from registry.datasets.similar import Looks
from registry.storage import store


@dataclass(frozen=True, slots=True)
class Overlap:
    """Rows of the second version: `same` have an input of the first ones, `alike` an image that
    looks like one of theirs without being it. `complete` is false where comparing images was cut
    short."""

    same: int
    alike: int = 0
    complete: bool = True


def overlap(a: Sequence[DatasetVersion], b: DatasetVersion) -> Overlap:
    """Count rows of `b` whose input stands in one of `a` too.

    Texts are compared without regard to letter case and white space, files by their SHA-256, both
    without the answer. Where an image is the whole input, images that look alike are counted too.

    Raises:
        Unavailable: the store does not hold the rows of one of them.
    """
    try:
        return _overlap(frozenset(map(_Rows.of, a)), _Rows.of(b))
    except FileNotFoundError as error:
        named = ", ".join(map(str, a))
        raise Unavailable(
            f"The rows of {named} or {b} are not in the artifact store; the leak check cannot run.",
            hint=store.RESTORE,
        ) from error


@dataclass(frozen=True, slots=True)
class _Rows:
    """A version by its content, so that a kept answer can never be stale."""

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
        """Return the difference hashes of the images; none where the rows name no files."""
        if not self.has_media:
            return {}
        with store.media_list_open(self.digest) as listing:
            records = (MediaRecord.from_line(line) for line in listing)
            return {each.media.sha256: int(each.looks, 16) for each in records if each.looks}


@lru_cache(maxsize=256)
def _overlap(a: frozenset[_Rows], b: _Rows) -> Overlap:
    known = {input_fingerprint(given) for each in a for given in each.inputs()}
    looks, b_looks = Looks([each for rows in a for each in rows.looks().values()]), b.looks()
    same = alike = 0
    for given in b.inputs():
        if input_fingerprint(given) in known:
            same += 1
        elif given in b_looks:
            alike += looks.near(b_looks[given])
    return Overlap(same, alike, not looks.exhausted)
