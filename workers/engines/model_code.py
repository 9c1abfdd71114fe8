"""The code that a model brings along: chat templates, and the regular expressions of tokenizers.

A template is a program and an expression can run for minutes, so each is shown to the people who
sign and review, and tried within limits in a process of its own before anything of it is trusted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry.sandbox.source import Declined, Ended
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


class Refused(Exception):
    """The code may not come in; the message says why."""


@dataclass(frozen=True, slots=True)
class Code:
    """One piece of code, of which `shown` is the beginning.

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
class _Found:
    """One piece of code in full; `patterns` are those of a tokenizer."""

    kind: str
    path: str
    source: str
    patterns: tuple[str, ...] = ()

    def code(self) -> Code:
        # Patterns joined to one text could be told apart in another way.
        whole = json.dumps(self.patterns) if self.patterns else self.source
        return Code(
            kind=self.kind,
            path=_storable(self.path),
            sha256=hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest(),
            characters=len(self.source),
            shown=_storable(self.source[:SHOWN_CHARACTERS]),
        )


def model_code(folder: Path, *, passes: Callable[[str], bool] | None = None) -> list[Code]:
    """Every piece of code in a model's folder, in the order of their paths.

    Args:
        folder: The files of a version.
        passes: Returns whether the code with this SHA-256 is known and need not be tried; None
            tries nothing.

    Raises:
        Refused: A piece is too large, there are too many, or a trial did not end within its limits.
    """
    found = sorted(_found(folder), key=lambda each: (each.path, each.kind))
    if len(found) > MAX_ITEMS:
        raise Refused(f"It holds {len(found)} templates and tokenizers; at most {MAX_ITEMS} may be")
    codes = [(each, each.code()) for each in found]
    if passes is not None:
        unknown = [each for each, code in codes if not passes(code.sha256)]
        if unknown:
            _try_all(unknown)
    return [code for _, code in codes]


def _storable(text: str) -> str:
    """The text with U+FFFD or "?" for what a database cannot hold."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _found(folder: Path) -> Iterator[_Found]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() == ".jinja":
            yield _template(name, path.read_text(encoding="utf-8"))
        elif path.suffix.lower() == ".json" and path.stat().st_size <= MAX_JSON_BYTES:
            yield from _in_json(name, json.loads(path.read_bytes()))


def _template(path: str, source: str) -> _Found:
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        raise Refused(
            f"{path} holds a chat template of {len(source)} characters; "
            f"at most {MAX_TEMPLATE_CHARACTERS} are accepted"
        )
    return _Found(TEMPLATE, path, source)


def _in_json(path: str, content: Any) -> Iterator[_Found]:
    """The templates and patterns of one file; loaders take both from several files."""
    if not isinstance(content, dict):
        return
    templates = content.get("chat_template")
    if isinstance(templates, dict):
        templates = [{"name": name, "template": text} for name, text in templates.items()]
    if isinstance(templates, str):
        yield _template(path, templates)
    elif isinstance(templates, list):
        for each in templates:
            if not isinstance(each, dict) or not isinstance(each.get("template"), str):
                raise Refused(f"{path} holds a malformed chat template")
            yield _template(f"{path} ({str(each.get('name'))[:80]})", each["template"])
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    patterns = tuple(pattern for part in parts for pattern in _patterns(path, content.get(part)))
    if patterns:
        if len(patterns) > MAX_PATTERNS:
            raise Refused(
                f"{path} holds {len(patterns)} patterns; at most {MAX_PATTERNS} are accepted"
            )
        yield _Found(PATTERNS, path, "\n".join(patterns), patterns)


def _patterns(path: str, part: Any) -> Iterator[str]:
    """Every {"Regex": …} below `part`, in order."""
    pending = [part]
    while pending:
        value = pending.pop(0)
        if isinstance(value, list):
            pending[:0] = value
        elif isinstance(value, dict):
            pattern = value.get("Regex")
            if isinstance(pattern, str):
                if len(pattern) > MAX_PATTERN_CHARACTERS:
                    raise Refused(
                        f"{path} holds a pattern of {len(pattern)} characters; "
                        f"at most {MAX_PATTERN_CHARACTERS} are accepted"
                    )
                yield pattern
            pending[:0] = value.values()


def _try_all(found: list[_Found]) -> None:
    """Run each piece on samples. Raises Refused."""
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
        for each in found:
            for number, request in enumerate(_trials(each), start=1):
                process = source.process()
                try:
                    process.ask(request)
                except Declined as error:
                    # A template may refuse a conversation; a pattern has to compile.
                    if each.kind == PATTERNS:
                        raise Refused(f"Pattern {number} of {each.path}: {error}") from error
                except Ended as error:
                    what = "The chat template" if each.kind == TEMPLATE else f"Pattern {number}"
                    raise Refused(
                        f"{what} of {each.path} did not end within its limits on a sample: {error}"
                    ) from error
                finally:
                    process.close()
    finally:
        source.close()


def _trials(found: _Found) -> Iterator[dict[str, Any]]:
    if found.kind == PATTERNS:
        for pattern in found.patterns:
            yield {"do": "pattern", "pattern": pattern, "samples": _samples(pattern)}
        return
    for messages in _conversations():
        yield {"do": "render", "template": found.source, "messages": messages}


def _conversations() -> list[list[dict[str, str]]]:
    """Conversations that templates take different ways through."""
    system = {"role": "system", "content": "Be brief."}
    asked = {"role": "user", "content": "What follows?"}
    said = {"role": "assistant", "content": "The next one."}
    return [[asked], [system, asked], [system, *([asked, said] * 50), asked]]


def _samples(pattern: str) -> list[str]:
    """Long runs of what the pattern is about, each with an end that it may not expect."""
    runs = [*dict.fromkeys("a1 \n\t!é漢" + "".join(filter(str.isprintable, pattern[:200])))]
    runs += ["aA", "a1", "a ", "1.", " \n"]
    return [
        (run * SAMPLE_CHARACTERS)[:SAMPLE_CHARACTERS] + end for run in runs for end in ("\0", "!x")
    ]
