"""Tables and units for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from planish.cli.terminal import printable

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def console() -> Console:
    """For stdout; wide enough that piped tables are not cut."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=200)


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; a heading that begins with ">" is of a column of numbers."""
    table = Table(
        title=plain_text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for heading in headings:
        number = heading.startswith(">")
        table.add_column(heading.removeprefix(">"), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(plain_text, row))
    shown = console()
    shown.print(plain_text(title), style="italic")  # as the table's title, it would be cut to fit
    shown.print(table)


def plain_text(cell: object) -> Text:
    """For rich: a name such as "input[0]" is no markup, and one with escapes no command."""
    return Text(printable(str(cell)))


def spell_bytes(size: float) -> str:
    """`1536` → "1.5 KiB"."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "B" else f"{int(size)} B"
        size /= 1024
    return f"{size:.3g} {_UNITS[-1]}"


def spell_count(number: float) -> str:
    """`2500000` → "2.5 M"."""
    for unit in ("", " k", " M", " G"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"


def spell_seconds(seconds: float) -> str:
    """`0.0021` → "2.1 ms"."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError


def spell_tensor(dtype: str, shape: Iterable[object]) -> str:
    """`float32[1, 3]`."""
    return f"{dtype}[{', '.join(map(str, shape))}]"
