"""What awarding says about itself: outcomes, batches, totals."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from loyalty_pipelines.domain.errors import LoyaltyError

# The outcomes of loyalty.order_verdict, and order_ambiguous of the batch. These change the ledger where it differs ...
SETTLED_OUTCOMES = ("earning", "unpaid", "no_programme")
# ... these leave it as it is, and need nobody ...
SKIPPED_OUTCOMES = ("no_customer", "order_missing")
# ... and these leave it as it is until somebody has looked: they go to the reconciliation queue.
QUEUE_OUTCOMES = (
    "order_ambiguous",
    "status_unrecognized",
    "paid_at_missing",
    "paid_at_in_future",
    "merchant_unknown",
    "currency_differs",
    "amount_invalid",
    "points_out_of_range",
)
# What PostgreSQL itself refused to process, one order at a time: it goes to the queue as well.
DATABASE_ERROR = "database_error"


# Orders per transaction. 20,000 hold their accounts for about 0.2 s and cost 0.95 of what 10,000 cost per order; 40,000
# cost 0.88, but hold them for 0.4 s. A checkout waits as long.
DEFAULT_BATCH_SIZE = 20_000


class BatchDoesNotAddUpError(LoyaltyError):
    """A batch contradicts itself; it was rolled back and nothing was written."""

    def __init__(self, *, merchant_id: str, what: str, left: int, right: int) -> None:
        self.merchant_id = merchant_id
        super().__init__(
            f"Award batch of merchant {merchant_id!r} rolled back: {what} ({left} is not {right}). "
            "Nothing was written; please report this with the run's log."
        )


@dataclass(frozen=True, kw_only=True)
class InboxPosition:
    """A place in a merchant's inbox, which is read in order of customer and then of arrival."""

    customer_id: str = ""
    inbox_id: int = -1
    is_last: bool = False


@dataclass(frozen=True, kw_only=True)
class MerchantSettings:
    """What a batch needs to know of its merchant; `timezone` is always one that can be computed with."""

    currency: str | None
    timezone: str
    is_timezone_known: bool
    is_debt_allowed: bool
    points_expiration_days: int | None
    stamp_target: int | None
    has_redemptions: bool


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One committed batch of one merchant, counted in orders (rows: inbox rows; points: signed sum).

    `accounts_enrolled` accounts were made for new customers, and given `bonus_points`, which no order has earned.
    `quarantined` are the ids of orders that PostgreSQL refused to process. `end` is where the next batch begins;
    None: this one reached the end of the merchant's inbox.
    """

    merchant_id: str
    rows_claimed: int
    rows_repeated: int
    orders_changed: int
    orders_unchanged: int
    orders_queued: int
    orders_skipped: int
    orders_missing: int
    entries_written: int
    points_changed: int
    outcomes: Mapping[str, int]
    end: InboxPosition | None
    accounts_enrolled: int = 0
    bonus_points: int = 0
    quarantined: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MerchantAwards:
    """The sum of a merchant's batches in one run."""

    merchant_id: str
    batches: int = 0
    rows_claimed: int = 0
    rows_repeated: int = 0
    orders_changed: int = 0
    orders_unchanged: int = 0
    orders_queued: int = 0
    orders_skipped: int = 0
    orders_missing: int = 0
    entries_written: int = 0
    points_changed: int = 0
    accounts_enrolled: int = 0
    bonus_points: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    def plus(self, batch: Batch, *, seconds: float) -> "MerchantAwards":
        """Return the sum with one more batch."""
        return MerchantAwards(
            merchant_id=self.merchant_id,
            batches=self.batches + 1,
            rows_claimed=self.rows_claimed + batch.rows_claimed,
            rows_repeated=self.rows_repeated + batch.rows_repeated,
            orders_changed=self.orders_changed + batch.orders_changed,
            orders_unchanged=self.orders_unchanged + batch.orders_unchanged,
            orders_queued=self.orders_queued + batch.orders_queued,
            orders_skipped=self.orders_skipped + batch.orders_skipped,
            orders_missing=self.orders_missing + batch.orders_missing,
            entries_written=self.entries_written + batch.entries_written,
            points_changed=self.points_changed + batch.points_changed,
            accounts_enrolled=self.accounts_enrolled + batch.accounts_enrolled,
            bonus_points=self.bonus_points + batch.bonus_points,
            seconds=self.seconds + seconds,
            warnings=self.warnings,
        )


@dataclass(frozen=True, kw_only=True)
class AwardReport:
    """What one run of awarding did: per merchant, and the merchants that failed with their error's text."""

    merchants: Mapping[str, MerchantAwards] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    is_dry_run: bool = False

    def total(self, name: str) -> int:
        """Return the sum of the counter `name` (a field of `MerchantAwards`) over all merchants."""
        return sum(getattr(awards, name) for awards in self.merchants.values())


@dataclass(frozen=True, kw_only=True)
class DifferenceCount:
    """How many orders of a merchant the ledger is wrong about: paid ones, unpaid ones, and undecidable ones.

    `points_paid` and `points_unpaid` are the signed sums that awarding them would write, before any clamping.
    """

    merchant_id: str
    orders_paid: int
    points_paid: int
    orders_unpaid: int
    points_unpaid: int
    orders_undecided: int
    examples: tuple[str, ...]

    @property
    def orders(self) -> int:
        """All orders that differ."""
        return self.orders_paid + self.orders_unpaid + self.orders_undecided
