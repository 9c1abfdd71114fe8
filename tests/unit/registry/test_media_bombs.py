"""Files that make decoders work for minutes are refused before they are decoded, or with the
process that decodes them; what they cost is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from governance.errors import Unavailable
from registry.media import decoders
from registry.media.checks import Kind
from registry.media.decoders import Decoders
from registry.media.errors import MediaBusy, MediaRejected
from registry.media.limits import MediaLimits
from registry.media.structure import check_structure
from registry.sandbox import readers
from tests.unit.registry.media_bombs import (
    arithmetic,
    comments,
    growing,
    many_chunks,
    many_frames,
    many_markers,
    many_notes,
    many_scans,
    marker_less,
    tiny_blocks,
    wav_chunks,
)
from tests.unit.registry.media_files import container, decoded, inspected, picture, sound
from tests.waiting import PATIENCE_S

LIMITS = MediaLimits()


@pytest.mark.parametrize(
    ("data", "kind", "sentence"),
    [
        (many_scans(250), "image", "has more than 16 scans"),
        (many_scans(101, (80, 60)), "image", "has more than 100 scans"),
        (many_markers(5_000), "image", "more than 2,000 parts"),
        (arithmetic(), "image", "compressed in a way that browsers do not show"),
        (many_notes(33), "image", "more than 32 compressed notes"),
        (many_chunks(5_000), "image", "more than 2,000 parts"),
        (many_chunks(5_000, b"IDAT"), "image", "needlessly many parts"),
        (tiny_blocks(9_000), "image", "needlessly many parts"),
        (comments(5_000), "image", "1,048,576 bytes of notes"),
        (growing(3, 6_000), "video", "pixels in all of its frames"),
        (growing(1, 7_000), "video", "frames of 7,000 × 7,000 pixels"),
        (many_frames(1_500), "video", "more than 1,000 frames"),
        (wav_chunks(20_000), "audio", "more than 10,000 parts"),
    ],
)
def test_a_bomb_is_refused_in_words(data: bytes, kind: Kind, sentence: str) -> None:
    with pytest.raises(MediaRejected, match=sentence) as rejected:
        inspected(data, LIMITS, kind=kind, what="cat.png")
    assert rejected.value.message.startswith("cat.png ")
    assert rejected.value.hint


@pytest.mark.parametrize(
    "data",
    [
        picture(form="JPEG", progressive=True, size=(1200, 900)),
        many_scans(16),
        many_scans(100, (80, 60)),
        many_notes(32),
    ],
    ids=["progressive", "large", "small", "notes"],
)
def test_what_cameras_and_editors_write_is_taken(data: bytes) -> None:
    assert decoded(data, LIMITS, kind="image").width


def least_time(call: Callable[[], object]) -> float:
    found = []
    for _ in range(5):
        begun = time.process_time()
        call()
        found.append(time.process_time() - begun)
    return min(found)


@pytest.mark.parametrize(
    ("make", "content_type", "count"),
    [
        (lambda n: marker_less(n), "image/jpeg", 2_000_000),
        (lambda n: many_scans(2, (80, 60)) + bytes(n), "image/jpeg", 2_000_000),
        (lambda n: picture(form="JPEG")[:-2] + b"\xff\x00" * n, "image/jpeg", 1_000_000),
        (lambda n: many_chunks(n, b"IDAT"), "image/png", 20_000),
        (lambda n: tiny_blocks(n), "image/gif", 100_000),
        (lambda n: many_frames(n), "image/webp", 20_000),
        (lambda n: b"RIFF\0\0\0\0WEBP" + b"JUNK\0\0\0\0" * n, "image/webp", 50_000),
    ],
    ids=["fill", "trailing", "stuffed", "chunks", "blocks", "frames", "unknown"],
)
def test_the_bounds_are_found_in_time_linear_in_the_bytes(
    make: Callable[[int], bytes], content_type: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PARTS_MAX", "SCANS_MAX", "SCANS_OF_LARGEST"):
        monkeypatch.setattr(f"registry.media.structure.{name}", 10**9)
    limits = replace(LIMITS, frames=10**9)
    once, twice = make(count), make(2 * count)
    least = max(least_time(lambda: check_structure(once, content_type, limits, "x")), 0.002)
    assert least_time(lambda: check_structure(twice, content_type, limits, "x")) < 4 * least


def test_a_decoder_that_takes_too_long_ends_with_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb that the bounds do not know: its process is killed after the CPU time of its size.

    After `SECONDS` without enough of the processor, the machine would count as busy.
    """
    monkeypatch.setattr(decoders, "SECONDS", PATIENCE_S)
    monkeypatch.setattr(decoders, "_MODULE", "tests.unit.registry.patient_decoder")
    command = readers.reader_command
    monkeypatch.setattr(
        decoders, "reader_command", lambda module, reach, **more: _with_tests(command, more)
    )
    decoding = Decoders(LIMITS)
    try:
        with pytest.raises(MediaRejected, match=r"x broke the process .* more time or memory"):
            decoding.measure(picture(), kind="image", what="x")
        with pytest.raises(MediaRejected, match="broke the process"):
            decoding.measure(picture(form="JPEG"), kind="image", what="x")
        assert decoding.measure(picture(form="WEBP"), kind="image", what="x").width == 64
    finally:
        decoding.close()


