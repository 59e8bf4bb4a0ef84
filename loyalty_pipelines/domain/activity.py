"""What happened lately: how points were redeemed, and the newest entries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

DEFAULT_DAYS = 62
DEFAULT_MONTHS = 24
MAX_PERIODS = 3_700
DEFAULT_ENTRIES = 20
MAX_ENTRIES = 10_000
DEFAULT_ACTIVITY_DAYS = 30


class Unit(StrEnum):
    """How long a period is, on the merchant's own calendar."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, kw_only=True, slots=True)
class RedemptionPeriod:
    """What was redeemed at a merchant in a day or a month, and what it was worth then.

    `amount` None: nothing was redeemed, or the currency is unknown.
    """

    merchant_id: str
    currency: str | None
    period_on: date
    redemptions: int
    customers: int
    spent_points: int
    amount: Decimal | None
    restored_points: int
    earned_points: int
    holds_released: int
    holds_expired: int

    @property
    def average_points(self) -> Decimal | None:
        """Return the points of one redemption."""
        return (Decimal(self.spent_points) / self.redemptions).quantize(Decimal("0.1")) if self.redemptions else None

    @property
    def share_of_earned(self) -> Decimal | None:
        """Return the points redeemed for each point earned in the same time."""
        if not self.earned_points:
            return None
        return (Decimal(self.spent_points) / self.earned_points).quantize(Decimal("0.0001"))


@dataclass(frozen=True, kw_only=True, slots=True)
class RedemptionReport:
    """What was redeemed at the chosen merchants, by day and by month; a period without anything has no row."""

    as_of: datetime
    # By merchant: the first day of its present month.
    present_months: Mapping[str, date]
    days: Sequence[RedemptionPeriod]
    months: Sequence[RedemptionPeriod]
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def merchant_ids(self) -> list[str]:
        """Return the merchants, sorted."""
        return sorted(self.present_months)


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityEntry:
    """A ledger entry as operators see it: ids and numbers, no names, no addresses, nobody's words."""

    merchant_id: str
    recorded_at: datetime
    occurred_at: datetime
    customer_id: str
    account_id: int
    seq: int
    kind: str
    points: int
    balance_before: int
    balance_after: int
    stamps: int
    reference_type: str
    reference_id: str
    actor: str
    run_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityReport:
    """The newest entries of the chosen merchants."""

    as_of: datetime
    days: int
    limit: int
    merchant_ids: Sequence[str]
    entries: Sequence[ActivityEntry]
    failures: Mapping[str, str] = field(default_factory=dict)
