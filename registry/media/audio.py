"""Bounded reading of a recording: first its header, then all of its blocks."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from registry.media.errors import MediaRejected
from registry.media.limits import MediaLimits
from registry.media.structure import Data

SAMPLE_RATES = (4_000, 192_000)
BLOCK_FRAMES = 65_536
_FORMATS = {
    "audio/wav": ("WAV", {"WAV", "WAVEX"}),
    "audio/flac": ("FLAC", {"FLAC"}),
    "audio/ogg": ("OGG", {"OGG"}),
    "audio/mpeg": ("MP3", {"MP3", "MPEG"}),
}
# Two MPEG frames: encoders pad the end, and decoders return different amounts of the padding.
_MP3_SLACK = 2 * 1152
# Programs that write to a pipe cannot fill in the length afterward. A WAV file then has all bits
# set, and its sound ends with the file; for FLAC, libsndfile returns its largest number.
_UNSTATED_BYTES = 0xFFFFFFFF
_UNSTATED_FRAMES = 2**62
# Recording programs write some metadata before and after the sound.
_PARTS_MAX = 10_000
_RESAVE = "Save the recording again, as WAV or FLAC."


@dataclass(frozen=True, slots=True)
class Audio:
    """Measures of a recording."""

    seconds: float
    sample_rate: int
    channels: int


def read_audio(
    file: IO[bytes],
    data: Data,
    content_type: str,
    limits: MediaLimits,
    what: str,
    allow: Callable[[float], None],
) -> Audio:
    """Decode a recording to its end and return its measures.

    `allow` is called with the seconds in its header before decoding.

    Raises MediaRejected.
    """
    import soundfile

    name, formats = _FORMATS[content_type]
    if name == "WAV":
        _check_wav(data, limits, what)
    if name == "OGG":
        _check_ogg(data, what)
    try:
        sound = soundfile.SoundFile(file)
    except Exception as error:
        raise MediaRejected(f"{what} is not a readable {name} file.", hint=_RESAVE) from error
    with sound:
        if sound.format not in formats:
            raise MediaRejected(f"{what} is not a readable {name} file.", hint=_RESAVE)
        _check_header(sound, limits, what)
        allow(sound.frames / sound.samplerate)
        frames = _decoded_frames(sound, limits, name, what)
        return Audio(round(frames / sound.samplerate, 3), sound.samplerate, sound.channels)


def _check_header(file: Any, limits: MediaLimits, what: str) -> None:
    least, most = SAMPLE_RATES
    if not least <= file.samplerate <= most:
        raise MediaRejected(
            f"{what} has {file.samplerate:,} samples a second; {least:,} to {most:,} are accepted.",
            hint="Resample the recording, such as to 16,000.",
        )
    if file.channels > limits.channels:
        raise MediaRejected(
            f"{what} has {file.channels} channels; at most {limits.channels} are accepted.",
            hint="Mix the recording down. ASSAY_MEDIA_MAX_CHANNELS sets the limit.",
        )
    if file.frames == 0:
        raise MediaRejected(f"{what} holds no sound.", hint="Send a recording with sound.")
    if file.frames > _UNSTATED_FRAMES:
        raise MediaRejected(f"{what} does not state how long it is.", hint=_RESAVE)
    _check_seconds(file.frames / file.samplerate, limits, what)


def _check_seconds(seconds: float, limits: MediaLimits, what: str) -> None:
    if seconds > limits.seconds:
        minutes, rest = divmod(int(seconds), 60)
        raise MediaRejected(
            f"{what} lasts {minutes // 60}:{minutes % 60:02}:{rest:02}; at most "
            f"{limits.seconds:,} seconds are accepted, and it was not decoded.",
            hint="Cut the recording into parts. ASSAY_MEDIA_MAX_SECONDS sets the limit.",
        )


def _decoded_frames(file: Any, limits: MediaLimits, name: str, what: str) -> int:
    """Decode everything in blocks and return the number of frames; the header may be wrong."""
    import numpy

    claimed, frames = file.frames, 0
    block = numpy.empty((BLOCK_FRAMES, file.channels), dtype="float32")
    try:
        while len(samples := file.read(out=block, fill_value=None)):
            frames += len(samples)
            _check_seconds(frames / file.samplerate, limits, what)
            if not numpy.isfinite(samples).all():
                raise MediaRejected(
                    f"{what} holds samples that are not numbers (NaN or infinite).",
                    hint="Save the recording again with whole-number samples (PCM).",
                )
    except MediaRejected:
        raise
    except Exception as error:
        raise MediaRejected(f"{what} is a damaged {name} file.", hint=_RESAVE) from error
    if not frames:
        raise MediaRejected(f"{what} holds no sound.", hint="Send a recording with sound.")
    slack = _MP3_SLACK if name == "MP3" else 0
    if frames + slack < claimed:
        raise MediaRejected(
            f"{what} is truncated: {frames:,} of {claimed:,} samples can be read.", hint=_RESAVE
        )
    return frames


def _wav_chunks(data: Data, what: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, start and stated size of each chunk of a RIFF file. Raises MediaRejected."""
    at = 12
    for _ in range(_PARTS_MAX):
        if at + 8 > len(data):
            return
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        yield name, at + 8, size
        at += 8 + size + size % 2
    raise MediaRejected(
        f"{what} has more than {_PARTS_MAX:,} parts; it was not decoded.", hint=_RESAVE
    )


def _check_wav(data: Data, limits: MediaLimits, what: str) -> None:
    """Check the header of a WAV file against the limits and the file's own size.

    libsndfile trusts the file's size over its header, so that it does not detect truncated files.
    """
    rate = block = 0
    for name, start, size in _wav_chunks(data, what):
        if name == b"fmt " and size >= 16 and start + 16 <= len(data):
            rate, block = struct.unpack_from("<4xI4xH", data, start)
        if name == b"data":
            if size == _UNSTATED_BYTES:
                return
            if rate and block:
                _check_seconds(size / block / rate, limits, what)
            if start + size > len(data):
                raise MediaRejected(
                    f"{what} is truncated: {len(data) - start:,} of {size:,} bytes of sound are "
                    "there.",
                    hint="Send the whole file.",
                )
            return
    raise MediaRejected(f"{what} is a WAV file without sound.", hint=_RESAVE)


def _check_ogg(data: Data, what: str) -> None:
    """Walk the pages of an OGG file; the last one must be complete."""
    at = 0
    while at < len(data):
        head = data[at : at + 27]
        table = data[at + 27 : at + 27 + (head[26] if len(head) == 27 else 0)]
        end = at + 27 + len(table) + sum(table)
        if len(head) < 27 or head[:4] != b"OggS" or len(table) < head[26] or end > len(data):
            raise MediaRejected(f"{what} is a truncated or damaged OGG file.", hint=_RESAVE)
        at = end
