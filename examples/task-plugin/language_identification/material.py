"""Make the tutorial's material: an initial model, and real texts in 20 languages.

    python -m language_identification.material FOLDER

The texts are the translations of Django's own interface (BSD-3-Clause), which is part of every
installation. A source sentence and all its translations go to one side of the split, so that no
test text is a translation of a training text.
"""

from __future__ import annotations

import json
import re
import struct
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import django
import numpy as np

from language_identification.ngrams import BUCKETS, save

LANGUAGES = (
    "bg", "ca", "cs", "da", "de", "el", "en", "es", "fi", "fr",
    "hu", "it", "nl", "pl", "pt", "ro", "ru", "sv", "tr", "uk",
)  # fmt: skip
SHORTEST = 16
TEST_SHARE = 5  # one source sentence in five
# Placeholders, markup and escapes are the same in every language.
_MARKUP = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w*\}|<[^>]+>|&\w+;|https?://\S+")


def read_mo(path: Path) -> Iterator[tuple[str, str]]:
    """Return source and translation of each message of a compiled gettext catalog."""
    data = path.read_bytes()
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    count, sources, translations = struct.unpack(f"{order}3I", data[8:20])
    for index in range(count):
        pair = []
        for table in (sources, translations):
            length, start = struct.unpack_from(f"{order}2I", data, table + 8 * index)
            # The first form of a message with a plural, without its context.
            text = data[start : start + length].split(b"\0")[0].split(b"\x04")[-1]
            pair.append(text.decode("utf-8"))
        if pair[0]:
            yield pair[0], pair[1]


def texts() -> list[tuple[str, str, str]]:
    """Return (language, text, source) of each usable text, each text once."""
    by_language: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(Path(django.__file__).parent.glob("**/LC_MESSAGES/django.mo")):
        language = path.parts[-3]
        if language not in LANGUAGES or language == "en":
            continue
        for source, translation in read_mo(path):
            by_language[language].setdefault(_clean(translation), source)
            by_language["en"].setdefault(_clean(source), source)
    languages = defaultdict(set)
    for language, translations in by_language.items():
        for text in translations:
            languages[text].add(language)
    return [
        (language, text, source)
        for language in LANGUAGES
        for text, source in sorted(by_language[language].items())
        if len(text) >= SHORTEST and len(languages[text]) == 1
    ]


def _clean(text: str) -> str:
    return " ".join(_MARKUP.sub(" ", text).split())


def write(folder: Path) -> dict[str, int]:
    """Write train.jsonl, test.jsonl and the initial model; return the number of rows of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for language, text, source in texts():
        part = "train" if zlib.crc32(source.encode()) % TEST_SHARE else "test"
        rows[part].append(json.dumps({"text": text, "label": language}, ensure_ascii=False))
    for part, lines in rows.items():
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    save(folder / "initial", np.zeros((0, BUCKETS)), np.zeros(0), [])
    return {part: len(lines) for part, lines in rows.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m language_identification.material FOLDER")
    for part, count in write(Path(sys.argv[1])).items():
        sys.stdout.write(f"{part}.jsonl: {count:,} rows\n")
    sys.stdout.write("initial/: config.json, model.safetensors\n")
