"""MP4 and WebM: measured and refused in a process of their own, shown by their first frame."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from registry.media import video_process
from registry.media.checks import Kind
from registry.media.errors import MediaBusy, MediaRejected
from registry.media.limits import MediaLimits
from registry.media.video_process import take_frames
from registry.sandbox.places import FairPlaces
from tests.unit.registry.media_files import container, decoded

pytestmark = pytest.mark.sweep

LIMITS = MediaLimits()
FOLDER = Path(__file__).parent / "videos"
# 16 frames of FFmpeg's test picture, encoded by x264; no encoder of H.264 is installed.
H264 = (FOLDER / "h264.mp4").read_bytes()
SOUND = (FOLDER / "sound-only.mp4").read_bytes()
WEBM = container()


@pytest.mark.parametrize(
    ("data", "content_type", "frames", "seconds"),
    [
        (H264, "video/mp4", 16, 2.0),
        (WEBM, "video/webm", 6, 0.75),
        (container("webm", "VP90"), "video/webm", 6, 0.75),
        (container("mp4", "vp09"), "video/mp4", 6, 0.75),
    ],
)
def test_a_video_is_measured_by_decoding_it(
    data: bytes, content_type: str, frames: int, seconds: float
) -> None:
    found = decoded(data, LIMITS, kind="video")
    assert (found.kind, found.content_type, found.size_bytes) == ("video", content_type, len(data))
    assert (found.width, found.height, found.frames, found.seconds) == (64, 48, frames, seconds)


@pytest.mark.parametrize(
    ("data", "limits", "sentence"),
    [
        (SOUND, LIMITS, "holds no video"),
        (container("mp4", "mp4v"), LIMITS, "codec 'FMP4'; H.264, VP8 and VP9 are read"),
        (container(frames=1), LIMITS, "has too few frames that can be decoded"),
        (container(frames=0), LIMITS, "holds no video that can be read"),
        (H264[: len(H264) * 2 // 3], LIMITS, "truncated or damaged MP4"),
        (H264[:40], LIMITS, "truncated or damaged MP4"),
        (WEBM[: len(WEBM) * 2 // 3], LIMITS, "truncated or damaged WebM"),
        (WEBM[:40], LIMITS, "truncated or damaged WebM"),
        (H264.replace(b"moov", b"free"), LIMITS, "truncated or damaged MP4"),
        (H264, replace(LIMITS, bytes=1_000), "at most 1,000 are accepted"),
        (H264, replace(LIMITS, pixels=3_000), "frames of 64 × 48 pixels; at most 3,000"),
        (H264, replace(LIMITS, side=50), "50 on a side"),
        (H264, replace(LIMITS, frames=15), "more than 15 frames"),
        (H264, replace(LIMITS, seconds=1), "longer than 1 seconds"),
        (WEBM, replace(LIMITS, video_pixels=10_000), "more than 10,000 pixels in all"),
        # FFmpeg would open the file that a playlist names.
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", LIMITS, "has another format"),
    ],
)
def test_a_bad_video_is_rejected_in_words(data: bytes, limits: MediaLimits, sentence: str) -> None:
    with pytest.raises(MediaRejected) as rejected:
        decoded(data, limits, kind="video", what="clip.mp4")
    assert rejected.value.message.startswith("clip.mp4 ")
    assert sentence in rejected.value.message
    assert rejected.value.hint


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_a_video_is_no_other_kind_whatever_its_name(kind: Kind) -> None:
    with pytest.raises(MediaRejected, match=r"cat\.png is video/mp4; a"):
        decoded(H264, LIMITS, kind=kind, what="cat.png")


def test_a_header_that_promises_huge_frames_is_refused_before_they_are_decoded() -> None:
    """The size stands in the key frame of VP8, after its start code."""
    at = WEBM.index(b"\x9d\x01\x2a") + 3
    bomb = WEBM[:at] + (16_383).to_bytes(2, "little") * 2 + WEBM[at + 4 :]
    with pytest.raises(MediaRejected, match="too few frames that can be decoded"):
        decoded(bomb, LIMITS, kind="video")


def test_a_file_that_takes_too_long_or_too_much_memory_ends_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as changed:
        changed.setattr(video_process, "SECONDS", 0)
        with pytest.raises(MediaRejected, match="longer than 0 seconds"):
            take_frames(io.BytesIO(H264), "video/mp4", 2, LIMITS, "x")
    with monkeypatch.context() as changed:
        changed.setattr(video_process, "MEMORY_BYTES", 64 * 1024**2)
        with pytest.raises(MediaRejected, match="broke the process"):
            take_frames(io.BytesIO(H264), "video/mp4", 2, LIMITS, "x")
    assert take_frames(io.BytesIO(H264), "video/mp4", 2, LIMITS, "x").video.frames == 16


def test_damage_is_decoded_around_or_refused() -> None:
    chance = random.Random(7)
    for whole in (H264, WEBM) * 3:
        data = bytearray(whole)
        for _ in range(40):
            data[chance.randrange(12, len(data))] = chance.randrange(256)
        with suppress(MediaRejected):
            assert 2 <= (decoded(bytes(data), LIMITS, kind="video").frames or 0) <= 1_000


@pytest.mark.parametrize(("data", "content_type"), [(H264, "video/mp4"), (WEBM, "video/webm")])
def test_frames_are_spread_from_the_first_to_the_last(data: bytes, content_type: str) -> None:
    found = take_frames(io.BytesIO(data), content_type, 3, LIMITS, "The video")
    assert [frame.size for frame in found.frames] == [(64, 48)] * 3
    assert len({frame.tobytes() for frame in found.frames}) == 3
    more = take_frames(io.BytesIO(data), content_type, 40, LIMITS, "The video")
    assert len(more.frames) == 40
    assert more.frames[0].tobytes() == found.frames[0].tobytes()
    assert more.frames[-1].tobytes() == found.frames[-1].tobytes()


def test_colors_keep_their_order() -> None:
    (first, *_) = take_frames(io.BytesIO(H264), "video/mp4", 2, LIMITS, "x").frames
    # Two bars of the test picture are blue and red.
    bars = [first.getpixel((column, 8)) for column in (28, 52)]
    assert [bar.index(max(bar)) for bar in bars if isinstance(bar, tuple)] == [2, 0]


def test_no_process_but_the_bounded_one_loads_ffmpeg() -> None:
    code = (
        "import sys, pathlib; from registry.media.decoders import Decoders;"
        "from registry.media.limits import MediaLimits;"
        f"data = pathlib.Path({str(FOLDER / 'h264.mp4')!r}).read_bytes();"
        "decoders = Decoders(MediaLimits());"
        "decoders.measure(data, kind='video', what='x'); decoders.close();"
        "sys.exit(bool({'cv2', 'PIL', 'soundfile'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_that_finds_no_place_is_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    full = FairPlaces(1, wait_s=0.01, refusal="Too many videos are being decoded.")
    monkeypatch.setattr(video_process, "_places", full)
    with full.place("another"), pytest.raises(MediaBusy) as busy:
        take_frames(io.BytesIO(H264), "video/mp4", 2, LIMITS, "x")
    assert (busy.value.status, busy.value.retry_after) == (503, 5)
