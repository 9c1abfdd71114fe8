"""Images and recordings are judged by content, within bounds, before and after decoding."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from governance.errors import InvalidInput
from registry.media.checks import Kind, Media
from registry.media.errors import MediaRejected
from registry.media.inspection import inspect_media
from registry.media.limits import MediaLimits
from tests.unit.registry.media_files import (
    animated,
    inspected,
    not_a_number,
    picture,
    png_header,
    saved,
    sound,
    wav_header,
)
from tests.unit.registry.objects import sha256

LIMITS = MediaLimits()


@pytest.mark.parametrize(
    ("form", "content_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")],
)
def test_an_image_is_measured(form: str, content_type: str) -> None:
    data = picture(form=form)
    assert inspected(data, LIMITS, kind="image") == Media(
        sha256(data), "image", content_type, len(data), width=64, height=48
    )


@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        ("WAV", "audio/wav"),
        ("FLAC", "audio/flac"),
        ("OGG", "audio/ogg"),
        ("MP3", "audio/mpeg"),
    ],
)
def test_a_recording_is_measured(form: str, content_type: str) -> None:
    data = sound(1.5, form=form, channels=2)
    found = inspected(data, LIMITS, kind="audio")
    assert found.seconds == pytest.approx(1.5, abs=0.1)
    assert (found.content_type, found.sample_rate, found.channels) == (content_type, 16_000, 2)
    assert (found.sha256, found.size_bytes) == (sha256(data), len(data))


def test_opus_in_ogg_is_read() -> None:
    assert inspected(sound(form="OGG", subtype="OPUS"), LIMITS).content_type == "audio/ogg"


@pytest.mark.parametrize("source", [picture(), sound()], ids=["image", "audio"])
def test_measures_travel_as_json(source: bytes) -> None:
    found = inspected(source, LIMITS)
    assert Media.from_json(found.to_json()) == found
    assert None not in found.to_json().values()


@pytest.mark.parametrize("given", [{}, {"sha256": "x", "more": 1}])
def test_other_json_describes_no_media(given: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Media.from_json(given)


def test_the_files_name_counts_for_nothing(tmp_path: Path) -> None:
    """Not even one that a decoder takes as a format of its own."""
    for name in ("a.png", "a.raw", "a.gif"):
        (tmp_path / name).write_bytes(sound(form="FLAC"))
        media, _ = inspect_media(tmp_path / name, LIMITS)
        assert media.content_type == "audio/flac"


@pytest.mark.parametrize(
    ("data", "kind", "sentence"),
    [
        (b"", "image", "is empty"),
        (b"GIF", "image", "has another format"),
        (b"<svg onload='alert(1)'/>", "image", "has another format"),
        (b"PK\x03\x04" + b"\0" * 60, "image", "has another format"),
        (b"BM" + b"\0" * 60, "image", "has another format"),
        (sound(), "image", "is audio/wav; a PNG, JPEG, WebP or GIF file is expected"),
        (picture(), "audio", "is image/png; a WAV, FLAC, OGG or MP3 file is expected"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 60, "image", "not a readable PNG image"),
        (b"\xff\xd8\xff" + b"\0" * 60, "image", "not a readable JPEG image"),
        (b"fLaC" + b"\0" * 60, "audio", "not a readable FLAC file"),
        (b"ID3" + b"\0" * 60, "audio", "not a readable MP3 file"),
        (b"OggS" + b"\0" * 60, "audio", "OGG file"),
        (png_header(20_000, 20_000), "image", "too many pixels; at most 40,000,000"),
        (png_header(9_000, 9_000), "image", "9,000 × 9,000 pixels; at most 40,000,000"),
        (png_header(2**31 - 1, 2**31 - 1), "image", "pixels"),
        (png_header(30_000, 1_000), "image", "a side has at most 16,384"),
        (png_header(0, 5), "image", "image"),
        (png_header(64, 64), "image", "truncated or damaged PNG"),
        (animated("GIF"), "image", "animated GIF image; a single picture"),
        (animated("WEBP"), "image", "animated WEBP image"),
        (animated("PNG"), "image", "animated PNG image"),
        (wav_header(10 * 3600), "audio", "lasts 10:00:00; at most 1,800 seconds"),
        (wav_header(60), "audio", "truncated: 64 of 1,920,000 bytes"),
        (wav_header(0), "audio", "holds no sound"),
        (sound(0), "audio", "holds no sound"),
        (b"RIFF\0\0\0\0WAVE", "audio", "WAV file without sound"),
        (sound(channels=3), "audio", "3 channels; at most 2"),
        (sound(rate=2_000), "audio", "2,000 samples a second"),
        (sound(0.01, rate=384_000), "audio", "384,000 samples a second"),
        (not_a_number(), "audio", "not numbers"),
    ],
)
def test_bad_media_is_rejected_in_words(data: bytes, kind: Kind, sentence: str) -> None:
    with pytest.raises(MediaRejected) as rejected:
        inspected(data, LIMITS, kind=kind, what="cat.png")
    assert rejected.value.message.startswith("cat.png ")
    assert sentence in rejected.value.message
    assert rejected.value.hint
    assert (rejected.value.status, rejected.value.code) == (400, "media_rejected")


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_an_animated_image_is_a_video_where_one_is_expected(form: str) -> None:
    found = inspected(animated(form), LIMITS, kind="video")
    assert (found.kind, found.content_type) == ("video", f"image/{form.lower()}")
    assert (found.width, found.height, found.frames, found.seconds) == (16, 16, 3, 0.3)
    assert Media.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("data", "limits", "sentence"),
    [
        (b"", LIMITS, "is empty"),
        (picture(), LIMITS, "is a single picture; a video is expected"),
        (picture(form="GIF"), LIMITS, "is a single picture"),
        (picture(form="JPEG"), LIMITS, "is image/jpeg; an MP4, WebM, or animated"),
        (sound(), LIMITS, "is audio/wav; an MP4, WebM, or animated"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 60, LIMITS, "has another format"),
        (b"GIF89a" + b"\0" * 60, LIMITS, "not a readable GIF file"),
        (png_header(64, 64), LIMITS, "truncated or damaged PNG"),
        (png_header(9_000, 9_000), LIMITS, "frames of 9,000 × 9,000 pixels"),
        (animated("GIF"), replace(LIMITS, frames=2), "more than 2 frames"),
        (animated("WEBP"), replace(LIMITS, video_pixels=600), "more than 600 pixels in all"),
        (animated("PNG"), replace(LIMITS, seconds=0), "lasts longer than 0 seconds"),
    ],
)
def test_a_bad_video_is_rejected_in_words(data: bytes, limits: MediaLimits, sentence: str) -> None:
    with pytest.raises(MediaRejected) as rejected:
        inspected(data, limits, kind="video", what="clip.gif")
    assert rejected.value.message.startswith("clip.gif ")
    assert sentence in rejected.value.message
    assert rejected.value.hint


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_a_truncated_video_is_rejected(form: str) -> None:
    frames = [picture(seed, (200, 150)) for seed in range(6)]
    first, *others = [Image.open(BytesIO(frame)) for frame in frames]
    data = saved(first, form, save_all=True, append_images=others, duration=100)
    with pytest.raises(MediaRejected, match=r"truncated|not a readable"):
        inspected(data[: len(data) // 2], LIMITS, kind="video")


def test_a_gif_of_very_many_frames_is_not_read_to_its_end() -> None:
    """One that adds frames of a few bytes each is given up at the limit."""
    data = animated("GIF")
    at = data.index(b"\x21\xf9\x04", 40)
    end = data.index(b"\x21\xf9\x04", at + 8)
    bomb = data[:end] + data[at:end] * 200_000 + data[end:]
    with pytest.raises(MediaRejected, match="more than 1,000 frames"):
        inspected(bomb[: LIMITS.bytes], LIMITS, kind="video")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_truncated_image_is_rejected(form: str) -> None:
    data = picture(form=form, size=(400, 300))
    with pytest.raises(MediaRejected, match=r"truncated|not a readable"):
        inspected(data[: len(data) // 2], LIMITS)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_truncated_recording_is_rejected(form: str) -> None:
    data = sound(3, form=form)
    with pytest.raises(MediaRejected, match=r"truncated|damaged"):
        inspected(data[: len(data) // 2], LIMITS)


def test_a_recording_that_does_not_state_its_length_is_rejected_unless_it_is_wav() -> None:
    flac = bytearray(sound(2, form="FLAC"))
    at = flac.index(b"fLaC") + 8 + 13
    flac[at] &= 0xF0
    flac[at + 1 : at + 5] = b"\0\0\0\0"
    with pytest.raises(MediaRejected, match="does not state how long it is"):
        inspected(bytes(flac), LIMITS)
    wav = bytearray(sound(2))
    at = wav.index(b"data") + 4
    wav[at : at + 4] = b"\xff\xff\xff\xff"
    assert inspected(bytes(wav), LIMITS).seconds == 2
    with pytest.raises(MediaRejected, match="at most 1 seconds"):
        inspected(bytes(wav), replace(LIMITS, seconds=1))


def test_limits_are_those_given() -> None:
    data = picture()
    with pytest.raises(MediaRejected, match=r"bytes; at most 10 are accepted"):
        inspected(data, replace(LIMITS, bytes=10))
    with pytest.raises(MediaRejected, match="64 × 48 pixels; at most 3,071 pixels"):
        inspected(data, replace(LIMITS, pixels=64 * 48 - 1))
    with pytest.raises(MediaRejected, match="a side has at most 63"):
        inspected(data, replace(LIMITS, side=63))
    assert inspected(data, replace(LIMITS, pixels=64 * 48, side=64)).width == 64


def test_a_compressed_note_in_an_image_cannot_fill_memory() -> None:
    import zlib

    data = picture()
    body = b"zTXt" + b"a\0\0" + zlib.compress(b"x" * 100_000_000)
    note = (len(body) - 4).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)
    with pytest.raises(MediaRejected):
        inspected(data[:33] + note + data[33:], LIMITS)
