"""Recordings with transcripts for the speech demonstration, from Debian's `pocketsphinx-testdata`.

Five sentences of "Sense and Sensibility", read by a volunteer of LibriVox (public domain).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from assay_demo.data.debian import fetch_debian
from assay_demo.data.materials import DEFAULT_FOLDER, Say

_LINE = re.compile(r"<s>\s*(?P<text>.*?)\s*</s>\s*\((?P<name>[\w-]+)\)")
# The transcript says "more a amiable"; the reader does not.
_CORRECTED = {"more a amiable": "more amiable"}


def recordings(
    target: Path, folder: Path = DEFAULT_FOLDER, progress: Say | None = None
) -> list[dict[str, str]]:
    """Write the WAV files into `target` under their SHA-256; return rows {audio, text}.

    Raises:
        MaterialsUnavailable: the package cannot be fetched.
    """
    data = fetch_debian("librivox", folder, progress)
    rows: list[dict[str, str]] = []
    for line in (data / "transcription").read_text().splitlines():
        if (entry := _LINE.match(line)) is None:
            continue
        wav = (data / f"{entry['name']}.wav").read_bytes()
        name = hashlib.sha256(wav).hexdigest()
        (target / name).write_bytes(wav)
        text = entry["text"]
        for wrong, right in _CORRECTED.items():
            text = text.replace(wrong, right)
        rows.append({"audio": name, "text": text})
    return rows