def _with_tests(command: Callable[..., list[str]], more: dict[str, bool]) -> list[str]:
    reach = readers.Reach(read=[Path(__file__).resolve().parents[2]])
    return command("tests.unit.registry.patient_decoder", reach, **more)


def test_a_decoder_that_the_machine_does_not_run_is_no_fault_of_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoders, "SECONDS", 0.0)
    decoding = Decoders(LIMITS)
    try:
        with pytest.raises(MediaBusy, match="the machine is busy") as busy:
            decoding.measure(picture(), kind="image", what="x")
        assert (busy.value.status, busy.value.retry_after) == (503, 5)
    finally:
        decoding.close()


def test_without_a_process_the_answer_is_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_MODULE", "no.such.module")
    decoding = Decoders(LIMITS)
    decoding.prepare()
    with pytest.raises(Unavailable, match="No process can decode the file now"):
        decoding.measure(picture(), kind="image", what="x")
    decoding.close()


def test_a_source_that_was_killed_is_started_again() -> None:
    decoding = Decoders(LIMITS)
    decoding.prepare()
    assert decoding._source is not None
    decoding._source._process.kill()
    for _ in range(4):
        assert decoding.measure(picture(), kind="image", what="x").width == 64
    decoding.close()
    with pytest.raises(Unavailable):
        decoding.measure(picture(), kind="image", what="x")


def test_a_process_decodes_for_one_key_and_ends_soon_after_its_last_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a busy machine, any file or pause may take long.
    for limit in ("SLOW_S", "IDLE_S"):
        monkeypatch.setattr(decoders, limit, PATIENCE_S)
    decoding = Decoders(LIMITS)

    def process_of(owner: str, data: bytes = picture(), kind: Kind = "image") -> int | None:
        decoding.measure(data, kind=kind, what="x", owner=owner)
        return decoding._idle[owner][0].process.pid if owner in decoding._idle else None

    try:
        first = process_of("a")
        assert process_of("a", sound(), "audio") == first
        second = process_of("b")
        assert second not in (None, first)
        # A video has a process of its own.
        assert process_of("c", container(), "video") is None
        # As many wait as may decode at a time; those that were used longest ago end.
        many = {str(number): process_of(str(number)) for number in range(decoders.AT_ONCE)}
        assert set(decoding._idle) == set(many)
        assert process_of("a") not in (None, first, second, *many.values())
        monkeypatch.setattr(decoders, "FILES_EACH", 2)
        assert process_of("a") is None
        monkeypatch.setattr(decoders, "IDLE_S", 0.0)
        waiting = [each.process.pid for some in decoding._idle.values() for each in some]
        decoding.prepare()
        assert not decoding.idle
        assert not any(Path(f"/proc/{pid}").exists() for pid in waiting)
    finally:
        decoding.close()
