"""What the award checks find."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class DoubleAward:
    """An order whose entries show more or other points than it is accounted for."""

    merchant_id: str
    order_id: str
    points_in_ledger: int
    points_accounted_for: int


@dataclass(frozen=True, kw_only=True)
class WaitingOrders:
    """How many orders of a merchant wait in the inbox, and since when."""

    merchant_id: str
    orders: int
    oldest_at: datetime
    oldest_seconds: float


@dataclass(frozen=True, kw_only=True)
class MissingOrders:
    """How many of a merchant's orders were gone from the shop when they were to be awarded."""

    merchant_id: str
    orders: int
    orders_missing: int
