"""Order files: which columns they have, what a line says, and what is wrong with it. Reads lines, opens no file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from zoneinfo import ZoneInfo

from loyalty_pipelines.domain.csv_files import CellReader, Columns, FileProblem, problem_with_width
from loyalty_pipelines.domain.errors import LoyaltyError

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
class OrderFormat:
    """How to read a line. `status`: the status of every order where the file has none."""

    columns: Columns
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


def parse_line(line: int, cells: Sequence[str], form: OrderFormat) -> tuple[OrderLine | None, str, list[FileProblem]]:
    """Return the order (None when something is wrong with it), its status in the file's word, and what is wrong."""
    if wrong := problem_with_width(line, cells, form.columns):
        return None, "", [wrong]
    reader = _OrderReader(line, cells, form)
    word, status = reader.status()
    is_earning = status in EARNING_STATUSES
    order = OrderLine(
        line=line,
        order_id=reader.key("order", is_needed=True) or "",
        customer_id=reader.key("customer"),
        amount=reader.amount("amount", is_needed=is_earning),
        refunded_amount=reader.amount("refunded", is_needed=False, least=Decimal(0)),
        currency=reader.currency(),
        status=status,
        paid_at=reader.instant("paid_at", is_needed=is_earning, timezone=form.timezone),
    )
    return (None if reader.problems else order), word, reader.problems


class _OrderReader(CellReader):
    """Reads an order's cells."""

    def __init__(self, line: int, cells: Sequence[str], form: OrderFormat) -> None:
        super().__init__(line, cells, form.columns)
        self._form = form

    def status(self) -> tuple[str, str]:
        if self._form.status is not None and "status" not in self._form.columns.positions:
            return self._form.status, self._form.status
        word = self.text("status")
        status = self._form.statuses.get(word.lower())
        if status is None:
            example = word if word and "," not in word else "WORD"
            self.report(
                "status",
                f"a known status; say what it means with --status-map {example}=paid (or =cancelled ...)",
            )
        return word, status or ""

    def amount(self, what: str, *, is_needed: bool, least: Decimal | None = None) -> Decimal | None:
        text = self.text(what)
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
        text = self.text("currency").upper() or (self._form.currency or "")
        if text and not CURRENCY.fullmatch(text):
            self.report("currency", "a currency code of three letters such as EUR")
        elif not text and "currency" in self._form.columns.positions:
            self.report("currency", "a currency code, or --currency for lines without one")
        return text or None
