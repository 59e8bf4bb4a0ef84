"""What a merchant owes its customers in points, month by month; what it is worth, and when it goes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.money import total, worth

# Which column of a month a kind of entry goes into, and whether the column counts what is added (1) or what is taken
# (-1). Every kind has one; closing is the sum of all entries whatever their kind, so that one without a column shows.
COLUMN_OF_KIND: Mapping[str, tuple[str, int]] = {
    "opening": ("imported", 1),
    "earned": ("earned", 1),
    "re-earned": ("earned", 1),
    "bonus": ("bonus", 1),
    "restored": ("restored", 1),
    "redeemed": ("spent", -1),
    "expired": ("expired", -1),
    "reversed": ("reversed", -1),
    "adjusted": ("adjusted", 1),
}
# What a sum is called whose money can't be told.
CURRENCY_UNKNOWN = "currency or value of a point unknown"
# In the order in which they are shown, each with its sign in the sum.
COLUMNS: Mapping[str, int] = dict(COLUMN_OF_KIND.values())
# A report shows this one and so many months before it.
DEFAULT_MONTHS = 24
MAX_MONTHS = 240
# The calendar shows the rest of this month and so many months after it.
CALENDAR_MONTHS = 12
# Over how many closed months the share of points that expire is taken.
BREAKAGE_MONTHS = 12


class UnknownKindError(LoyaltyError):
    """The ledger has entries of a kind that the report has no column for."""

    def __init__(self, *, merchant_id: str, kinds: Sequence[str]) -> None:
        self.merchant_id = merchant_id
        self.kinds = tuple(kinds)
        super().__init__(
            f"The ledger of merchant {merchant_id} has entries of kind {', '.join(kinds)}: expected one of those "
            f"that have a column ({', '.join(COLUMN_OF_KIND)}). Give the kind a column in domain/liability.py."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportedMerchant:
    """What a report needs to know of a merchant now: `month_on` is the first day of its present month.

    `currency` None: the shop doesn't list it. `point_value_amount` None: it has no programme in force.
    """

    merchant_id: str
    currency: str | None
    point_value_amount: Decimal | None
    is_expiring: bool
    timezone: str
    month_on: date
    since_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Movement:
    """The entries of one kind in a month of the merchant; `month_on` None: before the months that are shown."""

    month_on: date | None
    kind: str
    points: int
    entries: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LiabilityMonth:
    """One month: opening + imported + earned + bonus + restored - spent - expired - reversed + adjusted = closing."""

    month_on: date
    is_closed: bool
    opening: int
    imported: int
    earned: int
    bonus: int
    restored: int
    spent: int
    expired: int
    reversed: int
    adjusted: int
    closing: int
    entries: int

    @property
    def is_adding_up(self) -> bool:
        """Whether the columns explain the difference between opening and closing."""
        return self.opening + sum(sign * getattr(self, name) for name, sign in COLUMNS.items()) == self.closing


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceBucket:
    """Accounts whose points go at the same time; `month_on` is set where `bucket` is month."""

    bucket: str
    month_on: date | None
    accounts: int
    balance: int
    free: int
    held: int
    debt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CalendarLine:
    """Points that go at one time if nobody is active: overdue, a month, later, never; or held by checkouts, or owed."""

    what: str
    month_on: date | None
    points: int
    amount: Decimal | None

    @property
    def label(self) -> str:
        """Return the line's name: the month as 2026-11, or the word."""
        return f"{self.month_on:%Y-%m}" if self.month_on else self.what


@dataclass(frozen=True, kw_only=True, slots=True)
class MerchantLiability:
    """A merchant's months up to the present one, its calendar, and what its accounts say."""

    merchant: ReportedMerchant
    months: Sequence[LiabilityMonth]
    calendar: Sequence[CalendarLine]
    accounts: int
    balance: int
    breakage: Decimal | None

    @property
    def merchant_id(self) -> str:
        """Return the merchant's id."""
        return self.merchant.merchant_id

    @property
    def closing(self) -> int:
        """Return what the ledger says that is owed now."""
        return self.months[-1].closing

    @property
    def difference(self) -> int:
        """Return what the balances have more than the ledger says: 0 unless something is wrong."""
        return self.balance - self.closing

    @property
    def amount(self) -> Decimal | None:
        """Return what is owed in the merchant's currency; None where it or the value of a point is unknown."""
        return self.worth(self.closing)

    def worth(self, points: int) -> Decimal | None:
        """Return what points of the merchant are worth by its programme in force now."""
        return worth(points, self.merchant.point_value_amount, self.merchant.currency)

    def line(self, what: str) -> CalendarLine:
        """Return the calendar's line of a word."""
        return next(one for one in self.calendar if one.what == what)


@dataclass(frozen=True, kw_only=True, slots=True)
class CurrencyTotal:
    """The sums over the merchants of one currency; None: of those whose currency or value of a point is not known."""

    currency: str | None
    merchants: int
    points: int
    amount: Decimal | None
    difference: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LiabilityReport:
    """What all chosen merchants owe, as of one instant; `failures`: why some could not be computed."""

    as_of: datetime
    merchants: Sequence[MerchantLiability]
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def totals(self) -> list[CurrencyTotal]:
        """Return the sums per currency, those with the most merchants first; currencies are never added."""
        return totals_by_currency(self.merchants)


