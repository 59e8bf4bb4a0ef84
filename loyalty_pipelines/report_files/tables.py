"""CSV that a spreadsheet opens without running anything."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

# A cell that begins with one of these is a formula to a spreadsheet.
FORMULA_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, kw_only=True)
class ReportFile:
    """A file of a report: its name, and what is in it."""

    name: str
    content: bytes


def csv_file(name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> ReportFile:
    """Return a CSV file in UTF-8: a header, and a line per row."""
    return ReportFile(name=name, content=csv_text(columns, rows).encode())


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return the lines of a CSV file; nothing for None, instants as ISO 8601, numbers as they are."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(value) for value in row])
    return out.getvalue()


def cell(value: object) -> str:  # noqa: PLR0911 - a line per type
    """Return a value as text; text of the shop that a spreadsheet would take for a formula gets an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, date):
        return value.isoformat()
    # A lone surrogate can't be written, a NUL can't be read.
    text = str(value).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return f"'{text}" if text.startswith(FORMULA_BEGINNINGS) else text
