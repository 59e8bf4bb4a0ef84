"""What waits in the reconciliation queue, how it is tried again, and what a drain says about itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from loyalty_pipelines.domain.errors import LoyaltyError


class TryResult(StrEnum):
    """What became of an item that was tried: the answers of loyalty.try_queue_item."""

    APPLIED = "applied"
    FOUND_DONE = "found_done"
    VOID = "void"
    FAILED = "failed"
    PARKED = "parked"
    GONE = "gone"


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often an item is tried before it is parked, and how long it waits: doubling from the first wait."""

    max_tries: int = 8
    first_wait: timedelta = timedelta(minutes=1)
    longest_wait: timedelta = timedelta(hours=6)


@dataclass(frozen=True, kw_only=True)
class QueuePosition:
    """A place among a merchant's items, which are read in order of customer and then of arrival."""

    customer_id: str = ""
    queue_id: int = -1


@dataclass(frozen=True, kw_only=True)
class QueuedUpdate:
    """One item of the queue. `merchant_id` is '' while nobody knows it.

    `attempts` counts how often it was reported or met, `tries` how often it was tried again. `blocked_by` is a parked
    item of the same customer.
    """

    merchant_id: str
    queue_id: int
    operation: str
    order_id: str | None
    customer_id: str | None
    reason: str
    detail: str | None
    points_earned: int | None
    points_redeemed: int | None
    order_total: Decimal | None
    attempts: int
    tries: int
    created_at: datetime
    last_seen_at: datetime
    next_try_at: datetime
    parked_at: datetime | None
    resolved_at: datetime | None
    resolution: str | None
    resolved_by: str | None
    run_id: str | None
    blocked_by: int | None

    @property
    def is_shortened(self) -> bool:
        """Whether the order's id was too long for the queue: no look-up can find the order by what is left of it."""
        return self.reason == "database_error" and " ... (md5 " in (self.order_id or "")


@dataclass(frozen=True, kw_only=True)
class MerchantQueue:
    """What waits for a merchant; points are what its items would earn and redeem."""

    merchant_id: str
    items: int
    oldest_at: datetime
    oldest_seconds: float
    points_at_stake: int
    parked: int


@dataclass(frozen=True, kw_only=True)
class QueueVerdict:
    """What waits for all merchants together, and whether that is too much or for too long."""

    waiting: tuple[MerchantQueue, ...]
    items: int
    parked: int
    oldest_seconds: float
    points_at_stake: int
    is_red: bool
    is_yellow: bool

    @property
    def description(self) -> str:
        """What waits, in a sentence."""
        return (
            f"{self.items} point updates wait, the oldest for {self.oldest_seconds / 60:.1f} minutes; {self.parked} "
            "are parked."
        )


WARN_AFTER = timedelta(hours=1)
FAIL_AFTER = timedelta(hours=24)


def judge_queue(
    waiting: Sequence[MerchantQueue], *, warn_after: timedelta = WARN_AFTER, fail_after: timedelta = FAIL_AFTER
) -> QueueVerdict:
    """Return the verdict: red when an item is older than `fail_after`, yellow for `warn_after` or a parked one."""
    oldest = max((one.oldest_seconds for one in waiting), default=0.0)
    parked = sum(one.parked for one in waiting)
    is_red = oldest > fail_after.total_seconds()
    return QueueVerdict(
        waiting=tuple(waiting),
        items=sum(one.items for one in waiting),
        parked=parked,
        oldest_seconds=oldest,
        points_at_stake=sum(one.points_at_stake for one in waiting),
        is_red=is_red,
        is_yellow=not is_red and (parked > 0 or oldest > warn_after.total_seconds()),
    )


@dataclass(frozen=True, kw_only=True)
class MerchantTries:
    """What a drain did for one merchant, in items.

    `orders` are those of operation 'award', of which `orders_waiting` could not be decided this time either
    (`orders_parked` of them were tried often enough).
    """

    merchant_id: str
    applied: int = 0
    found_done: int = 0
    void: int = 0
    failed: int = 0
    parked: int = 0
    gone: int = 0
    orders: int = 0
    orders_waiting: int = 0
    orders_parked: int = 0

    def plus(self, **counts: int) -> "MerchantTries":
        """Return the sum with more items."""
        return replace(self, **{name: getattr(self, name) + number for name, number in counts.items()})

    @property
    def tried(self) -> int:
        """All items that were tried."""
        return self.applied + self.found_done + self.void + self.failed + self.parked + self.orders

    @property
    def waiting(self) -> int:
        """Those of them that still wait, parked or not."""
        return self.failed + self.parked + self.orders_waiting


@dataclass(frozen=True, kw_only=True)
class QueueReport:
    """What one drain of the queue did: per merchant, and the merchants that failed with their error's text."""

    merchants: Mapping[str, MerchantTries] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    def total(self, name: str) -> int:
        """Return the sum of the counter `name` (of `MerchantTries`) over all merchants."""
        return sum(getattr(tries, name) for tries in self.merchants.values())


class QueueItemNotFoundError(LoyaltyError):
    """No item has this number."""

    def __init__(self, *, queue_id: int) -> None:
        self.queue_id = queue_id
        super().__init__(
            f"The queue has no item {queue_id}: 'loyalty queue list --all' shows the numbers, resolved ones too."
        )


class QueueItemResolvedError(LoyaltyError):
    """The item was resolved before, by the pipeline or by somebody; nothing is changed."""

    def __init__(self, item: QueuedUpdate) -> None:
        self.item = item
        at = item.resolved_at.isoformat(timespec="seconds") if item.resolved_at else "an unknown time"
        super().__init__(
            f"Item {item.queue_id} was resolved at {at} by {item.resolved_by or 'the pipeline'}: {item.resolution}. "
            "An order or update that fails again becomes a new item."
        )


class QueueItemBlockedError(LoyaltyError):
    """The item can't be tried by its number; its text says why and what to do instead."""

    def __init__(self, item: QueuedUpdate) -> None:
        self.item = item
        if item.is_shortened:
            text = (
                f"Item {item.queue_id} has only a part of its order's id, which is too long: correct the order in the "
                f"shop, then 'loyalty award --sweep --merchant {item.merchant_id}' finds it."
            )
        else:
            text = (
                f"Item {item.queue_id} is not tried while item {item.blocked_by} of customer {item.customer_id!r} is "
                f"parked: look at that one first ('loyalty queue show {item.blocked_by}'), then 'loyalty queue unpark "
                f"{item.merchant_id} {item.customer_id}'."
            )
        super().__init__(text)


class NothingParkedError(LoyaltyError):
    """The customer has no parked item at the merchant."""

    def __init__(self, *, merchant_id: str, customer_id: str) -> None:
        self.merchant_id = merchant_id
        self.customer_id = customer_id
        super().__init__(
            f"Nothing of customer {customer_id!r} is parked at merchant {merchant_id!r}: 'loyalty queue list --parked' "
            "shows what is."
        )