def liability_of(
    merchant: ReportedMerchant,
    movements: Iterable[Movement],
    buckets: Iterable[BalanceBucket],
    *,
    months: int = DEFAULT_MONTHS,
) -> MerchantLiability:
    """Put a merchant's liability together; raise `UnknownKindError` for entries that no column takes.

    `movements` go back at least as far as the months that are shown and those that breakage is taken over.
    """
    sums: dict[date | None, Counter[str]] = {}
    unknown = set()
    for one in movements:
        found = sums.setdefault(one.month_on, Counter())
        column, sign = COLUMN_OF_KIND.get(one.kind, ("", 0))
        if not column:
            unknown.add(one.kind)
        found[column] += sign * one.points
        found["change"] += one.points
        found["entries"] += one.entries
    if unknown:
        raise UnknownKindError(merchant_id=merchant.merchant_id, kinds=sorted(unknown))
    made = _months(merchant, sums, since=_months_later(merchant.month_on, -max(months, BREAKAGE_MONTHS)))
    held_apart = list(buckets)
    calendar = _calendar(merchant, held_apart)
    return MerchantLiability(
        merchant=merchant,
        months=[one for one in made if one.month_on >= _months_later(merchant.month_on, -months)],
        calendar=calendar,
        accounts=sum(one.accounts for one in held_apart),
        balance=sum(one.balance for one in held_apart),
        breakage=breakage_of(made),
    )


def _months(
    merchant: ReportedMerchant, sums: Mapping[date | None, Counter[str]], *, since: date
) -> list[LiabilityMonth]:
    """Return the months from `since`, or the first entry if that is later, to the present one; quiet ones, too."""
    named = [one for one in sums if one is not None]
    # An entry of a transaction that began after this one: the first of a new month.
    last = max([merchant.month_on, *named])
    month_on = since if None in sums else min([merchant.month_on, *named])
    balance = sums[None]["change"] if None in sums else 0
    found = []
    while month_on <= last:
        here = sums.get(month_on, Counter())
        found.append(
            LiabilityMonth(
                month_on=month_on,
                is_closed=month_on < merchant.month_on,
                opening=balance,
                closing=balance + here["change"],
                entries=here["entries"],
                **{name: here[name] for name in COLUMNS},
            )
        )
        balance += here["change"]
        month_on = _months_later(month_on, 1)
    assert all(one.is_adding_up for one in found), f"the months of {merchant.merchant_id} do not add up"
    return found


def _calendar(merchant: ReportedMerchant, buckets: Sequence[BalanceBucket]) -> list[CalendarLine]:
    months = [_months_later(merchant.month_on, number) for number in range(CALENDAR_MONTHS + 1)]
    free: Counter[tuple[str, date | None]] = Counter()
    for one in buckets:
        free[one.bucket, one.month_on] += one.free

    def line(what: str, points: int, month_on: date | None = None) -> CalendarLine:
        amount = worth(points, merchant.point_value_amount, merchant.currency)
        return CalendarLine(what=what, month_on=month_on, points=points, amount=amount)

    return [
        line("overdue", free["overdue", None]),
        *(line("month", free["month", month_on], month_on) for month_on in months),
        line("later", free["later", None]),
        line("never", free["never", None]),
        line("held", sum(one.held for one in buckets)),
        line("debt", -sum(one.debt for one in buckets)),
    ]


def breakage_of(months: Iterable[LiabilityMonth]) -> Decimal | None:
    """Return the share of what was earned that expired, over the last closed months; None where nothing was earned.

    Earned is what orders and bonuses brought less what was taken back for them.
    """
    closed = [one for one in months if one.is_closed][-BREAKAGE_MONTHS:]
    earned = sum(one.earned + one.bonus - one.reversed for one in closed)
    if earned <= 0:
        return None
    return (Decimal(sum(one.expired for one in closed)) / earned).quantize(Decimal("0.0001"))


def totals_by_currency(merchants: Iterable[MerchantLiability]) -> list[CurrencyTotal]:
    """Return the sums of what merchants owe, by currency; an amount is the sum of the merchants' rounded amounts."""
    groups: dict[str | None, list[MerchantLiability]] = {}
    for one in merchants:
        groups.setdefault(one.merchant.currency if one.amount is not None else None, []).append(one)
    found = [
        CurrencyTotal(
            currency=currency,
            merchants=len(group),
            points=sum(one.closing for one in group),
            amount=None if currency is None else total(one.amount for one in group if one.amount is not None),
            difference=sum(one.difference for one in group),
        )
        for currency, group in groups.items()
    ]
    return sorted(found, key=lambda one: (one.currency is None, -one.merchants, one.currency or ""))


def _months_later(month_on: date, months: int) -> date:
    number = month_on.year * 12 + month_on.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)
