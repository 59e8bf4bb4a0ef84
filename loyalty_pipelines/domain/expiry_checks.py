"""What the runs of expiry were, and what the checks of expiry find."""

from dataclasses import dataclass
from datetime import datetime

from loyalty_pipelines.domain.expiry import ExpiryPlan


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run: of one merchant, or with the sums over all of its merchants.

    `merchants_unfinished` of them did not get to their end: at work still, or ended by a failure.
    """

    run_id: str
    merchant_id: str | None
    actor: str
    as_of: datetime
    started_at: datetime
    finished_at: datetime | None
    merchants: int
    merchants_unfinished: int
    merchants_stopped: int
    accounts_warned: int
    accounts_moved: int
    accounts_due: int
    accounts_expired: int
    points_expired: int
    accounts_undone: int
    points_undone: int


@dataclass(frozen=True, kw_only=True)
class StoppedMerchant:
    """A merchant whose newest plan looks wrong, and since when nothing of it expires."""

    merchant_id: str
    run_id: str
    stopped_at: datetime
    plan: ExpiryPlan

    @property
    def reason(self) -> str:
        """Why, with its numbers and the command that lets it through."""
        return self.plan.reason(self.merchant_id)

    @property
    def accounts_due(self) -> int:
        """How many accounts would expire."""
        return self.plan.accounts_due

    @property
    def points_due(self) -> int:
        """What they would lose."""
        return self.plan.points_due


@dataclass(frozen=True, kw_only=True)
class UnwarnedMerchant:
    """Accounts of a merchant that expired lately without a delivered warning.

    `accounts_unreachable` are not among them: their warning is parked, because no mail reaches the customer. The run is
    the newest that took unwarned points; None where a merchant has unreachable customers only.
    """

    merchant_id: str
    accounts: int
    points: int
    accounts_unreachable: int
    run_id: str | None
