"""What commands print: JSON for programs, lines and tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

# Wide enough that no id is folded where there is no terminal: a file, a pipe, a test.
WIDTH_OF_A_FILE = 200


def print_json(value: object) -> None:
    """Print `value` as one JSON document."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def plain(value: object) -> Any:  # noqa: PLR0911 - a line per type
    """Return `value` as JSON has it: instants as ISO 8601, decimals as text, `x: timedelta` as `x_seconds`."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain({one.name: getattr(value, one.name) for one in fields(value)})
    if isinstance(value, Mapping):
        named = ((f"{name}_seconds" if isinstance(one, timedelta) else name, one) for name, one in value.items())
        return {str(name): plain(one) for name, one in named}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, timedelta):
        return round(value.total_seconds(), 3)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return number_text(value) if isinstance(value, Decimal) else value


def number_text(value: Decimal) -> str:
    """Return a decimal without trailing zeros and without an exponent."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def printable(text: str) -> str:
    """Return `text` with control characters escaped: an id from a shop must not move the operator's cursor."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape", "surrogatepass").decode()
        for one in text
    )


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 order, 2,000 orders."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def say(text: str = "") -> None:
    """Print a line for people on stdout."""
    click.echo(printable(text))


def note(text: str) -> None:
    """Print a dim line on stderr."""
    click.secho(printable(text), dim=True, err=True)


def console(*, stderr: bool = False) -> "Console":
    """Return a console for tables or progress; it has no markup, because cells hold the shop's text."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    return (
        found
        if found.is_terminal
        else Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=WIDTH_OF_A_FILE)
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[str] = ()) -> None:
    """Print a table; columns named in `numbers` are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(shown(cell))) for cell in row))
    console().print(table)


def shown(value: object) -> str:  # noqa: PLR0911 - a line per type
    """Return a value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return number_text(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, timedelta):
        return str(timedelta(seconds=round(value.total_seconds())))
    return str(value)


def is_terminal() -> bool:
    """Whether somebody watches stderr, where progress goes."""
    return sys.stderr.isatty()
