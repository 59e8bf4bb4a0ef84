"""Order files: which column is which, what a line says, and what is wrong with it. Reads lines, opens no file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from zoneinfo import ZoneInfo

from loyalty_pipelines.domain.errors import LoyaltyError

# The first of these that a header has is taken, compared in small letters with spaces and dashes as underscores.
COLUMN_GUESSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "order": ("order_id", "id", "order_number", "invoice_id", "invoice", "name", "order"),
        "customer": ("customer_id", "customer", "user_id", "contact_id"),
        "amount": ("total", "amount", "total_amount", "order_total", "grand_total"),
        "status": ("status", "payment_status", "financial_status", "order_status", "state"),
        "paid_at": ("paid_at", "ordered_at", "created_at", "order_date", "date"),
        "currency": ("currency", "currency_code"),
        "refunded": ("refunded_amount", "amount_refunded", "refunded"),
    }
)
REQUIRED_COLUMNS = ("order", "customer", "amount", "paid_at")

ORDER_STATUSES = ("pending", "paid", "partially_refunded", "refunded", "cancelled", "failed")
EARNING_STATUSES = ("paid", "partially_refunded")
# Words of shop systems and payment providers that mean one thing. Those that mean paid here and unpaid there
# ("processing", "closed", "shipped") are not guessed. What is written off or only corrects the books earns nothing.
STATUS_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **{word: word for word in ORDER_STATUSES},
        "completed": "paid",
        "complete": "paid",
        "captured": "paid",
        "succeeded": "paid",
        "unpaid": "pending",
        "authorized": "pending",
        "partially refunded": "partially_refunded",
        "canceled": "cancelled",
        "void": "cancelled",
        "voided": "cancelled",
        "adjustment": "cancelled",
        "declined": "failed",
    }
)

NUMBER = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})")
CURRENCY = re.compile(r"[A-Z]{3}")
# "2024-05-31 13:45:00 +0200" and "... UTC", as Shopify and PostgreSQL write it, are ISO but for the space.
SPACED_ZONE = re.compile(r"\s+([+-]\d{2}:?\d{2}|Z|UTC|GMT)$", re.IGNORECASE)
MAX_ID_BYTES = 500
MAX_SHOWN = 60


@dataclass(frozen=True, kw_only=True)
class OrderFileProblem:
    """One thing that is wrong: `line` counts from 1 (the header); None: the file as a whole."""

    line: int | None
    column: str
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"line {self.line}, " if self.line is not None else ""
        return f"{where}{self.column}: found {self.found}; expected {self.expected}"


class OrderFileError(LoyaltyError):
    """A file that was not imported: `problems` holds the first of `count`."""

    def __init__(self, *, path: str, problems: Sequence[OrderFileProblem], count: int, advice: str = "") -> None:
        self.path = path
        self.problems = tuple(problems)
        self.count = count
        noun = "problem" if count == 1 else "problems"
        advice = advice or "correct the file and import it again."
        super().__init__(f"{path} has {count} {noun}, and nothing was imported: {advice}")


class ImportRefusedError(LoyaltyError):
    """The file may be right, but this database or merchant can't take it."""


@dataclass(frozen=True, kw_only=True)
class OrderLine:
    """One order of the file."""

    line: int
    order_id: str
    customer_id: str | None
    amount: Decimal | None
    refunded_amount: Decimal | None
    currency: str | None
    status: str
    paid_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class OrderColumns:
    """Which column of the header holds what: names, and their positions from 0."""

    names: Mapping[str, str]
    positions: Mapping[str, int]
    width: int


@dataclass(frozen=True, kw_only=True)
class OrderFormat:
    """How to read a line. `status`: the status of every order where the file has none."""

    columns: OrderColumns
    statuses: Mapping[str, str]
    timezone: ZoneInfo
    currency: str | None = None
    status: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did. `statuses`: (word of the file, ours) -> lines; `customers`: those that were new."""

    merchant_id: str
    currency: str
    timezone: str
    is_merchant_new: bool
    lines: int
    orders_new: int
    orders_changed: int
    orders_unchanged: int
    customers_new: int
    refunds_changed: int
    first_paid_at: datetime | None
    last_paid_at: datetime | None
    columns: Mapping[str, str]
    statuses: Mapping[tuple[str, str], int] = field(default_factory=dict)
    has_program: bool = False
    is_program_new: bool = False


def normalized(name: str) -> str:
    """Return a column's name as names are compared."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def choose_columns(
    header: Sequence[str], named: Mapping[str, str], *, optional: Sequence[str] = ()
) -> tuple[OrderColumns, list[OrderFileProblem]]:
    """Return the columns to read, those `named` or else guessed, and what is wrong with the choice.

    The status may be missing when it is in `optional`; currency and refunds may always be.
    """
    names = [normalized(name) for name in header]
    chosen: dict[str, int] = {}
    problems = []
    for what, guesses in COLUMN_GUESSES.items():
        wanted = [normalized(named[what])] if what in named else list(guesses)
        match = next((name for name in wanted if name in names), None)
        option = f"--{what.replace('_', '-')}-column"
        if match is None:
            is_needed = what in REQUIRED_COLUMNS or (what == "status" and what not in optional)
            if what in named or is_needed:
                expected = f"column {named[what]!r}" if what in named else f"one of {', '.join(guesses)}"
                found = f"columns {', '.join(header)}" if header else "no columns"
                hint = f", or name it with {option}" if what not in named else ""
                problems.append(_problem(1, option, found[:400], f"{expected}{hint}"))
        elif names.count(match) > 1:
            problems.append(_problem(1, option, f"{names.count(match)} columns {match!r}", "one"))
        else:
            chosen[what] = names.index(match)
    columns = OrderColumns(
        names={what: header[position].strip() for what, position in chosen.items()},
        positions=chosen,
        width=len(header),
    )
    return columns, problems


