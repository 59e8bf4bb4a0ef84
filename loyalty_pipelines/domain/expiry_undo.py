"""Taking an expiry back: what is asked for, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.repairs import require_said


@dataclass(frozen=True, kw_only=True)
class Undo:
    """Which run is undone, for whom (None: for all merchants, all customers), and who says so.

    With `is_mailed` the customers get a mail that names their points and the new date; not those who have a later date
    by now, and none while the programme is off.
    """

    run_id: str
    merchant_id: str | None = None
    customer_id: str | None = None
    is_mailed: bool = False
    reason: str
    actor: str

    def __post_init__(self) -> None:
        require_said("The reason", self.reason)
        require_said("The actor", self.actor)


@dataclass(frozen=True, kw_only=True)
class UndoneMerchant:
    """What was given back to a merchant's customers, and how many accounts had it back before."""

    merchant_id: str
    accounts: int = 0
    points: int = 0
    accounts_before: int = 0


@dataclass(frozen=True, kw_only=True)
class UndoReport:
    """What an undo did, per merchant; failures by merchant."""

    merchants: Sequence[UndoneMerchant] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    def total(self, name: str) -> int:
        """Return the sum of a counter over all merchants."""
        return sum(getattr(one, name) for one in self.merchants)


class RunNotFoundError(LoyaltyError):
    """No expiry run has this id, or it did not touch the merchant."""

    def __init__(self, *, run_id: str, merchant_id: str | None, recent: Sequence[str]) -> None:
        self.run_id = run_id
        where = f" at merchant {merchant_id!r}" if merchant_id is not None else ""
        newest = f"the newest that took points: {', '.join(recent)}" if recent else "no run has taken points yet"
        super().__init__(f"Found no expiry run {run_id!r}{where}: {newest}. 'loyalty expiry runs' lists them.")


class NothingTakenError(LoyaltyError):
    """The run took nothing from the customer, or from anybody."""

    def __init__(self, *, run_id: str, customer_id: str | None) -> None:
        self.run_id = run_id
        whom = f"customer {customer_id!r}" if customer_id is not None else "anybody"
        super().__init__(
            f"Expiry run {run_id!r} took no points from {whom}, so there is nothing to give back: check the id. "
            "'loyalty account explain MERCHANT CUSTOMER' names the run that took points."
        )
