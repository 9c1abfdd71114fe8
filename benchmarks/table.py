"""The table of results that all benchmarks print, with one row per measurement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of repeated measurements. `reference` is None without a comparison."""

    name: str
    unit: str
    subject: float
    reference: float | None
    rounds: int

    @classmethod
    def of(
        cls, name: str, unit: str, subject: Iterable[float], reference: Iterable[float] = ()
    ) -> Row:
        """Return a row from the samples of interleaved rounds."""
        subjects, references = list(subject), list(reference)
        return cls(
            name, unit, median(subjects), median(references) if references else None, len(subjects)
        )


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def show(title: str, reference: str, rows: Iterable[Row]) -> None:
    """Print the rows, with the ratio subject ÷ reference."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for heading in ("Assay", reference, "ratio", "unit", "rounds"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.subject:,.2f}",
            "–" if row.reference is None else f"{row.reference:,.2f}",
            "–" if not row.reference else _ratio(row.subject / row.reference),
            row.unit,
            str(row.rounds),
        )
    Console().print(table)
