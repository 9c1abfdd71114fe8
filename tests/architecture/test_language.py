"""Check how the repository is written: openings of docstrings, and words to avoid.

`python tests/architecture/test_language.py` prints what the tests count, with the places.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = (
    *("governance", "registry", "workers", "tasks", "platform/assay"),
    *("client", "tasks-extra", "examples/demo", "tools", "benchmarks"),
)
QUESTION = re.compile(r"(?:What|Who|Whom|Whose|Whether|Which|Where|How|Why|When|Until)\b")
# A comment may open with a condition: "When the broker is full, …".
QUESTION_IN_COMMENT = re.compile(
    r"^\s*# (?:What|Who|Whom|Whose|Whether|Which|How|Why)\b.*", re.MULTILINE
)
# Spellings that others fix: OpenAI's states of batches, asyncio, Slurm.
FIXED_NAMES = re.compile(
    r"\"(?:cancelling|cancelled|batch_cancelled)\"|`(?:cancelling|cancelled|batch_cancelled)`"
    r"|BatchState\.\w+|^    CANCELL(?:ING|ED) = |asyncio\.CancelledError|\.cancelled\(\)"
    r"|finalizing cancelling|\"CANCELLED\"",
    re.MULTILINE,
)
TEMPLATES = ROOT / "platform" / "assay"
LONGEST_LINE = 120


@dataclass(frozen=True)
class Avoided:
    """A pattern, the words to use instead, and how often it may still occur.

    `ceiling` only goes down: lower it when you remove some, and never raise it.
    """

    pattern: str
    instead: str
    ceiling: int


AVOIDED = (
    Avoided(r"\bnobody\b", "no one; better: state who may", 2),
    Avoided(r"\bsomebody\b", "a person, or name the role", 2),
    Avoided(r"\basked for\b", "requested", 2),
    Avoided(r"\bcomes? out otherwise\b", "differ", 0),
    Avoided(r"\bsays? of\b", "says about, states", 0),
    Avoided(r"\bbeside\b", "next to, in addition to", 0),
    Avoided(r"\bhears? (?:that|of|from)\b", "learns, is notified", 0),
    Avoided(r"\blets? (?:in|out)\b", "admit, release", 0),
    Avoided(r"\bas it is\b", "unchanged", 0),
    Avoided(r"\bthere is no\b[^.\n]* that\b", "no … does", 0),
    Avoided(r"\bartefacts?\b", "artifact (US spelling)", 0),
    Avoided(r"licence", "license (US spelling)", 0),
    Avoided(r"specialit", "specialty (US spelling)", 0),
    Avoided(r"break.?glass", "emergency access", 0),
    Avoided(r"\brecogni[s]e", "recognize (US spelling)", 0),
    Avoided(
        r"\b(?:behaviou|colou|favou|flavou|honou|labou|neighbou)r|\b(?:cent|met|fib)re\b"
        r"|\b(?:(?:after|to)wards|learnt|acknowledgement|judgement|catalogued?|analyse[ds]?)\b"
        r"|\b(?:author|custom|optim|quant|sanit|serial|summar|initial|normal|organ)is(?:e[ds]?|ing)\b"
        r"|organisation|\btravell|\bprogramme\b|cancell(?:ed|ing)",
        "the US spelling: behavior, color, center, afterward, learned, organization",
        0,
    ),
)


def modules() -> Iterator[tuple[Path, str]]:
    """Yield the path from the root and the text of every module of code and tests."""
    for folder in (*CODE, "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path.relative_to(ROOT), path.read_text()


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield the place and the first line of every docstring of code and tests."""
    for path, code in modules():
        for node in ast.walk(ast.parse(code)):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and (text := ast.get_docstring(node)):
                yield f"{path}:{getattr(node, 'lineno', 1)}", text.splitlines()[0]


def questions() -> list[str]:
    """Return the docstrings and comments that open with a question word, with their places."""
    return [
        *(f"{place}: {line}" for place, line in docstrings() if QUESTION.match(line)),
        *(
            f"{path}: {match[0].strip()}"
            for path, code in modules()
            for match in QUESTION_IN_COMMENT.finditer(code)
        ),
    ]


def long_template_lines() -> list[str]:
    """Return the places of template lines that are longer than `LONGEST_LINE` characters."""
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted(TEMPLATES.rglob("*.html"))
        if "static" not in path.parts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LONGEST_LINE
    ]


@cache
def texts() -> dict[str, str]:
    """Return every text that people read, by its path: code, templates and documentation."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for folder in CODE:
        for ending in ("py", "html", "yaml"):
            paths += (ROOT / folder).rglob(f"*.{ending}")
    return {
        str(path.relative_to(ROOT)): FIXED_NAMES.sub("", path.read_text())
        for path in paths
        if "migrations" not in path.parts and "vendor" not in path.parts
    }


def places(avoided: Avoided) -> list[str]:
    """Return where the pattern occurs, as `path:line`."""
    found = re.compile(avoided.pattern, re.IGNORECASE)
    return [
        f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
        for path, text in texts().items()
        for match in found.finditer(text)
    ]


@pytest.mark.sweep
def test_docstrings_and_comments_open_with_a_verb_or_a_noun() -> None:
    opened = questions()
    assert not opened, (
        "These open with a question word. "
        'Begin with a verb ("Return …") or a noun ("State of …"):\n' + "\n".join(opened)
    )


@pytest.mark.parametrize("avoided", AVOIDED, ids=lambda avoided: avoided.pattern)
def test_avoided_words_only_get_fewer(avoided: Avoided) -> None:
    found = places(avoided)
    assert len(found) <= avoided.ceiling, (
        f"{len(found)} times {avoided.pattern}, and {avoided.ceiling} are allowed. "
        f"Write: {avoided.instead}. The newest is among:\n" + "\n".join(found)
    )


def test_no_template_line_is_long() -> None:
    found = long_template_lines()
    assert not found, (
        f"These template lines have more than {LONGEST_LINE} characters. "
        "Put one element or attribute on a line:\n" + "\n".join(found)
    )


if __name__ == "__main__":
    sys.stdout.write(f"{len(questions()):5} openings with a question word\n")
    for rule in AVOIDED:
        sys.stdout.write(f"{len(places(rule)):5} {rule.pattern}  (write: {rule.instead})\n")
