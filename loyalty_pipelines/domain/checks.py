"""What the award checks find."""

from dataclasses import dataclass
from datetime import datetime


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
