"""Changing a balance by hand: what is asked for, what came of it, and why it is refused."""

from dataclasses import dataclass
from datetime import datetime

from loyalty_pipelines.domain.errors import LoyaltyError

MAX_POINTS = 2_000_000_000
MAX_REFERENCE_BYTES = 1_000


class ImpossibleRepairError(LoyaltyError):
    """What is asked for makes no sense, whatever the ledger says."""

    def __init__(self, *, what: str, found: object, expected: str) -> None:
        self.what = what
        super().__init__(f"{what} is {found!r}: expected {expected}.")


def require_said(what: str, text: str) -> None:
    """Raise `ImpossibleRepairError` unless the text says something: who changed a balance and why is never guessed."""
    if not text.strip():
        raise ImpossibleRepairError(what=what, found=text, expected="some words, which the ledger keeps for ever")


@dataclass(frozen=True, kw_only=True)
class Adjustment:
    """Points to add (or, negative, to take) by hand. The same `reference` again is the same adjustment, done once."""

    merchant_id: str
    customer_id: str
    points: int
    reason: str
    actor: str
    reference: str
    run_id: str | None = None

    def __post_init__(self) -> None:
        require_said("The reason", self.reason)
        require_said("The actor", self.actor)
        if not 0 < abs(self.points) <= MAX_POINTS:
            raise ImpossibleRepairError(
                what="The number of points",
                found=self.points,
                expected=f"a whole number, not 0, of at most {MAX_POINTS:,} either way",
            )
        if not 1 <= len(self.reference.encode("utf-8", "surrogatepass")) <= MAX_REFERENCE_BYTES:
            raise ImpossibleRepairError(
                what="The reference", found=self.reference[:60], expected=f"1 to {MAX_REFERENCE_BYTES:,} bytes"
            )


@dataclass(frozen=True, kw_only=True)
class AdjustmentReport:
    """What an adjustment did. `is_repeated`: it was there already, and the numbers are those of its entry.

    `account_customer_id` is whose account it is: another customer's after a merge.
    """

    merchant_id: str
    customer_id: str
    account_customer_id: str
    reference: str
    points: int
    seq: int
    balance_before: int
    balance_after: int
    expires_before: datetime | None
    expires_at: datetime | None
    is_account_new: bool
    is_repeated: bool
    was_due: bool


class CustomerNotFoundError(LoyaltyError):
    """The customer has no account, and the shop does not list it, so none is made."""

    def __init__(self, *, merchant_id: str, customer_id: str) -> None:
        self.merchant_id = merchant_id
        self.customer_id = customer_id
        super().__init__(
            f"Customer {customer_id!r} has no account at merchant {merchant_id!r}, and the shop's customers "
            "(loyalty_source.customers) have no such id either, so none was made: check the id, or wait for the first "
            "award, which makes the account."
        )


class ReferenceTakenError(LoyaltyError):
    """The reference stands for another adjustment already."""

    def __init__(self, *, reference: str, customer_id: str, points: int) -> None:
        self.reference = reference
        self.customer_id = customer_id
        self.points = points
        super().__init__(
            f"Reference {reference!r} is an adjustment of {points:+,} points for customer {customer_id!r} already: "
            "repeat it with the same customer and points, or choose another reference for another adjustment."
        )


class NotEnoughPointsError(LoyaltyError):
    """More points are to be taken than are free, and the programme allows no debt."""

    def __init__(self, *, customer_id: str, balance: int, held: int, requested: int) -> None:
        self.customer_id = customer_id
        self.available = balance - held
        self.requested = requested
        super().__init__(
            f"Available: {self.available:,}, requested: {requested:,}. Customer {customer_id!r} has a balance of "
            f"{balance:,}, of which checkouts in progress hold {held:,}: take at most {max(self.available, 0):,}. Only "
            "a programme with clawback allow_negative lets a balance go below zero."
        )
