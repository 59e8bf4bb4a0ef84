"""Opening balances of a programme that started elsewhere: what a line says, and what is wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from loyalty_pipelines.domain.csv_files import CellReader, Columns, FileProblem, problem, problem_with_width
from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.repairs import MAX_POINTS

# The first of these that a header has is taken, compared in small letters with spaces and dashes as underscores.
COLUMN_GUESSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "customer": ("customer_id", "customer"),
        "points": ("points", "balance"),
        "merchant": ("merchant_id", "merchant"),
        "active_at": ("last_activity_at", "last_activity"),
    }
)


@dataclass(frozen=True, kw_only=True)
class OpeningFormat:
    """How to read a line. `merchant_id` is that of every line; None: the file has a column of it."""

    columns: Columns
    merchant_id: str | None


@dataclass(frozen=True, kw_only=True)
class OpeningLine:
    """One balance of the file. `active_at` without a zone is in the merchant's; None: now."""

    line: int
    merchant_id: str
    customer_id: str
    points: int
    active_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class StoredLine:
    """What the database knows about a line that is wrong."""

    line: int
    what: str
    merchant_id: str
    customer_id: str
    points: int
    active_at: datetime
    expires_at: datetime | None
    first_line: int
    into_customer_id: str | None
    opening_points: int | None

    def problem(self, columns: Columns) -> FileProblem:
        """Return in words what the database found wrong with a line."""
        merchant, customer = repr(self.merchant_id), repr(self.customer_id)
        column, found, expected = {
            "merchant_unknown": (
                "merchant",
                f"merchant {merchant}, which the shop does not list",
                "one of those that 'loyalty programs list' names",
            ),
            "no_programme": (
                "merchant",
                f"merchant {merchant}, which has no programme in force",
                f"one with a programme: loyalty programs set {self.merchant_id} --points-per-unit 1",
            ),
            "repeated": (
                "customer",
                f"customer {customer}, whom line {self.first_line} has already",
                "one line per customer",
            ),
            "other_opening": (
                "points",
                f"{self.points:,} points for customer {customer}, who began with {self.opening_points or 0:,}",
                f"the same number again; change it with 'loyalty account adjust {self.merchant_id} {self.customer_id}'",
            ),
            "merged": (
                "customer",
                f"customer {customer}, who was merged into {self.into_customer_id!r}",
                f"a customer with an account of its own: add the points to {self.into_customer_id!r}",
            ),
            "in_future": ("active_at", f"{_shown(self.active_at)}, which is in the future", "a time that has been"),
            "expired": (
                "active_at",
                f"{_shown(self.active_at)}, so that the points would have expired at {_shown(self.expires_at)}",
                "a later activity, or no line for points that are gone",
            ),
        }[self.what]
        return problem(self.line, columns.names.get(column, column), found, expected)


@dataclass(frozen=True, kw_only=True)
class MerchantOpening:
    """What an import did for one merchant; `lines_done` were there already."""

    merchant_id: str
    lines: int
    lines_done: int
    accounts_new: int
    entries: int
    points: int


@dataclass(frozen=True, kw_only=True)
class OpeningReport:
    """What an import did. `columns`: which column of the file was taken for what."""

    lines: int
    columns: Mapping[str, str]
    merchants: tuple[MerchantOpening, ...]


class OpeningsDoNotAddUpError(LoyaltyError):
    """An import contradicts itself; it was rolled back."""

    def __init__(self, *, path: str, expected: int, entries: int, balances: int) -> None:
        self.path = path
        super().__init__(
            f"The import of {path} was rolled back: its new lines have {expected:,} points, its entries {entries:,}, "
            f"and balances changed by {balances:,}. Nothing was written; please report this."
        )


def parse_line(line: int, cells: Sequence[str], form: OpeningFormat) -> tuple[OpeningLine | None, list[FileProblem]]:
    """Return the balance (None when something is wrong with it), and what is wrong."""
    if wrong := problem_with_width(line, cells, form.columns):
        return None, [wrong]
    reader = CellReader(line, cells, form.columns)
    found = OpeningLine(
        line=line,
        merchant_id=_merchant(reader, form.merchant_id),
        customer_id=reader.key("customer", is_needed=True) or "",
        points=_points(reader),
        active_at=reader.instant("active_at", is_needed=False, timezone=None),
    )
    return (None if reader.problems else found), reader.problems


def _merchant(reader: CellReader, named: str | None) -> str:
    found = reader.key("merchant", is_needed=named is None)
    if named is not None and found not in (None, named):
        reader.report("merchant", f"{named!r}, as --merchant says, or nothing")
    return found or named or ""


def _points(reader: CellReader) -> int:
    text = reader.text("points")
    if text.isascii() and text.isdigit() and int(text[:20]) <= MAX_POINTS and len(text) <= 20:
        return int(text)
    reader.report("points", f"a whole number of points from 0 to {MAX_POINTS:,}")
    return 0


def _shown(at: datetime | None) -> str:
    return "-" if at is None else at.astimezone(UTC).isoformat(timespec="seconds")
