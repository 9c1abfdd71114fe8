"""Four-voice music as text, as tokens and as notes.

A step is half a beat. A piece is `A minor 96` (key and beats a minute) and then a word for each
step with the notes of soprano, alto, tenor and bass: `C#5,E4,A3,F#3 B4,_,_,E3`. A note starts
where it is named, `_` holds it, and `-` is a rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

VOICES = 4
STEPS_PER_BEAT = 2
MIN_STEPS, MAX_STEPS = 8, 512
LOWEST, HIGHEST = 24, 96
MIN_TEMPO, MAX_TEMPO = 30, 240
DEFAULT_TEMPO = 96

HOLD, REST = -1, -2
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_NOTE = re.compile(r"([A-G])([#b]?)(-?\d)")
_HEADER = re.compile(r"([A-G])([#b]?) (major|minor) (\d{1,3})")

# Tokens: the start, two modes, padding of the first step; then a block for each voice: hold, rest
# and notes. Pieces are transposed to C by up to half an octave, so that all keys share one model.
START, MAJOR, MINOR, PAD, FIRST = range(5)
MARGIN = 6
NOTES = HIGHEST - LOWEST + 1 + 2 * MARGIN
BLOCK = 2 + NOTES
VOCABULARY = FIRST + VOICES * BLOCK
# Tokens before the first step: the length of one step.
HEADER = VOICES


@dataclass(frozen=True, slots=True)
class Key:
    """A tonic, 0 to 11 from C, and its mode."""

    tonic: int
    minor: bool

    @property
    def name(self) -> str:
        """Return the name, such as `F# minor`."""
        return f"{_NAMES[self.tonic]} {'minor' if self.minor else 'major'}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece: each step has a MIDI number, `HOLD` or `REST` for each voice."""

    key: Key
    tempo: int
    steps: tuple[tuple[int, ...], ...]

    @property
    def notes(self) -> int:
        """Return the number of notes."""
        return sum(value >= 0 for step in self.steps for value in step)


def pitch(text: str) -> int:
    """Return the MIDI number of a note such as `C#5`.

    Raises:
        ValueError: the text is not a note from C1 to C7.
    """
    note = _NOTE.fullmatch(text)
    number = -1 if note is None else _semitones(note[1], note[2]) + 12 * (int(note[3]) + 1)
    if not LOWEST <= number <= HIGHEST:
        raise ValueError(f"{text[:20]!r} is not a note from C1 to C7")
    return number


def _semitones(letter: str, accidental: str) -> int:
    return _STEPS[letter] + {"#": 1, "b": -1, "": 0}[accidental]


def key_of(letter: str, accidental: str, mode: str) -> Key:
    """Return the key of a tonic such as `F`, `#` and a mode."""
    return Key(_semitones(letter, accidental) % 12, mode == "minor")


def parse(text: str) -> Piece:
    """Parse a piece.

    Raises:
        ValueError: the text is not a piece; the message names the place.
    """
    words = text.split()
    header = _HEADER.fullmatch(" ".join(words[:3]))
    if header is None or not MIN_TEMPO <= int(header[4]) <= MAX_TEMPO:
        raise ValueError(
            f"a piece begins with its key and {MIN_TEMPO} to {MAX_TEMPO} beats a minute, such as "
            "'A minor 96'"
        )
    if not MIN_STEPS <= len(words) - 3 <= MAX_STEPS:
        raise ValueError(f"a piece has {MIN_STEPS} to {MAX_STEPS} steps")
    steps = tuple(_step(word, number) for number, word in enumerate(words[3:], start=1))
    return Piece(key_of(header[1], header[2], header[3]), int(header[4]), steps)


def _step(word: str, number: int) -> tuple[int, ...]:
    values = word.split(",")
    if len(values) != VOICES:
        raise ValueError(f"step {number} has {len(values)} voices; there are {VOICES}")
    try:
        return tuple(
            {"_": HOLD, "-": REST}[each] if each in "_-" else pitch(each) for each in values
        )
    except (ValueError, KeyError) as error:
        raise ValueError(f"step {number}: {error}") from error


def written(piece: Piece) -> str:
    """Return a piece as text."""
    steps = (",".join(map(_word, step)) for step in piece.steps)
    return f"{piece.key.name} {piece.tempo} {' '.join(steps)}"


def _word(value: int) -> str:
    if value < 0:
        return "_" if value == HOLD else "-"
    return f"{_NAMES[value % 12]}{value // 12 - 1}"


def to_c(key: Key) -> int:
    """Return the semitones that transpose a piece to C: -5 to 6."""
    return (-key.tonic + 5) % 12 - 5


def header_tokens(key: Key) -> list[int]:
    """Return the tokens before the first step."""
    return [START, MINOR if key.minor else MAJOR, PAD, PAD]


def token_of(value: int, key: Key, voice: int) -> int:
    """Return the token of a voice's value in a piece in `key`."""
    first = FIRST + voice * BLOCK
    if value < 0:
        return first + (value == REST)
    return first + 2 + value + to_c(key) - LOWEST + MARGIN


def value_of(token: int, key: Key) -> int:
    """Return the value of a token of any voice in a piece in `key`."""
    at = (token - FIRST) % BLOCK
    return (HOLD, REST)[at] if at < 2 else at - 2 - to_c(key) + LOWEST - MARGIN


def tokens(piece: Piece) -> list[int]:
    """Return the tokens of the piece, voice by voice within each step, without the tempo."""
    steps = [
        token_of(value, piece.key, voice)
        for step in piece.steps
        for voice, value in enumerate(step)
    ]
    return header_tokens(piece.key) + steps


def key_from(name: str) -> Key:
    """Return the key of a name such as `F# minor`."""
    return key_of(name[0], name[1:-6], name[-5:])
