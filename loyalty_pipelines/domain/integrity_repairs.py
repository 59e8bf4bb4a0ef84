"""Putting right columns of accounts that drifted from an intact ledger: the one answer that the ledger gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from loyalty_pipelines.domain.errors import LoyaltyError

Columns = Mapping[str, int]


class NoSuchRepairError(LoyaltyError):
    """There is no repair with this number."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"There is no repair {number}. 'loyalty integrity repairs' lists them.")


class RepairUndoneError(LoyaltyError):
    """A repair was undone before."""

    def __init__(self, number: int, *, by: str, at: datetime) -> None:
        self.number = number
        super().__init__(f"Repair {number} was undone already, by {by} at {at:%Y-%m-%d %H:%M} UTC.")


class NotAcceptableError(LoyaltyError):
    """A finding that can't be accepted: it is closed, or can be put right."""

    def __init__(self, number: int, *, class_name: str, is_closed: bool) -> None:
        self.number = number
        why = "is closed already" if is_closed else f"is of class {class_name}, which can be put right"
        super().__init__(
            f"Finding {number} {why}: accepting is for what can't be. 'loyalty integrity repair' and "
            "docs/runbooks/integrity.md say what can be done."
        )


@dataclass(frozen=True, kw_only=True)
class RepairPlan:
    """What an account's columns are and what its ledger says they should be.

    `refusal`: why it is not repaired by itself; then a person decides.
    """

    merchant_id: str
    account_id: int
    customer_id: str
    first_seq: int | None
    last_seq: int
    before: Columns
    after: Columns
    is_trusting: bool = False
    refusal: str | None = None

    @property
    def changes(self) -> Mapping[str, tuple[int, int]]:
        """Return before and after of the columns that change."""
        return {name: (self.before[name], self.after[name]) for name in self.before if self.changed(name)}

    def changed(self, name: str) -> bool:
        """Return whether a column changes."""
        return self.before[name] != self.after[name]


@dataclass(frozen=True, kw_only=True)
class Repair:
    """A repair that was made, and whether it was undone; `columns_left`: what that could not take back any more."""

    merchant_id: str
    repair_id: int
    account_id: int
    before: Columns
    after: Columns
    reason: str
    applied_by: str
    applied_at: datetime
    undone_by: str | None
    undone_at: datetime | None
    columns_left: Sequence[str]
