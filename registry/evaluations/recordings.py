"""Recordings of an evaluation's samples, for the people who may see the evaluation.

A sample names a recording of the test data by its SHA-256 (`input_audio`), or holds a short one
that the model made, in a data URL (`output_audio`). A worker wrote the sample, so a name opens only
recordings in the test data, and a data URL only valid audio.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from governance.errors import NotFound
from governance.principals import Principal
from registry.datasets.preview import OpenedMedia, media_open
from registry.datasets.stored import media_records
from registry.evaluations.models import Evaluation
from registry.evaluations.selectors import evaluation_get
from registry.media.checks import CONTENT_TYPES, content_type_of

# Number of an evaluation's samples that pages show.
SAMPLES_SHOWN = 8
PARTS = ("input", "expected", "output", "baseline")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DATA = re.compile(r"data:audio/[a-z]{1,10};base64,")
# About a minute of speech as OGG.
_DATA_CHARACTERS = 500_000


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording; `data` is None if the test data has the bytes."""

    sha256: str
    data: bytes | None = None


def recording_of(sample: Mapping[str, Any], part: str) -> Recording | None:
    """Return the recording of one part of a sample; None without a valid one."""
    value = sample.get(f"{part}_audio")
    if not isinstance(value, str):
        return None
    if _SHA256.fullmatch(value):
        return Recording(value)
    if len(value) > _DATA_CHARACTERS or (match := _DATA.match(value)) is None:
        return None
    try:
        data = base64.b64decode(value[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        return None
    if CONTENT_TYPES.get(content_type_of(data[:64]) or "") != "audio":
        return None
    return Recording(hashlib.sha256(data).hexdigest(), data)


def sample_recording_open(*, actor: Principal, id: int, sha256: str) -> OpenedMedia:  # noqa: A002
    """Return a recording that the shown samples of an evaluation hold or name.

    Samples contain thumbnails of images, so recordings open for the same people: everyone who may
    see the evaluation.

    Raises:
        NotFound: the actor may see no such evaluation, or its samples have no such recording.
        Unavailable: the store lacks the file, or holds other bytes.
    """
    evaluation = evaluation_get(actor=actor, id=id)
    for recording in _recordings(evaluation):
        if recording.sha256 != sha256:
            continue
        if recording.data is not None:
            return OpenedMedia(recording.data, content_type_of(recording.data[:64]) or "")
        record = media_records(evaluation.dataset_version, {sha256}).get(sha256)
        if record is not None and record.media.kind == "audio":
            return media_open(evaluation.dataset_version, record)
    raise NotFound("The samples of this evaluation have no such recording.")


def _recordings(evaluation: Evaluation) -> Iterator[Recording]:
    for sample in evaluation.details.get("samples", [])[:SAMPLES_SHOWN]:
        for part in PARTS:
            if (recording := recording_of(sample, part)) is not None:
                yield recording
