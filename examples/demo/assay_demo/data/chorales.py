"""Bach's chorales as MusicXML from the package `music21`, which is read but never imported.

The music is in the public domain. music21 (BSD) states that some encodings in its corpus may
restrict commercial use; the chorales' encodings state no rights. Only four-part pieces are used, on
a grid of half beats, without shorter notes between its points.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from assay_demo.data.materials import DEFAULT_FOLDER, Say, fetch_archive

_FILE = re.compile(r"music21/corpus/bach/(bwv[\d.]+)\.mxl")
_SCORES = (".xml", ".musicxml")
MAX_XML_BYTES = 4 * 1024**2
VOICES, STEPS_PER_BEAT = 4, 2
MIN_STEPS, MAX_STEPS = 32, 256
TEMPO = 96
# Symbols of the task text-to-audio.
VOCABULARY = 352
HELD_OUT_OF_256 = 40
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def chorales(
    folder: Path = DEFAULT_FOLDER, progress: Say | None = None
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return training and test rows {name, music}; a melody's harmonies are in one part."""
    sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
    seen = set()
    for name, root in _scores(fetch_archive("music21", folder, progress)):
        piece = _piece(root)
        if piece is None or piece[1] in seen:
            continue
        seen.add(piece[1])
        melody, music = piece[2], f"{piece[0]} {TEMPO} {piece[1]}"
        held_out = hashlib.sha256(melody.encode()).digest()[0] < HELD_OUT_OF_256
        sides[held_out][name] = music
    train, test = (
        [{"name": name, "music": music} for name, music in sorted(side.items())] for side in sides
    )
    return train, test


def json_lines(rows: list[dict[str, str]]) -> bytes:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _scores(archive: Path) -> Iterator[tuple[str, Any]]:
    with zipfile.ZipFile(archive) as wheel:
        for entry in sorted(wheel.namelist()):
            if (file_match := _FILE.fullmatch(entry)) is None:
                continue
            with zipfile.ZipFile(io.BytesIO(wheel.read(entry))) as packed:
                name = next(each for each in packed.namelist() if each.endswith(_SCORES))
                if packed.getinfo(name).file_size > MAX_XML_BYTES:
                    continue
                text = packed.read(name)
            if (root := _parse(text)) is not None:
                yield file_match[1], root


def _parse(text: bytes) -> Any:
    """Return the score; None for the few files that are in UTF-16 or not XML."""
    try:
        # The files are pinned by hash, and expat reads no external entities.
        return ET.fromstring(text)  # noqa: S314
    except ET.ParseError:
        return None


def _piece(root: Any) -> tuple[str, str, str] | None:
    """Return key, steps and melody (as intervals); None for pieces without exactly four voices."""
    parts = root.findall("part")
    if len(parts) != VOICES:
        return None
    key = _key(parts[0])
    voices = [_voice(part) for part in parts]
    if key is None or any(voice is None for voice in voices):
        return None
    length = min(len(voice) for voice in voices if voice is not None)
    if not MIN_STEPS <= length <= MAX_STEPS:
        return None
    steps = [",".join(_word(voice[at]) for voice in voices if voice) for at in range(length)]
    sung = [value for value in voices[0] or [] if isinstance(value, int)][:16]
    melody = ",".join(str(b - a) for a, b in pairwise(sung))
    return key, " ".join(steps), melody


def _word(value: int | str) -> str:
    return value if isinstance(value, str) else f"{_NAMES[value % 12]}{value // 12 - 1}"


def _key(part: Any) -> str | None:
    fifths = part.find(".//key/fifths")
    if fifths is None or not -7 <= int(fifths.text) <= 7:
        return None
    minor = part.findtext(".//key/mode") == "minor"
    tonic = (int(fifths.text) * 7 + (9 if minor else 0)) % 12
    return f"{_NAMES[tonic]} {'minor' if minor else 'major'}"


def _voice(part: Any) -> list[int | str] | None:
    """Return a voice's value at each half beat; None for notes that do not fit one voice."""
    values: dict[int, int | str] = {}
    now, divisions = Fraction(0), 1
    end = Fraction(0)
    for node in part.iter():
        if node.tag == "divisions":
            divisions = int(node.text)
        elif node.tag in ("backup", "forward"):
            return None
        elif node.tag == "note" and node.find("grace") is None and node.find("chord") is None:
            length = Fraction(int(node.findtext("duration", "0")), divisions)
            at = now * STEPS_PER_BEAT
            for step in range(-(-at.numerator // at.denominator), int((now + length) * 16)):
                if step >= (now + length) * STEPS_PER_BEAT:
                    break
                begins = step == at
                values[step] = (
                    _value(node) if begins else ("-" if node.find("rest") is not None else "_")
                )
            now += length
            end = now
    steps = [values.get(step) for step in range(int(end * STEPS_PER_BEAT))]
    return None if None in steps or not steps else steps  # type: ignore[return-value]


def _value(note: Any) -> int | str:
    if note.find("rest") is not None:
        return "-"
    if any(tie.get("type") == "stop" for tie in note.findall("tie")):
        return "_"
    letter, octave = note.findtext("pitch/step"), int(note.findtext("pitch/octave"))
    return _SEMITONES[letter] + int(note.findtext("pitch/alter", "0")) + 12 * (octave + 1)


def untrained_composer(folder: Path) -> Path:
    """Write a small Llama with random weights for music, ready for intake."""
    import torch
    import transformers

    torch.manual_seed(17)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=132,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=0,
        eos_token_id=0,
    )
    folder.mkdir(parents=True, exist_ok=True)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder
