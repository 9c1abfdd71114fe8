"""Piper's English voice Joe: real ONNX weights (MIT), and texts that it speaks."""

from __future__ import annotations

import json
from pathlib import Path

from assay_demo.data.espeak import espeak_ng
from assay_demo.data.materials import DEFAULT_FOLDER, Say, fetch

# Written for this demonstration.
TEXTS = (
    "The review is complete, and the model can be released today.",
    "Please send the report to the board before Friday.",
    "A small fox jumped over the frozen river at dawn.",
    "How many people signed the new contract last week?",
    "The train to the coast leaves at half past seven.",
    "Our garden has three apple trees and one old pear tree.",
    "Nobody expected the storm to last for more than a day.",
    "She opened the window, looked outside, and began to laugh.",
    "Every change to a record is written down with its reason.",
    "The kitchen smelled of bread, coffee and fresh oranges.",
    "Can you repeat the last part more slowly?",
    "Two engineers found the fault within twenty minutes.",
    "Winter came early that year, and the lake was white by November.",
    "The library opens at nine and closes at six.",
    "He paid for the bicycle with the money from his summer job.",
    "A good answer is short, true and easy to check.",
    "The music stopped, but the children went on dancing.",
    "We measured the temperature of the water every hour.",
    "Do not forget to lock the door when you leave.",
    "The committee approved the budget without a single question.",
)


def piper_joe(target: Path, folder: Path = DEFAULT_FOLDER, progress: Say | None = None) -> Path:
    """Write the voice's files for intake into `target`, and return it.

    Raises:
        MaterialsUnavailable: the voice, or the program espeak-ng that it needs, is not available.
    """
    espeak_ng(folder, progress)
    source = fetch(folder, ["piper_joe"], progress)["piper_joe"]
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.onnx").write_bytes((source / "model.onnx").read_bytes())
    config = json.loads((source / "voice.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["PiperVoice"], "voices": ["joe"]}
    (target / "config.json").write_text(
        json.dumps(config, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    return target
