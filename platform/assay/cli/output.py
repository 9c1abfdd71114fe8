"""Output of the commands: tables, sentences or JSON on stdout, errors and progress on stderr."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

Row = Mapping[str, Any]
# Name of a field of the row, or a function that returns the cell.
Column = str | Callable[[Any], Any]

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

STYLES = {
    "succeeded": "green",
    "approved": "green",
    "serving": "green",
    "trusted": "green",
    "ready": "green",
    "running": "cyan",
    "in_review": "cyan",
    "changes_requested": "yellow",
    "retiring": "yellow",
    "failed": "red",
    "dead": "red",
    "rejected": "red",
    "refused": "red",
    "revoked": "red",
    "expired": "red",
    "missing": "red",
    "recalled": "red",
    "suspended": "red",
    "voided": "red",
    "critical": "red",
    "high": "yellow",
    "investigating": "cyan",
    "resolved": "green",
    "inactive": "yellow",
}
# Columns that people copy into the next command. They and the first column are never cut.
IDS = frozenset({"id", "version", "release", "job", "digest", "version id", "state"})
# Columns shrink to this width before one is left out.
NARROWEST = 12
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
# Exit code after Ctrl-C: 128 and the number of SIGINT.
INTERRUPTED = 130

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class CliError(Exception):
    """Error in one sentence, with a hint to fix it; code and status if the server sent them."""

    def __init__(self, message: str, hint: str = "", code: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.status = status

    @property
    def exit_code(self) -> int:
        """4 if the server refused the request, 5 if it failed, and 1 for any other error."""
        return self.status // 100 if self.status >= 400 else 1


@dataclass(frozen=True)
class Answer:
    """Result of a command: its data for `--json`, and a function that prints it for people. With
    a `fault`, the command fails after it has printed the data."""

    data: Any
    show: Callable[[], None]
    fault: CliError | None = None


def json_option(command: Callable[..., Answer]) -> Callable[..., None]:
    """Add the option `--json` to a command; it prints the data of the answer."""

    @functools.wraps(command)
    def run(*arguments: Any, as_json: bool = False, **options: Any) -> None:
        answer = command(*arguments, **options)
        if as_json:
            print_json(answer.data)
        else:
            answer.show()
        if answer.fault is not None:
            raise answer.fault

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter(
        "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson
    )
    parameters = [*signature.parameters.values(), option]
    # typer reads the signature and the annotations.
    run.__dict__["__signature__"] = signature.replace(parameters=parameters, return_annotation=None)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def listing(
    rows: Iterable[Any], columns: Mapping[str, Column], *, empty: str, data: Any = None
) -> Answer:
    """Return an answer that prints rows as a table, and with `--json` the rows, or `data`."""
    rows = list(rows)
    cells = ([_cell(row, column) for column in columns.values()] for row in rows)
    return Answer(
        rows if data is None else data, lambda: table(tuple(columns), cells, empty=empty, cut=True)
    )


def sentence(data: Any, text: str) -> Answer:
    """Return an answer that prints one sentence."""
    # A terminal wraps between words, so that no ID breaks; a program gets one line.
    return Answer(
        data, lambda: console.print(text, markup=False, soft_wrap=not console.is_terminal)
    )


def print_json(data: Any) -> None:
    """Print data as JSON."""
    console.print_json(json.dumps(data, ensure_ascii=False))


def progress_bar() -> Progress:
    """Return a progress bar on stderr, which disappears at the end."""
    # Imported here, so that `--help` starts without it.
    from rich.progress import Progress

    return Progress(console=errors, transient=True)


def show_error(error: CliError) -> None:
    """Print the sentence, then the hint, on stderr."""
    errors.print(Text.assemble(("Error: ", "bold red"), error.message))
    if error.hint:
        errors.print(Text(error.hint, style="dim"))


def state(value: str) -> Text:
    """Return a state in its color."""
    return Text(value.replace("_", " "), style=STYLES.get(value, ""))


def table(
    headings: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str, cut: bool = False
) -> None:
    """Print a table, or the sentence `empty` when there are no rows. Text is never markup.

    Args:
        cut: Print each row on one line instead of wrapping wide cells. A terminal cuts wide cells,
            and leaves out the last columns if it is too narrow; other output is complete.
    """
    cells = [
        [each if isinstance(each, Text) else Text(plain(each)) for each in row] for row in rows
    ]
    if not cells:
        console.print(Text(empty, style="dim"))
    elif cut:
        _print_lines(headings, cells)
    else:
        # Imported here, so that `--help` and lists start without it.
        from rich.table import Table

        grid = Table(box=None, header_style="bold", pad_edge=False)
        for index, heading in enumerate(headings):
            grid.add_column(heading, overflow="fold", no_wrap=_is_never_cut(index, heading))
        for row in cells:
            grid.add_row(*row)
        console.print(grid)


def _print_lines(headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    for row in rows:
        for cell in row:
            cell.plain = " ".join(cell.plain.splitlines())
    lines = [[Text(heading, style="bold") for heading in headings], *rows]
    widths = {index: max(line[index].cell_len for line in lines) for index in range(len(headings))}
    if console.is_terminal:
        widths = _fitted(
            widths, [index for index in widths if not _is_never_cut(index, headings[index])]
        )
    for line in lines:
        for index, width in widths.items():
            line[index].truncate(width, overflow="ellipsis", pad=True)
        text = Text("  ").join(line[index] for index in widths)
        text.rstrip()
        console.print(text, soft_wrap=True)
    if hidden := [heading for index, heading in enumerate(headings) if index not in widths]:
        errors.print(
            f"No room for {', '.join(hidden)}. Widen the terminal, or add --json.", style="dim"
        )


def _fitted(widths: Mapping[int, int], elastic: Iterable[int]) -> dict[int, int]:
    """Return the widths of the columns that fit into the terminal.

    Elastic columns shrink; if that does not suffice, the last of them are left out.
    """
    fitted, shrinkable = dict(widths), list(elastic)

    def excess() -> int:
        return sum(fitted.values()) + 2 * (len(fitted) - 1) - console.width

    while excess() > 0 and shrinkable:
        widest = max(shrinkable, key=lambda index: fitted[index])
        if fitted[widest] > NARROWEST:
            fitted[widest] -= 1
        else:
            # All are at their narrowest: leave the last one out, and let the others grow again.
            del fitted[shrinkable.pop()]
            fitted |= {index: widths[index] for index in shrinkable}
    return fitted


def _is_never_cut(index: int, heading: str) -> bool:
    return not index or heading.lower() in IDS


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one pair a line.

    Prose is wrapped. A word that does not fit next to its name, such as a digest, has its own line.
    """
    texts = [(name, each if isinstance(each, Text) else Text(plain(each))) for name, each in pairs]
    indent = max((len(name) for name, _ in texts), default=0) + 2
    for name, value in texts:
        for number, line in enumerate(_wrapped(value.plain, console.width - indent)):
            label = Text(("" if number else name).ljust(indent), style="dim")
            if console.is_terminal and len(line) > console.width - indent:
                label.append("\n")
            console.print(label + Text(line, style=value.style), soft_wrap=True)


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text. A word that is longer than a line is not broken."""
    return [
        line
        for paragraph in text.splitlines()
        for line in wrap(paragraph, max(width, 20), break_long_words=False, break_on_hyphens=False)
    ] or [""]


def plain(value: Any) -> str:
    """Return a value as text for people: lists with commas, times to the minute, – if empty."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text[:16].replace("T", " ") if _is_time(text) else text


def metrics_in_words(metrics: Mapping[str, float]) -> str:
    """Return the first three metrics with their values."""
    return "  ".join(f"{name} {value:.4g}" for name, value in list(metrics.items())[:3])


def _cell(row: Any, column: Column) -> Any:
    if callable(column):
        return column(row)
    value = row[column]
    if column in ("state", "severity"):
        return state(value)
    # A terminal shows the age, other output the time.
    return _age(value) if console.is_terminal and _is_time(value) else value


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= 20 and value[4] == "-" and value[10] == "T"


def _age(moment: str) -> str:
    """Return the time since or until a moment, in its largest unit."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    size, unit = next((each for each in UNITS if abs(seconds) >= each[0]), UNITS[-1])
    amount = f"{int(abs(seconds)) // size} {unit}"
    return f"{amount} ago" if seconds >= 0 else f"in {amount}"
