"""Code in a model's files: chat templates, and the regular expressions of tokenizers.

A template is a program and an expression can run for minutes. People who sign and review see each
piece, and a bounded process tries it before it is trusted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry.sandbox.source import ProcessEnded, RequestDeclined
from workers.engines.bounded import Limits, prompt_source

TEMPLATE, PATTERNS = "chat template", "tokenizer patterns"
MAX_TEMPLATE_CHARACTERS = 256 * 1024
MAX_PATTERN_CHARACTERS = 8 * 1024
MAX_ITEMS = 16
MAX_PATTERNS = 64
# The largest tokenizers have about 35 MB; intake accepts no JSON file over 64 MiB.
MAX_JSON_BYTES = 64 * 1024 * 1024
SHOWN_CHARACTERS = 16 * 1024
SAMPLE_CHARACTERS = 4_000
TRIAL = Limits(seconds=10.0)


class CodeRejected(Exception):
    """The code is rejected; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Code:
    """One piece of code; `shown` is its beginning.

    `sha256` is over a template's text, or over a tokenizer's patterns as a JSON list.
    """

    kind: str
    path: str
    sha256: str
    characters: int
    shown: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One piece of code in full; `patterns` lists a tokenizer's regular expressions."""

    kind: str
    path: str
    source: str
    patterns: tuple[str, ...] = ()

    def code(self) -> Code:
        # The boundaries between patterns would be ambiguous in one joined text.
        text = json.dumps(self.patterns) if self.patterns else self.source
        return Code(
            kind=self.kind,
            path=_storable(self.path),
            sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            characters=len(self.source),
            shown=_storable(self.source[:SHOWN_CHARACTERS]),
        )


def model_code(folder: Path, *, passes: Callable[[str], bool] | None = None) -> list[Code]:
    """Return every piece of code in a model's folder, ordered by path.

    Args:
        folder: The files of a version.
        passes: Returns whether the code with this SHA-256 has passed and need not be tried; None
            skips all trials.

    Raises:
        CodeRejected: A piece is too large, there are too many, or a trial did not end within its
            limits.
    """
    pieces = sorted(_pieces(folder), key=lambda piece: (piece.path, piece.kind))
    if len(pieces) > MAX_ITEMS:
        raise CodeRejected(
            f"It holds {len(pieces)} templates and tokenizers; the limit is {MAX_ITEMS}"
        )
    codes = [(piece, piece.code()) for piece in pieces]
    if passes is not None:
        unknown = [piece for piece, code in codes if not passes(code.sha256)]
        if unknown:
            _try_all(unknown)
    return [code for _, code in codes]


def _storable(text: str) -> str:
    """Return the text with U+FFFD or "?" in place of characters that a database cannot store."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _pieces(folder: Path) -> Iterator[_Piece]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() == ".jinja":
            yield _template(name, path.read_text(encoding="utf-8"))
        elif path.suffix.lower() == ".json" and path.stat().st_size <= MAX_JSON_BYTES:
            yield from _in_json(name, json.loads(path.read_bytes()))


def _template(path: str, source: str) -> _Piece:
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        raise CodeRejected(
            f"{path} holds a chat template of {len(source)} characters; "
            f"at most {MAX_TEMPLATE_CHARACTERS} are accepted"
        )
    return _Piece(TEMPLATE, path, source)


def _in_json(path: str, content: Any) -> Iterator[_Piece]:
    """Yield the templates and patterns of one file; loaders read both from several files."""
    if not isinstance(content, dict):
        return
    templates = content.get("chat_template")
    if isinstance(templates, dict):
        templates = [{"name": name, "template": text} for name, text in templates.items()]
    if isinstance(templates, str):
        yield _template(path, templates)
    elif isinstance(templates, list):
        for entry in templates:
            if not isinstance(entry, dict) or not isinstance(entry.get("template"), str):
                raise CodeRejected(f"{path} holds a malformed chat template")
            yield _template(f"{path} ({str(entry.get('name'))[:80]})", entry["template"])
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    patterns = tuple(pattern for part in parts for pattern in _patterns(path, content.get(part)))
    if patterns:
        if len(patterns) > MAX_PATTERNS:
            raise CodeRejected(
                f"{path} holds {len(patterns)} patterns; at most {MAX_PATTERNS} are accepted"
            )
        yield _Piece(PATTERNS, path, "\n".join(patterns), patterns)


def _patterns(path: str, part: Any) -> Iterator[str]:
    """Yield every {"Regex": …} below `part`, in order."""
    pending = [part]
    while pending:
        value = pending.pop(0)
        if isinstance(value, list):
            pending[:0] = value
        elif isinstance(value, dict):
            pattern = value.get("Regex")
            if isinstance(pattern, str):
                if len(pattern) > MAX_PATTERN_CHARACTERS:
                    raise CodeRejected(
                        f"{path} holds a pattern of {len(pattern)} characters; "
                        f"at most {MAX_PATTERN_CHARACTERS} are accepted"
                    )
                yield pattern
            pending[:0] = value.values()


def _try_all(pieces: list[_Piece]) -> None:
    """Run each piece on samples. Raises CodeRejected."""
    source = prompt_source(
        {
            "tokenizer": None,
            "template": None,
            "special_tokens": {},
            "split_special_tokens": False,
            "max_length": None,
        },
        TRIAL,
    )
    try:
        for piece in pieces:
            for number, request in enumerate(_trials(piece), start=1):
                process = source.process()
                try:
                    process.ask(request)
                except RequestDeclined as error:
                    # A template may refuse a conversation; a pattern must compile.
                    if piece.kind == PATTERNS:
                        raise CodeRejected(f"Pattern {number} of {piece.path}: {error}") from error
                except ProcessEnded as error:
                    name = "The chat template" if piece.kind == TEMPLATE else f"Pattern {number}"
                    raise CodeRejected(
                        f"{name} of {piece.path} did not end within its limits on a sample: {error}"
                    ) from error
                finally:
                    process.close()
    finally:
        source.close()


def _trials(piece: _Piece) -> Iterator[dict[str, Any]]:
    if piece.kind == PATTERNS:
        for pattern in piece.patterns:
            yield {"do": "pattern", "pattern": pattern, "samples": _samples(pattern)}
        return
    for messages in _conversations():
        yield {"do": "render", "template": piece.source, "messages": messages}


def _conversations() -> list[list[dict[str, str]]]:
    """Return conversations that exercise different branches of a template."""
    system = {"role": "system", "content": "Be brief."}
    question = {"role": "user", "content": "What follows?"}
    answer = {"role": "assistant", "content": "The next one."}
    return [[question], [system, question], [system, *([question, answer] * 50), question]]


def _samples(pattern: str) -> list[str]:
    """Return long runs of characters that occur in the pattern, each with an unexpected end."""
    runs = [*dict.fromkeys("a1 \n\t!é漢" + "".join(filter(str.isprintable, pattern[:200])))]
    runs += ["aA", "a1", "a ", "1.", " \n"]
    return [
        (run * SAMPLE_CHARACTERS)[:SAMPLE_CHARACTERS] + end for run in runs for end in ("\0", "!x")
    ]
