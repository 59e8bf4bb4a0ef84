"""Why a balance is what it is: every credit of an account as a lot of points, and what became of them.

A debit takes from the oldest lots first. What an order loses again is taken from the lots of that order before, the
newest first; what had been spent of merged orders is taken from what came with the merge. What no lot can give is a
debt, paid by the next credits.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.programs import ProgramRules

MERGED = "merged"
DEBT = "debt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One change of one balance, as the ledger has it."""

    seq: int
    kind: str
    points: int
    balance_before: int
    balance_after: int
    reference_type: str
    reference_id: str
    reason: str | None
    actor: str
    run_id: str | None
    occurred_at: datetime
    recorded_at: datetime

    @property
    def order_id(self) -> str | None:
        """The order that the entry's points are awarded for; None: it is no award."""
        return self.reference_id if self.reference_type == "order" else None

    @property
    def cause(self) -> str:
        """The entry's kind, or `merged` when a merge of two accounts wrote it, which takes orders with it."""
        is_merged_order = self.reference_type == "order" and (self.reason or "").startswith("merged ")
        return MERGED if is_merged_order or self.reference_type == "merge" else self.kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """Points of a lot that went with a debit; `is_debt`: the debit was there first, and the lot paid what was open."""

    entry: Entry
    points: int
    is_debt: bool

    @property
    def cause(self) -> str:
        """What became of the points: the debit's cause, or `debt`."""
        return DEBT if self.is_debt else self.entry.cause


@dataclass(frozen=True, kw_only=True, slots=True)
class Lot:
    """The points of one credit: where they went, and how many are `left`."""

    entry: Entry
    uses: tuple[Use, ...]
    left: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Debt:
    """A debit whose points no credit has paid yet."""

    entry: Entry
    points: int


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is left of the lots, less the open debts, is the balance. `points` and `entries` are sums by cause."""

    balance: int
    lots: tuple[Lot, ...]
    debts: tuple[Debt, ...]
    points: Mapping[str, int]
    entries: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class ExplainedOrder:
    """An order as the shop shows it now, what it deserves of this account by that, and what the ledger has for it.

    `shown` is how often the shop shows it: 0 when it no longer does. `holder_customer_id` is its customer, or who that
    one was merged into. `rule_points` is what its amounts give by the
    programme version that its award followed; None when its status or amounts give nothing to reckon with.
    `version_now` is the version that applies to it by now.
    """

    order_id: str
    shown: int
    customer_id: str | None
    holder_customer_id: str | None
    status: str | None
    paid_at: datetime | None
    currency: str | None
    total_amount: Decimal | None
    refunded_amount: Decimal | None
    points_redeemed: int | None
    redeemed_amount: Decimal | None
    net_amount: Decimal | None
    outcome: str
    detail: str | None
    program_version: int | None
    rule_points: Decimal | None
    version_now: int | None
    deserved_points: int
    target_points: int
    in_force_points: int
    waived_points: int
    is_different: bool


@dataclass(frozen=True, kw_only=True)
class OpenHold:
    """Points that a checkout in progress has reserved; still held after `expires_at` until they are released."""

    order_id: str
    points: int
    reserved_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class MergedCustomer:
    """A customer whose points belong to another one since."""

    customer_id: str
    into_customer_id: str
    reason: str
    actor: str
    merged_at: datetime


@dataclass(frozen=True, kw_only=True)
class ExplainedAccount:
    """An account as it was `at` an instant (None: as it is); what only the present knows is None for the past.

    `orders` None: the shop's mapping is withdrawn, so nothing is known of them. `rules` holds the versions by number.
    """

    merchant_id: str
    customer_id: str
    at: datetime | None
    read_at: datetime
    is_active: bool
    first_recorded_at: datetime | None
    held: int | None
    spendable: int | None
    expires_at: datetime | None
    explanation: Explanation
    orders: tuple[ExplainedOrder, ...] | None
    rules: Mapping[int, ProgramRules]
    holds: tuple[OpenHold, ...] | None
    merged_into: MergedCustomer | None
    merged_from: tuple[MergedCustomer, ...]


class LedgerContradictsItselfError(LoyaltyError):
    """Two figures of one account that have to be the same differ."""

    def __init__(self, *, merchant_id: str, customer_id: str, what: str, left: int, right: int) -> None:
        self.merchant_id = merchant_id
        self.customer_id = customer_id
        self.left = left
        self.right = right
        super().__init__(
            f"The ledger of customer {customer_id!r} at merchant {merchant_id!r} contradicts itself: {what} ({left:,} "
            f"is not {right:,}). An entry is always written together with its balance, so somebody has changed a table "
            "by hand: compare it with a backup before the customer spends more."
        )


class InstantInFutureError(LoyaltyError):
    """The ledger can't be explained as of an instant that has not come."""

    def __init__(self, *, at: datetime, now: datetime) -> None:
        self.at = at
        super().__init__(
            f"{at.isoformat(timespec='seconds')} is in the future: it is {now.isoformat(timespec='seconds')}. Name an "
            "earlier instant, or none for now."
        )


