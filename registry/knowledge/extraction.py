"""Extract an uploaded document's text in a process with limits on time and memory."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from governance.errors import InvalidInput, TooLarge
from registry.knowledge.visible import visible
from registry.sandbox.readers import Reach, bound_process, run_bounded, upload_places

SECONDS = 120
MEMORY_BYTES = 1024**3
MAX_CHARACTERS = 5_000_000
MAX_PAGES = 3_000
SUFFIXES = (".txt", ".md", ".html", ".htm", ".pdf")
_places = upload_places()
_BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "address article blockquote br dd div dl dt figcaption footer h1 h2 h3 h4 h5 h6 header "
        "hr li main nav ol p pre section table td th tr ul",
    )
)
_SILENT = frozenset({"noscript", "script", "style", "template", "title"})


def extract_text(source: Path, suffix: str, *, owner: str) -> str:
    """Return the text of a document; `suffix` is its format, one of `SUFFIXES`.

    Documents of one `owner` cannot take all places of readers.

    Raises:
        InvalidInput: the document is of another format, has no text, or cannot be read.
        TooLarge: more than `MAX_CHARACTERS` or `MAX_PAGES`.
        QuotaExceeded, Unavailable: too many uploads are being read.
    """
    if suffix not in SUFFIXES:
        raise InvalidInput(
            f"Documents are {', '.join(SUFFIXES)}; this is {suffix[:20] or 'without a suffix'}.",
            code="unsupported_document",
            hint="Save it as plain text, Markdown, HTML or PDF.",
            fields={"file": [f"One of {', '.join(SUFFIXES)}."]},
        )
    target = source.with_name(f"{source.name}.text")
    target.touch()
    run_bounded(
        "registry.knowledge.extraction",
        {"source": str(source), "suffix": suffix, "target": str(target)},
        reach=Reach(read=[source], own=[target]),
        seconds=SECONDS,
        memory_bytes=MEMORY_BYTES,
        places=_places,
        owner=owner,
    )
    return target.read_text(encoding="utf-8")


def read_text(source: Path, suffix: str) -> str:
    """Extract a document's text in this process. Raises InvalidInput and TooLarge."""
    text = _pdf_text(source) if suffix == ".pdf" else _decoded(source.read_bytes())
    if suffix in (".html", ".htm"):
        parser = _Text()
        parser.feed(text)
        parser.close()
        text = "".join(parser.parts)
    text = _tidied(text)
    if not text:
        raise InvalidInput(
            "The document holds no text.",
            code="empty_document",
            hint="A PDF of scanned pages has none; run text recognition on it first.",
            fields={"file": ["It holds no text."]},
        )
    if len(text) > MAX_CHARACTERS:
        raise TooLarge(
            f"The text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are accepted.",
            hint="Split the document.",
        )
    return text


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"The document is not UTF-8 text: byte {error.start:,} cannot be read.",
            code="binary_document",
            hint="Save it as UTF-8.",
            fields={"file": ["It is not UTF-8 text."]},
        ) from error
    if "\0" in text:
        raise InvalidInput(
            "The document holds a NUL character, so it is not a text.",
            code="binary_document",
            fields={"file": ["It is not a text."]},
        )
    return text


def _pdf_text(source: Path) -> str:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(source)
        if reader.is_encrypted:
            raise InvalidInput(
                "The PDF is encrypted.", hint="Save it without a password.", code="encrypted_pdf"
            )
        if len(reader.pages) > MAX_PAGES:
            raise TooLarge(
                f"The PDF has {len(reader.pages):,} pages; at most {MAX_PAGES:,} are accepted."
            )
        parts, length = [], 0
        for page in reader.pages:
            parts.append(page.extract_text())
            length += len(parts[-1])
            if length > MAX_CHARACTERS:
                break
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"The PDF cannot be read: {type(error).__name__}.",
            hint="Open it and save it again.",
            code="unreadable_pdf",
        ) from error
    return "\n\n".join(parts)


def _tidied(text: str) -> str:
    """Return the text with plain line ends, without invisible characters or repeated spaces."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\N{REPLACEMENT CHARACTER}")
    text = re.sub("[\f\v]", " ", text)
    text = visible(text.encode("utf-8", "replace").decode())
    text = re.sub(r"[ \t\f\v\u00a0]+", " ", text)
    return re.sub(r"\n\s*\n\s*", "\n\n", re.sub(r" ?\n ?", "\n", text)).strip()


class _Text(HTMLParser):
    """Collector of the visible text of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent += 1
        elif tag in _BLOCKS:
            self.parts.append("\n\n" if tag in ("p", "section", "h1", "h2", "h3") else "\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


def _do(order: dict[str, Any]) -> None:
    text = read_text(Path(order["source"]), order["suffix"])
    Path(order["target"]).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    json.dump(bound_process(_do, json.load(sys.stdin)), sys.stdout)
