"""Merging one customer's account into another one's: what is asked for, what came of it, and why it is refused."""

from dataclasses import dataclass
from datetime import datetime

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.repairs import ImpossibleRepairError, require_said


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Everything that `customer_id` has is to be `into_customer_id`'s from now on."""

    merchant_id: str
    customer_id: str
    into_customer_id: str
    reason: str
    actor: str

    def __post_init__(self) -> None:
        require_said("The reason", self.reason)
        require_said("The actor", self.actor)
        if self.customer_id == self.into_customer_id:
            raise ImpossibleRepairError(
                what="The customer to merge into", found=self.into_customer_id, expected="another customer"
            )


@dataclass(frozen=True, kw_only=True)
class AccountState:
    """What a merge changes of an account. `is_due`: its points are past `expires_at`, and no job has taken them yet."""

    customer_id: str
    balance: int
    held: int
    stamp_count: int
    last_activity_at: datetime | None
    expires_at: datetime | None
    is_due: bool


@dataclass(frozen=True, kw_only=True)
class MergeReport:
    """What a merge did: both accounts before and after it, first the one that was merged.

    `orders` moved with `points_of_orders`; `points_besides` is what remained. `is_into_listed`: the shop knows the
    other customer. `is_repeated`: it was done before, and nothing else is told.
    """

    merge: Merge
    is_repeated: bool
    before: tuple[AccountState, ...] = ()
    after: tuple[AccountState, ...] = ()
    orders: int = 0
    points_of_orders: int = 0
    points_besides: int = 0
    stamps_besides: int = 0
    entries: int = 0
    redemptions: int = 0
    is_into_new: bool = False
    is_into_listed: bool = True


class NothingToMergeError(LoyaltyError):
    """The customer has no account, or one that is not in use."""

    def __init__(self, *, merchant_id: str, customer_id: str, has_account: bool) -> None:
        self.merchant_id = merchant_id
        self.customer_id = customer_id
        found = "an account that is not active" if has_account else "no account"
        super().__init__(
            f"Customer {customer_id!r} has {found} at merchant {merchant_id!r}, so there is nothing to merge: expected "
            "the id of a customer with an active account first, and then of the one who keeps the points."
        )


class AlreadyMergedError(LoyaltyError):
    """One of the two was merged into somebody else before."""

    def __init__(self, *, customer_id: str, into_customer_id: str) -> None:
        self.customer_id = customer_id
        self.into_customer_id = into_customer_id
        super().__init__(
            f"Customer {customer_id!r} was merged into {into_customer_id!r} already: expected customers with accounts "
            f"of their own. Use {into_customer_id!r} instead."
        )


class MergeDoesNotAddUpError(LoyaltyError):
    """A merge contradicts itself; it was rolled back."""

    def __init__(self, *, merchant_id: str, customer_id: str, what: str, before: int, after: int) -> None:
        self.merchant_id = merchant_id
        self.customer_id = customer_id
        super().__init__(
            f"Merge of customer {customer_id!r} of merchant {merchant_id!r} rolled back: both accounts had {before:,} "
            f"{what} before it and {after:,} after it. Nothing was written; please report this."
        )