def explain(entries: Iterable[Entry], *, merchant_id: str, customer_id: str, balance: int | None = None) -> Explanation:
    """Trace the points of an account through its entries, in order of `seq` from the first; linear in their number.

    `balance` is what the account says it has; None: not known. Raises `LedgerContradictsItselfError` when the entries
    don't follow on each other, or end at another balance.
    """

    def require_same(what: str, left: int, right: int) -> None:
        if left != right:
            raise LedgerContradictsItselfError(
                merchant_id=merchant_id, customer_id=customer_id, what=what, left=left, right=right
            )

    lots = _Lots()
    reached = 0
    points: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for number, entry in enumerate(entries, start=1):
        require_same(f"entry {number} is missing, the next one has another number", entry.seq, number)
        require_same(
            f"entry {entry.seq} begins at another balance than the one before ended", entry.balance_before, reached
        )
        reached += entry.points
        require_same(f"entry {entry.seq} ends at another balance than its points make", entry.balance_after, reached)
        counts[entry.cause] += 1
        points[entry.cause] += entry.points
        if entry.points > 0:
            lots.add(entry)
        elif entry.points < 0:
            lots.take(entry)
    if balance is not None:
        require_same("its balance is not the sum of its entries", balance, reached)
    return Explanation(
        balance=reached,
        lots=tuple(Lot(entry=one.entry, uses=tuple(one.uses), left=one.left) for one in lots.lots),
        debts=tuple(Debt(entry=one.entry, points=one.points) for one in lots.debts),
        points=points,
        entries=counts,
    )


@dataclass(slots=True)
class _OpenLot:
    entry: Entry
    left: int
    uses: list[Use] = field(default_factory=list)

    def give(self, entry: Entry, wanted: int, *, is_debt: bool = False) -> int:
        given = min(wanted, self.left)
        if given:
            self.left -= given
            self.uses.append(Use(entry=entry, points=given, is_debt=is_debt))
        return given


@dataclass(slots=True)
class _OpenDebt:
    entry: Entry
    points: int


class _Lots:
    """Each lot leaves each queue once, when it is found empty: so all debits together look at each lot a few times."""

    def __init__(self) -> None:
        self.lots: list[_OpenLot] = []
        self.debts: deque[_OpenDebt] = deque()
        self._oldest_first: deque[_OpenLot] = deque()
        self._of_order: defaultdict[str, deque[_OpenLot]] = defaultdict(deque)
        # A merge is one transaction, so its entries have one instant.
        self._of_merge: defaultdict[datetime, deque[_OpenLot]] = defaultdict(deque)

    def add(self, entry: Entry) -> None:
        lot = _OpenLot(entry, entry.points)
        self.lots.append(lot)
        while self.debts and lot.left:
            debt = self.debts[0]
            debt.points -= lot.give(debt.entry, debt.points, is_debt=True)
            if not debt.points:
                self.debts.popleft()
        if not lot.left:
            return
        self._oldest_first.append(lot)
        if entry.order_id is not None:
            self._of_order[entry.order_id].appendleft(lot)
        if entry.cause == MERGED:
            self._of_merge[entry.recorded_at].append(lot)

    def take(self, entry: Entry) -> None:
        wanted = -entry.points
        if entry.order_id is not None:
            wanted -= _take_from(self._of_order[entry.order_id], entry, wanted)
        elif entry.cause == MERGED:
            # What of the orders that came with the merge had been spent before it.
            wanted -= _take_from(self._of_merge[entry.recorded_at], entry, wanted)
        wanted -= _take_from(self._oldest_first, entry, wanted)
        if wanted:
            self.debts.append(_OpenDebt(entry, wanted))


def _take_from(queue: deque[_OpenLot], entry: Entry, wanted: int) -> int:
    """Take up to `wanted` points from the lots in order, dropping those that are empty; return how many there were."""
    taken = 0
    while queue and taken < wanted:
        taken += queue[0].give(entry, wanted - taken)
        if not queue[0].left:
            queue.popleft()
    return taken


def rule_in_words(rules: ProgramRules) -> str:
    """Return what an amount earns: "1 point per 1.00, x 1.5, floor"; the rounding only where it matters."""
    noun = "point" if rules.points_per_unit == 1 else "points"
    words = f"{number_in_words(rules.points_per_unit)} {noun} per {amount_in_words(rules.unit_amount)}"
    if rules.multiplier == 1:
        return words
    words += f", x {number_in_words(rules.multiplier)}"
    return words if rules.multiplier == rules.multiplier.to_integral_value() else f"{words}, {rules.rounding}"


def number_in_words(value: Decimal) -> str:
    """Return a number without trailing zeros and without an exponent."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def amount_in_words(value: Decimal) -> str:
    """Return an amount with at least two decimals, and with all that it has."""
    if not value.is_finite():
        return str(value)
    text = number_in_words(value)
    decimals = len(text.partition(".")[2])
    return f"{value:,.2f}" if decimals <= 2 else text
