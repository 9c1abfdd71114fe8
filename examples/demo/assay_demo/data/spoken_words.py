"""Ten spoken words for the audio demonstration, and a base pretrained on speech.

The words are from Google's Speech Commands, spoken by the program espeak-ng in many voices and
mixed with noise. Training and test data have different voices. The recordings are synthetic, so a
model's results on them say little about human speech. The base is the first part of Whisper's
encoder (MIT license): its convolutions and two of its six layers, for windows of one second, with a
new head.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay_demo.data.espeak import espeak_ng, run
from assay_demo.data.materials import DEFAULT_FOLDER, Say
from assay_demo.data.whisper import HEADS, WIDTH, whisper_base

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp")
# Variants of espeak-ng that sound human; every fifth is held out.
VOICES = (
    "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique",
    "Hugo", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "Reed", "Storm", "adam",
    "anika", "announcer", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david",
    "ed", "edward", "edward2", "f1", "f2", "f3", "f4", "f5", "grandma", "grandpa", "gustave",
    "ian", "iven", "iven2", "iven3", "john", "kaukovalta", "klatt", "klatt2", "klatt3", "klatt4",
    "klatt5", "klatt6", "linda", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "marcelo", "max",
    "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro",
    "shelby", "steph", "steph2", "steph3", "travis", "victor", "zac",
)  # fmt: skip
HELD_OUT = VOICES[::5]
RATE = 16_000
LAYERS = 2
_POSITIONS = 50
_PROJECTION = 128


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """One second of sound as FLAC, and the word in it."""

    flac: bytes
    word: str


def spoken_words(
    folder: Path = DEFAULT_FOLDER, progress: Say | None = None
) -> tuple[list[SpokenWord], list[SpokenWord]]:
    """Return training and test recordings of different voices. Deterministic.

    Raises:
        MaterialsUnavailable: espeak-ng is not available.
    """
    target = folder / "spoken_words"
    if not target.is_dir():
        program = espeak_ng(folder, progress)
        if progress is not None:
            progress("speaking ten words in many voices")
        part = folder / "spoken_words.part"
        shutil.rmtree(part, ignore_errors=True)
        for voice in VOICES:
            for word in WORDS:
                for take in range(2 if voice in HELD_OUT else 1):
                    file = part / ("test" if voice in HELD_OUT else "train") / word
                    file.mkdir(parents=True, exist_ok=True)
                    (file / f"{voice}-{take}.flac").write_bytes(
                        _word_audio(program, word, voice, take)
                    )
        part.rename(target)
    return _read(target / "train"), _read(target / "test")


def audio_folder(words: list[SpokenWord]) -> bytes:
    """Return the recordings as a zip archive with a folder for each label."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, each in enumerate(words):
            archive.writestr(zipfile.ZipInfo(f"{each.word}/{number:04}.flac"), each.flac)
    return stream.getvalue()


def word_base(target: Path, folder: Path = DEFAULT_FOLDER, progress: Say | None = None) -> Path:
    """Write a classifier on the first part of Whisper's encoder into `target`, and return it."""
    import numpy
    from safetensors.numpy import load_file, save_file

    whisper = whisper_base(folder, progress)
    tensors: dict[str, Any] = load_file(whisper / "model.safetensors")
    selected: dict[str, Any] = {}
    for name, tensor in tensors.items():
        to = name.removeprefix("model.")
        if not to.startswith("encoder."):
            continue
        if to.startswith("encoder.layers.") and int(to.split(".")[2]) >= LAYERS:
            continue
        selected[to] = tensor[:_POSITIONS] if to == "encoder.embed_positions.weight" else tensor
    generator = numpy.random.default_rng(17)
    for name, rows, columns in (
        ("projector", _PROJECTION, WIDTH),
        ("classifier", 2, _PROJECTION),
    ):
        selected[f"{name}.weight"] = generator.normal(0, 0.02, (rows, columns)).astype("float16")
        selected[f"{name}.bias"] = numpy.zeros(rows, "float16")
    target.mkdir(parents=True, exist_ok=True)
    save_file({key: value.copy() for key, value in selected.items()}, target / "model.safetensors")
    config = json.loads((whisper / "config.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": ["WhisperForAudioClassification"],
        "encoder_layers": LAYERS,
        "num_hidden_layers": LAYERS,
        "encoder_attention_heads": HEADS,
        "max_source_positions": _POSITIONS,
        "classifier_proj_size": _PROJECTION,
        "use_weighted_layer_sum": False,
        "id2label": {"0": "first", "1": "second"},
        "label2id": {"first": 0, "second": 1},
    }
    extractor = json.loads((whisper / "preprocessor_config.json").read_text(encoding="utf-8"))
    for name, content in (
        ("config.json", config),
        ("preprocessor_config.json", extractor | {"chunk_length": 1}),
    ):
        (target / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return target


def _read(folder: Path) -> list[SpokenWord]:
    files = sorted(folder.glob("*/*.flac"))
    return [SpokenWord(file.read_bytes(), file.parent.name) for file in files]


def _word_audio(program: Path, word: str, voice: str, take: int) -> bytes:
    """Return one second of noise with a word at a random position, determined by the arguments."""
    import numpy
    import soundfile
    from scipy.signal import resample_poly

    seed = zlib.crc32(f"{word} {voice} {take}".encode())
    generator = numpy.random.default_rng(seed)
    accent = ACCENTS[(seed + take) % len(ACCENTS)]
    speed, pitch = generator.integers(110, 200), generator.integers(25, 75)
    recording = run(
        program,
        ["-v", f"{accent}+{voice}", "-s", str(speed), "-p", str(pitch), "--stdout", word],
    )
    samples, rate = soundfile.read(io.BytesIO(recording))
    shared = numpy.gcd(RATE, rate)
    samples = resample_poly(samples, RATE // shared, rate // shared)[:RATE]
    samples *= 0.5 / max(float(numpy.abs(samples).max()), 1e-3)
    mixed = numpy.zeros(RATE)
    start = int(generator.integers(0, RATE - len(samples) + 1))
    mixed[start : start + len(samples)] = samples
    signal_to_noise = generator.uniform(0, 15)
    mixed += noise(generator, RATE, float(numpy.mean(samples**2)) / 10 ** (signal_to_noise / 10))
    stream = io.BytesIO()
    soundfile.write(stream, numpy.clip(mixed, -1, 1), RATE, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def noise(generator: Any, length: int, power: float) -> Any:
    """Return noise between white and pink with mean power `power`."""
    import numpy

    spectrum = numpy.fft.rfft(generator.normal(size=length))
    spectrum /= numpy.maximum(numpy.arange(len(spectrum)), 20) ** (generator.uniform() / 2)
    sound = numpy.fft.irfft(spectrum, length)
    return sound * numpy.sqrt(power / numpy.mean(sound**2))
