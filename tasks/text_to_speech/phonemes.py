"""Phonemes of a text, by the program espeak-ng.

espeak-ng is free software under the GPL; Assay is not. The platform neither contains it nor links
to it: it runs as a separate program, if the machine has it, and exchanges text through its standard
streams. `ASSAY_ESPEAK_NG` is its path if it is not on `PATH`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from assay.plugins import run

PROGRAM = "espeak-ng"
SECONDS = 20
VOICE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,12}){0,4}")
# Words up to a pause. A mark inside a number or a name, as in 3.5, does not make a pause.
# A run of marks is matched from its first mark only; otherwise long runs take quadratic time.
_CLAUSE = re.compile(
    r"(?P<words>.*?)(?P<mark>(?<![.!?;:,…])[.!?;:,…]++(?=[\s\"'”’)\]]|$)|$)", re.DOTALL
)
_ENDS = ".!?…"


@dataclass(frozen=True, slots=True)
class Clause:
    """Phonemes of a few words, and the mark after them: one of `.,!?;:`, or an empty text."""

    phonemes: str
    mark: str

    @property
    def ends_sentence(self) -> bool:
        return self.mark in (".", "!", "?")


class Phonemizer:
    """Turns text into phonemes in one language. Raises UnsupportedModel without espeak-ng."""

    def __init__(self, voice: str) -> None:
        if not VOICE.fullmatch(voice):
            raise run.UnsupportedModel(f"config.json names {voice[:40]!r} as its language.")
        program = _program()
        if program is None:
            raise run.UnsupportedModel(
                "This voice needs the program espeak-ng, which this machine does not have. Install "
                "it (Debian: apt install espeak-ng), or set ASSAY_ESPEAK_NG to its path."
            )
        self._command = [program, "-q", "--ipa", "-v", voice, "--stdin"]

    def clauses(self, text: str) -> list[Clause]:
        """Return the clauses of a text. Raises RequestRefused when it has no words."""
        parts = [
            (" ".join(clause["words"].split()), clause["mark"])
            for clause in _CLAUSE.finditer(text)
            if any(character.isalnum() for character in clause["words"])
        ]
        if not parts:
            raise run.RequestRefused("The text has no words that can be spoken.")
        lines = self._phonemes([words for words, _ in parts])
        return [
            Clause(phonemes, _mark(mark)) for phonemes, (_, mark) in zip(lines, parts, strict=True)
        ]

    def _phonemes(self, clauses: list[str]) -> list[str]:
        """Return the phonemes of each clause. Blank lines separate clauses, so that each gets a
        line of output; if the number of lines differs, process each clause separately."""
        if len(clauses) > 1:
            lines = self._run("\n\n".join(clauses))
            if len(lines) == len(clauses):
                return lines
        return [" ".join(self._run(clause)) for clause in clauses]

    def _run(self, text: str) -> list[str]:
        try:
            output = _output(self._command, text)
        except (subprocess.SubprocessError, OSError) as error:
            raise run.RequestRefused(
                "The text could not be turned into phonemes; try a shorter one.", status=503
            ) from error
        lines = output.decode("utf-8", "replace").splitlines()
        return [line.strip() for line in lines if line.strip()]


def espeak_speech(text: str) -> bytes | None:
    """Return a WAV file of the text in espeak-ng's own voice, or None without the program."""
    if (program := _program()) is None:
        return None
    try:
        return _output([program, "-v", "en-us", "--stdout", "--stdin"], text)
    except (subprocess.SubprocessError, OSError):
        return None


def _program() -> str | None:
    return shutil.which(os.environ.get("ASSAY_ESPEAK_NG") or PROGRAM)


def _output(command: list[str], text: str) -> bytes:
    return subprocess.run(
        command,
        input=text.encode("utf-8", "replace"),
        capture_output=True,
        timeout=SECONDS,
        check=True,
        env={"LANG": "C.UTF-8", "PATH": os.defpath},
    ).stdout


def _mark(marks: str) -> str:
    """Return the strongest of several marks, since voices know only single ones."""
    for mark in "?!":
        if mark in marks:
            return mark
    if any(each in marks for each in _ENDS):
        return "."
    return marks[:1]
