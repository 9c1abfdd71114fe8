"""A dossier as a PDF to print and to file: the same bytes for the same sections.

Its font, DejaVu, is in `fonts/`. A character without a glyph is written as its code point, so that
no text is lost or hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.releases.exports.blocks import Block, Section
from registry.releases.exports.words import Fact

if TYPE_CHECKING:
    from fpdf import FPDF

# Limit of a PDF, after which only the JSON has the text. A page has about 4,000 characters.
MAX_CHARACTERS = 150_000
# Longer cells are written below their heading, since a row must fit on one page.
MAX_CELL = 400
_CUT = "Cut here. The whole dossier is in its JSON, which has the digest below."
_FONTS = Path(__file__).with_name("fonts")
_SANS, _MONO = "DejaVuSans", "DejaVuSansMono"
_GREY, _LINE, _ROW = (90, 98, 108), 4.6, 4.2
# No text contains this placeholder, since characters without a glyph are replaced.
_PAGES = "\ue000" * 3
# Control characters, and invisible ones that change the reading direction.
_MARKS = {*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_LINES = re.compile("\r\n?|[\u2028\u2029\x0b\x0c\x85]")


class _Budget:
    """Number of characters that may still be written, counted as the font writes them."""

    def __init__(self, glyphs: Iterable[int]) -> None:
        self._glyphs = frozenset(glyphs)
        self.left = MAX_CHARACTERS

    def take(self, text: str, *, line: bool = False) -> str:
        """Return the part of `text` that fits, in printable form; on one line if `line`."""
        text = _LINES.sub("\n", text[: self.left]).replace("\t", "    ")
        if line:
            text = " ".join(text.split())
        text = "".join(
            char if char == "\n" or ord(char) in self._glyphs else f"[U+{ord(char):04X}]"
            for char in text
        )[: self.left]
        self.left -= len(text)
        return text


def dossier_pdf(
    dossier: Mapping[str, Any], sections: Iterable[Section], *, digest: str, frozen_at: datetime
) -> bytes:
    """Return the PDF, A4, with the creation time `frozen_at`."""
    identity, release = dossier["identity"], dossier["release"]
    title = f"{identity['model']} v{identity['version']}"
    pdf, budget = _document(digest)
    pdf.set_title(f"Dossier of {title}")
    pdf.set_lang("en")
    pdf.set_producer("Assay")
    pdf.set_creation_date(frozen_at)
    pdf.add_page()
    _text(pdf, budget.take(f"Dossier: {title}", line=True), size=17, style="B", height=8)
    about = f"{release['deployment_name']} in {release['environment']}"
    _text(pdf, budget.take(about, line=True), size=10)
    _text(pdf, digest, size=7.5, family=_MONO, color=_GREY)
    for section in sections:
        if pdf.will_page_break(24):
            pdf.add_page()
        pdf.ln(4)
        pdf.start_section(section.title)
        _text(pdf, section.title, size=13, style="B", height=7)
        pdf.set_draw_color(200)
        pdf.line(pdf.l_margin, pdf.get_y(), pdf.w - pdf.r_margin, pdf.get_y())
        pdf.ln(1.5)
        for block in section.blocks:
            _block(pdf, budget, block)
            if not budget.left:
                _text(pdf, _CUT, style="B")
                return bytes(pdf.output())
    return bytes(pdf.output())


def _document(digest: str) -> tuple[FPDF, _Budget]:
    from fpdf import FPDF
    from fpdf.fonts import TTFFont

    class Dossier(FPDF):
        """PDF with the digest and the page number on every page."""

        def footer(self) -> None:
            self.set_y(-12)
            self.set_font(_SANS, size=6.5)
            self.set_text_color(*_GREY)
            self.cell(150, 5, f"Dossier {digest}")
            self.cell(0, 5, f"Page {self.page_no()} of {_PAGES}", align="R")

    pdf = Dossier(format="A4")
    pdf.add_font(_SANS, "", _FONTS / f"{_SANS}.ttf")
    pdf.add_font(_SANS, "B", _FONTS / f"{_SANS}-Bold.ttf")
    pdf.add_font(_MONO, "", _FONTS / f"{_MONO}.ttf")
    pdf.alias_nb_pages(_PAGES)
    pdf.set_margins(18, 16)
    pdf.set_auto_page_break(True, 18)
    # The bold and the monospaced font have fewer glyphs.
    pdf.set_fallback_fonts([_SANS], exact_match=False)
    font = pdf.fonts[_SANS.lower()]
    return pdf, _Budget(set(font.cmap) - _MARKS if isinstance(font, TTFFont) else ())


def _block(pdf: FPDF, budget: _Budget, block: Block) -> None:
    if block.title:
        if pdf.will_page_break(16):
            pdf.add_page()
        pdf.ln(1.5)
        _text(pdf, budget.take(block.title, line=True), size=9.5, style="B", height=6)
    if block.facts:
        _facts(pdf, budget, block.facts)
    if block.heads:
        _table(pdf, budget, block.heads, block.rows)
    if block.text:
        family, size = (_MONO, 7.5) if block.verbatim else (_SANS, 8.5)
        _text(pdf, budget.take(block.text), size=size, family=family)


def _facts(pdf: FPDF, budget: _Budget, facts: Sequence[Fact]) -> None:
    """Write short facts as a table, and a long one below its name, across pages if needed."""
    short: list[Sequence[str]] = []
    for name, value in facts:
        label, text = budget.take(name, line=True), budget.take(value)
        if len(text) <= MAX_CELL and len(label) <= MAX_CELL and text.count("\n") < 20:
            short.append((label, text))
            continue
        _rows(pdf, short, widths=(46, 128))
        short = []
        _text(pdf, label, size=8, style="B")
        _text(pdf, text, size=8)
        pdf.ln(1)
    _rows(pdf, short, widths=(46, 128))


def _table(pdf: FPDF, budget: _Budget, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    cells = [[budget.take(cell, line=True) for cell in row] for row in rows]
    if any(len(cell) > MAX_CELL for row in cells for cell in row):
        for row in cells:
            for head, cell in zip(heads, row, strict=True):
                _text(pdf, head, size=8, style="B")
                _text(pdf, cell, size=8)
            pdf.ln(2)
        return
    longest = [max(len(head), *(len(row[at]) for row in cells)) for at, head in enumerate(heads)]
    widths = [min(max(each, 11), 64) for each in longest] if cells else [1] * len(heads)
    _rows(pdf, cells, widths=widths, heads=heads)


def _rows(
    pdf: FPDF,
    rows: Sequence[Sequence[str]],
    *,
    widths: Sequence[float],
    heads: Sequence[str] = (),
) -> None:
    if not rows:
        return
    from fpdf.enums import TableBordersLayout, TableHeadingsDisplay
    from fpdf.fonts import FontFace

    pdf.set_font(_SANS, size=7.5)
    pdf.set_text_color(0)
    pdf.set_draw_color(215)
    with pdf.table(
        col_widths=tuple(widths),
        line_height=_ROW,
        text_align="LEFT",
        v_align="TOP",
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        first_row_as_headings=bool(heads),
        num_heading_rows=1 if heads else 0,
        headings_style=FontFace(family=_SANS, emphasis="BOLD", color=_GREY),
        repeat_headings=TableHeadingsDisplay.ON_TOP_OF_EVERY_PAGE,
        padding=(0.4, 1.2, 0.4, 0),
    ) as table:
        if heads:
            table.row(tuple(heads))
        for row in rows:
            cells = table.row()
            for at, cell in enumerate(row):
                bold = FontFace(emphasis="BOLD") if not heads and at == 0 else None
                cells.cell(cell, style=bold)
    pdf.ln(1)


def _text(
    pdf: FPDF,
    text: str,
    *,
    size: float = 8.5,
    style: str = "",
    family: str = _SANS,
    height: float = _LINE,
    color: tuple[int, int, int] = (0, 0, 0),
) -> None:
    pdf.set_font(family, style, size)
    pdf.set_text_color(*color)
    pdf.multi_cell(0, height, text, align="L", new_x="LMARGIN", new_y="NEXT")
