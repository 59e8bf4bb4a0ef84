"""What an operator sees of one customer's account. Holds ids only, no personal data."""

from dataclasses import dataclass
from datetime import datetime

from loyalty_pipelines.domain.errors import LoyaltyError


@dataclass(frozen=True, kw_only=True)
class Account:
    """A customer in a merchant's programme. `spendable`: less what is held, 0 once the points are past `expires_at`."""

    merchant_id: str
    customer_id: str
    account_id: int
    balance: int
    held: int
    spendable: int
    stamp_count: int
    entries: int
    is_active: bool
    last_activity_at: datetime | None
    expires_at: datetime | None
    parked_reason: str | None


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One change of one balance."""

    seq: int
    kind: str
    points: int
    balance_after: int
    stamps: int
    reference_type: str
    reference_id: str
    reason: str | None
    actor: str
    occurred_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True)
class QueueItem:
    """A point update that waits for a person."""

    queue_id: int
    operation: str
    order_id: str | None
    reason: str
    detail: str | None
    attempts: int
    created_at: datetime
    last_seen_at: datetime


class AccountNotFoundError(LoyaltyError):
    """The customer has no account at the merchant; `queued` counts what waits for a person under that id."""

    def __init__(self, *, merchant_id: str, customer_id: str, queued: int) -> None:
        self.merchant_id = merchant_id
        self.customer_id = customer_id
        self.queued = queued
        what = f"{queued} of its orders wait in loyalty.reconciliation_queue" if queued else "nothing waits for it"
        super().__init__(
            f"Customer {customer_id!r} has no account at merchant {merchant_id!r} and {what}: the first award "
            "makes the account, so look whether its order is paid and run 'loyalty status'."
        )
