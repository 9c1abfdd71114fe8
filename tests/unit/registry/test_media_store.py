"""Media of requests are held for a short time, in bounded room, and hashed when read."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from governance.errors import InvalidInput, NotFound, TooLarge, Unavailable
from registry.media.store import (
    MediaReference,
    media_open,
    media_put,
    media_remove,
    media_sweep,
)
from tests.unit.registry.media_files import picture


@pytest.fixture(autouse=True)
def _own_folder(settings: Any, tmp_path: Any) -> None:
    settings.DATA_DIR = tmp_path
    settings.MEDIA_STORE_BYTES = 10_000


def put(data: bytes = b"x" * 100) -> MediaReference:
    return media_put(data, content_type="image/png", deployment_id=7)


def test_what_is_put_is_read_by_its_reference(tmp_path: Any) -> None:
    data = picture()[:9_000]
    reference = put(data)
    travelled = MediaReference.from_json(reference.to_json())
    assert media_open(travelled).getvalue() == data
    assert reference.path.parent.parent == tmp_path / "media"
    assert reference.path.stat().st_mode & 0o777 == 0o600
    media_remove(reference)
    media_remove(reference)
    with pytest.raises(NotFound, match="not in the store"):
        media_open(reference)


def test_a_file_that_was_changed_is_not_read() -> None:
    reference = put()
    for wrong in (b"y" * 100, b"x" * 99, b"x" * 101):
        reference.path.write_bytes(wrong)
        with pytest.raises(NotFound, match="not the one"):
            media_open(reference)


def test_a_link_in_the_store_is_not_followed(tmp_path: Any) -> None:
    reference = put()
    reference.path.rename(tmp_path / "elsewhere")
    reference.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotFound):
        media_open(reference)


def test_a_folder_that_became_a_link_is_neither_swept_nor_written_nor_read(tmp_path: Any) -> None:
    reference = put()
    elsewhere = tmp_path / "elsewhere"
    reference.path.parent.rename(elsewhere)
    reference.path.parent.symlink_to(elsewhere)
    os.utime(elsewhere / reference.media, (time.time() - 1000,) * 2)
    assert media_sweep(900) == 0
    with pytest.raises(NotFound):
        media_open(reference)
    with pytest.raises(Unavailable):
        put()
    assert [path.name for path in elsewhere.iterdir()] == [reference.media]


@pytest.mark.parametrize(
    "change",
    [
        {"media": "../../../etc/passwd"},
        {"media": "a" * 31},
        {"media": "a" * 32 + "\n"},
        {"sha256": "../" + "a" * 61},
        {"sha256": "A" * 64},
        {"content_type": "text/html"},
        {"size": -1},
        {"size": True},
        {"size": "1"},
        {"more": 1},
    ],
)
def test_other_references_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="not a reference"):
        MediaReference.from_json({**put().to_json(), **change})
    for other in (None, [], "x", {}):
        with pytest.raises(InvalidInput):
            MediaReference.from_json(other)


def test_files_of_other_types_are_not_kept() -> None:
    with pytest.raises(InvalidInput, match="'text/html' is not a content type"):
        media_put(b"x", content_type="text/html", deployment_id=7)


def test_old_files_are_swept_with_what_a_crash_left() -> None:
    old, new = put(), put()
    half = old.path.with_suffix(".part")
    half.write_bytes(b"x")
    for path in (old.path, half):
        os.utime(path, (time.time() - 1000,) * 2)
    assert media_sweep(900) == 2
    assert not old.path.exists()
    assert media_open(new).read() == b"x" * 100


def test_the_store_has_a_bound_and_takes_files_again_when_there_is_room(settings: Any) -> None:
    first = put(b"x" * 6_000)
    with pytest.raises(Unavailable, match="full") as refused:
        put(b"x" * 6_000)
    assert refused.value.retry_after
    media_remove(first)
    put(b"x" * 6_000)
    with pytest.raises(TooLarge, match="the whole media store has 10,000"):
        put(b"x" * 10_001)