def parse_line(
    line: int, cells: Sequence[str], form: OrderFormat
) -> tuple[OrderLine | None, str, list[OrderFileProblem]]:
    """Return the order (None when something is wrong with it), its status in the file's word, and what is wrong."""
    if len(cells) != form.columns.width:
        problem = _problem(line, "line", f"{len(cells)} fields", f"{form.columns.width}, as in the header")
        return None, "", [problem]
    reader = _LineReader(line, cells, form)
    word, status = reader.status()
    is_earning = status in EARNING_STATUSES
    order = OrderLine(
        line=line,
        order_id=reader.key("order") or "",
        customer_id=reader.key("customer"),
        amount=reader.amount("amount", is_needed=is_earning),
        refunded_amount=reader.amount("refunded", is_needed=False, least=Decimal(0)),
        currency=reader.currency(),
        status=status,
        paid_at=reader.instant(is_needed=is_earning),
    )
    if not order.order_id:
        reader.report("order", "an id")
    return (None if reader.problems else order), word, reader.problems


class _LineReader:
    """Reads the cells of one line and collects what is wrong with them."""

    def __init__(self, line: int, cells: Sequence[str], form: OrderFormat) -> None:
        self.problems: list[OrderFileProblem] = []
        self._line = line
        self._cells = cells
        self._form = form

    def report(self, what: str, expected: str) -> None:
        name = self._form.columns.names.get(what, what)
        self.problems.append(_problem(self._line, name, _quoted(self._text(what)), expected))

    def _text(self, what: str) -> str:
        position = self._form.columns.positions.get(what)
        return "" if position is None else self._cells[position].strip()

    def key(self, what: str) -> str | None:
        text = self._text(what)
        if "\x00" in text:
            self.report(what, "an id without NUL characters")
        elif len(text.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
            self.report(what, f"an id of at most {MAX_ID_BYTES} bytes")
        return text or None

    def status(self) -> tuple[str, str]:
        if self._form.status is not None and "status" not in self._form.columns.positions:
            return self._form.status, self._form.status
        word = self._text("status")
        status = self._form.statuses.get(word.lower())
        if status is None:
            example = word if word and "," not in word else "WORD"
            self.report(
                "status",
                f"a known status; say what it means with --status-map {example}=paid (or =cancelled ...)",
            )
        return word, status or ""

    def amount(self, what: str, *, is_needed: bool, least: Decimal | None = None) -> Decimal | None:
        text = self._text(what)
        if not text and not is_needed:
            return None
        if not NUMBER.fullmatch(text) or not text.isascii():
            self.report(what, "a number such as 1234.56")
            return None
        value = Decimal(text)
        if least is not None and value < least:
            self.report(what, f"at least {least}")
        return value

    def currency(self) -> str | None:
        text = self._text("currency").upper() or (self._form.currency or "")
        if text and not CURRENCY.fullmatch(text):
            self.report("currency", "a currency code of three letters such as EUR")
        elif not text and "currency" in self._form.columns.positions:
            self.report("currency", "a currency code, or --currency for lines without one")
        return text or None

    def instant(self, *, is_needed: bool) -> datetime | None:
        text = self._text("paid_at")
        if not text and not is_needed:
            return None
        try:
            found = datetime.fromisoformat(SPACED_ZONE.sub(_joined_zone, text))
            zoned = found if found.tzinfo else found.replace(tzinfo=self._form.timezone)
            return zoned.astimezone(UTC)
        except (ValueError, OverflowError):
            self.report("paid_at", "a date or time such as 2024-05-31 or 2024-05-31 13:45:00")
            return None


def _joined_zone(match: re.Match[str]) -> str:
    return match[1] if match[1][0] in "+-" else "+00:00"


def _problem(line: int | None, column: str, found: str, expected: str) -> OrderFileProblem:
    return OrderFileProblem(line=line, column=column, found=found, expected=expected)


def _quoted(text: str) -> str:
    if not text:
        return "nothing"
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")
