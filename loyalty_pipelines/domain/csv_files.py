"""Files with a header and a line per thing: which column is which, what is in a cell, and what is wrong with it."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from loyalty_pipelines.domain.errors import LoyaltyError

# "2024-05-31 13:45:00 +0200" and "... UTC", as Shopify and PostgreSQL write it, are ISO but for the space.
SPACED_ZONE = re.compile(r"\s+([+-]\d{2}:?\d{2}|Z|UTC|GMT)$", re.IGNORECASE)
MAX_ID_BYTES = 500
MAX_SHOWN = 60
MAX_PROBLEMS = 20


@dataclass(frozen=True, kw_only=True)
class FileProblem:
    """One thing that is wrong: `line` counts from 1 (the header); None: the file as a whole."""

    line: int | None
    column: str
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"line {self.line}, " if self.line is not None else ""
        return f"{where}{self.column}: found {self.found}; expected {self.expected}"


class FileRefusedError(LoyaltyError):
    """A file that was not imported: `problems` holds the first of `count`."""

    def __init__(self, *, path: str, problems: Sequence[FileProblem], count: int, advice: str = "") -> None:
        self.path = path
        self.problems = tuple(problems)
        self.count = count
        noun = "problem" if count == 1 else "problems"
        advice = advice or "correct the file and import it again."
        super().__init__(f"{path} has {count} {noun}, and nothing was imported: {advice}")


@dataclass
class Problems:
    """The first problems of a file, and how many it has."""

    count: int = 0
    first: list[FileProblem] = field(default_factory=list)

    def note(self, found: Sequence[FileProblem], *, more: int = 0) -> None:
        """Add what was found, and `more` that nobody has listed."""
        self.count += len(found) + more
        self.first.extend(found[: MAX_PROBLEMS - len(self.first)])

    def refuse(self, path: str) -> None:
        """Raise `FileRefusedError` if there is any."""
        if self.count:
            raise FileRefusedError(path=path, problems=self.first, count=self.count)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of the header holds what: names, and their positions from 0."""

    names: Mapping[str, str]
    positions: Mapping[str, int]
    width: int


def normalized(name: str) -> str:
    """Return a column's name as names are compared: in small letters, with spaces and dashes as underscores."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def choose_columns(
    header: Sequence[str],
    guesses: Mapping[str, Sequence[str]],
    *,
    required: Collection[str],
    named: Mapping[str, str] | None = None,
) -> tuple[Columns, list[FileProblem]]:
    """Return the columns to read, and what is wrong with the choice.

    Of each of `guesses` the first name that the header has is taken. `named` are those that the operator has named
    instead; None: the command has no options for it.
    """
    names = [normalized(name) for name in header]
    chosen: dict[str, int] = {}
    problems = []
    for what, words in guesses.items():
        wish = None if named is None else named.get(what)
        match = next((name for name in ([normalized(wish)] if wish is not None else words) if name in names), None)
        option = f"--{what.replace('_', '-')}-column"
        where = what if named is None else option
        if match is None:
            if wish is not None or what in required:
                expected = f"column {wish!r}" if wish is not None else f"one of {', '.join(words)}"
                found = f"columns {', '.join(header)}" if header else "no columns"
                hint = f", or name it with {option}" if named is not None and wish is None else ""
                problems.append(problem(1, where, found[:400], f"{expected}{hint}"))
        elif names.count(match) > 1:
            problems.append(problem(1, where, f"{names.count(match)} columns {match!r}", "one"))
        else:
            chosen[what] = names.index(match)
    columns = Columns(
        names={what: header[position].strip() for what, position in chosen.items()},
        positions=chosen,
        width=len(header),
    )
    return columns, problems


def problem_with_width(line: int, cells: Sequence[str], columns: Columns) -> FileProblem | None:
    """Return what is wrong with a line that has more or fewer fields than the header; None: nothing."""
    if len(cells) == columns.width:
        return None
    return problem(line, "line", f"{len(cells)} fields", f"{columns.width}, as in the header")


class CellReader:
    """Reads the cells of one line and collects what is wrong with them."""

    def __init__(self, line: int, cells: Sequence[str], columns: Columns) -> None:
        self.problems: list[FileProblem] = []
        self._line = line
        self._cells = cells
        self._columns = columns

    def report(self, what: str, expected: str) -> None:
        """Note that the cell is wrong."""
        name = self._columns.names.get(what, what)
        self.problems.append(problem(self._line, name, _quoted(self.text(what)), expected))

    def text(self, what: str) -> str:
        """Return the cell's text; nothing where the file has no such column."""
        position = self._columns.positions.get(what)
        return "" if position is None else self._cells[position].strip()

    def key(self, what: str, *, is_needed: bool = False) -> str | None:
        """Return an id that PostgreSQL can hold and index; None: the cell is empty."""
        text = self.text(what)
        if "\x00" in text:
            self.report(what, "an id without NUL characters")
        elif len(text.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
            self.report(what, f"an id of at most {MAX_ID_BYTES} bytes")
        elif not text and is_needed:
            self.report(what, "an id")
        return text or None

    def instant(self, what: str, *, is_needed: bool, timezone: ZoneInfo | None) -> datetime | None:
        """Return a time in UTC; one without a zone is in `timezone`, or comes back without one where that is None."""
        text = self.text(what)
        if not text and not is_needed:
            return None
        try:
            found = datetime.fromisoformat(SPACED_ZONE.sub(_joined_zone, text))
            if found.tzinfo is None and timezone is None:
                return found
            return (found if found.tzinfo else found.replace(tzinfo=timezone)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.report(what, "a date or time such as 2024-05-31 or 2024-05-31 13:45:00")
            return None


def _joined_zone(match: re.Match[str]) -> str:
    return match[1] if match[1][0] in "+-" else "+00:00"


def problem(line: int | None, column: str, found: str, expected: str) -> FileProblem:
    """Return a problem."""
    return FileProblem(line=line, column=column, found=found, expected=expected)


def _quoted(text: str) -> str:
    if not text:
        return "nothing"
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")
