"""Classify errors that end a run, by whether another attempt may succeed.

Does not import Django. A failure of the infrastructure says nothing about the material.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from governance.errors import DomainError, Unavailable
from registry.manifests import FilesUnreadable
from workers.run.outcome import DETAIL_CHARACTERS, SENTENCE_CHARACTERS, Ending

_FULL = {errno.ENOSPC: "The disk is full", errno.EDQUOT: "The disk quota is used up"}
# Errors of a machine or its network that may not recur.
_MACHINE = frozenset(
    {
        errno.EIO, errno.ESTALE, errno.EROFS, errno.ENFILE, errno.EMFILE, errno.ENODEV, errno.ENXIO,
        errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT,
        errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.EAGAIN,
    }
)  # fmt: skip
# Libraries raise their own errors that contain the system's messages.
_FULL_WORDS = (
    *(os.strerror(number) for number in _FULL),
    "os error 28",
    "os error 122",
    "PytorchStreamWriter failed writing",
)
_MEMORY_WORDS = ("out of memory", "can't allocate memory", os.strerror(errno.ENOMEM))
# Programming errors, which the same work raises again.
_PROGRAM = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, NameError,
    NotImplementedError, RecursionError, StopIteration, SyntaxError, SystemExit, TypeError,
    ValueError,
)  # fmt: skip
_CHAIN_MAX = 20


class MissingRequirement(Exception):
    """This machine lacks something that the work needs; the message tells people what."""


class FaultyCode(Exception):
    """The code of a task broke its contract; the message names the fault and how to fix it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The end of a run: its kind, a sentence, and a traceback for the authors of the code."""

    ending: Ending
    sentence: str
    detail: str = ""


def failure_of(error: BaseException, *, material: type[BaseException] | tuple[()] = ()) -> Failure:
    """Return the failure of work that raised `error`. `material` is the class of errors whose
    message tells why the material cannot be used."""
    if isinstance(error, DomainError):
        ending = Ending.LACKING if is_lack(error) else Ending.UNUSABLE
        return Failure(ending, error.message[:SENTENCE_CHARACTERS])
    if room := lack_of_room(error):
        return _failure(Ending.LACKING, room, error)
    if isinstance(error, MissingRequirement):
        return Failure(Ending.LACKING, str(error)[:SENTENCE_CHARACTERS])
    if isinstance(error, material):
        return Failure(Ending.UNUSABLE, _text(error)[:SENTENCE_CHARACTERS])
    if isinstance(error, FaultyCode):
        return _failure(Ending.FAULTY, _text(error), error)
    text = f"{type(error).__name__}: {_text(error)}"
    if isinstance(error, MemoryError) or _has(error, _MEMORY_WORDS):
        sentence = f"The memory of the machine or device ran out. Use a smaller batch. {text}"
        return _failure(Ending.BROKEN, sentence, error)
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return _failure(Ending.LACKING, f"The machine failed. {text}", error)
    closed = isinstance(error, OSError) and error.errno == errno.EBADF
    if closed or isinstance(error, _PROGRAM):
        return _failure(Ending.FAULTY, f"The code of the work failed. {text}", error)
    return _failure(Ending.BROKEN, text, error)


def is_lack(error: DomainError) -> bool:
    """Return whether a store or file could not be reached, so that its bytes are unknown."""
    return isinstance(error, (Unavailable, FilesUnreadable)) or _is_full(error)


def lack_of_room(error: BaseException) -> str:
    """Return a sentence about a full disk; empty if that was not the cause."""
    if not _is_full(error):
        return ""
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in _FULL:
            place = f", at {cause.filename}" if cause.filename else ""
            return f"{_FULL[cause.errno]}{place}. Free space on the worker's machine."
    text = f"{type(error).__name__}: {_text(error)}"
    return f"The disk is full. Free space on the worker's machine. {text}"


def _is_full(error: BaseException) -> bool:
    numbers = (each.errno for each in _chain(error) if isinstance(each, OSError))
    return any(number in _FULL for number in numbers) or _has(error, _FULL_WORDS)


def _has(error: BaseException, words: tuple[str, ...]) -> bool:
    texts = [_text(each).lower() for each in _chain(error)]
    return any(word.lower() in text for text in texts for word in words)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "(its message cannot be formatted)"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    at: BaseException | None = error
    for _ in range(_CHAIN_MAX):
        if at is None:
            return
        yield at
        at = at.__cause__ or at.__context__


def _failure(ending: Ending, sentence: str, error: BaseException) -> Failure:
    try:
        lines = "".join(traceback.format_exception(error, limit=50))
    except BaseException:
        lines = ""
    return Failure(ending, sentence[:SENTENCE_CHARACTERS], lines[-DETAIL_CHARACTERS:])
