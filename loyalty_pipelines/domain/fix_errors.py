"""What can't be planned, approved, applied or undone, and what to do then."""

from collections.abc import Mapping, Sequence

from loyalty_pipelines.domain.errors import LoyaltyError


class NoSuchPlanError(LoyaltyError):
    """There is no fix plan with this number."""

    def __init__(self, plan_id: int) -> None:
        self.plan_id = plan_id
        super().__init__(f"There is no plan {plan_id}. 'loyalty subscriptions history' lists them.")


class NotApprovableError(LoyaltyError):
    """Plans that can't be approved; none of those that were named was."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        self.reasons = reasons
        listed = "; ".join(f"plan {plan_id} {reason}" for plan_id, reason in reasons.items())
        super().__init__(
            f"Nothing was approved: {listed}. 'loyalty subscriptions plan' makes plans of what is open now."
        )


class NotUndoableError(LoyaltyError):
    """A plan that can't be undone: it is not applied, or nothing can take back what it did."""

    def __init__(self, plan_id: int, why: str) -> None:
        self.plan_id = plan_id
        super().__init__(f"Plan {plan_id} can't be undone: {why}.")


class ChangedSinceError(LoyaltyError):
    """The shop's row is not any more what the fix made of it: undoing would overwrite somebody else's change."""

    def __init__(self, plan_id: int, what: str, columns: Sequence[str]) -> None:
        self.plan_id = plan_id
        self.columns = columns
        found = f"differs in {', '.join(columns)}" if columns else "is gone"
        super().__init__(
            f"Plan {plan_id} was not undone: {what} {found} from what the fix left. Change it in the shop by hand; "
            f"'loyalty subscriptions history' shows what the fix did."
        )


class SettingOutOfRangeError(LoyaltyError):
    """A setting that the table would refuse."""

    def __init__(self, name: str, value: object, low: object, high: object) -> None:
        self.name = name
        super().__init__(f"{name} is {value}; expected a number from {low} to {high}.")


class NotAcceptedError(LoyaltyError):
    """A finding that can't be accepted: it is closed, or nobody knows what it stands for."""

    def __init__(self, number: int, *, is_closed: bool) -> None:
        self.number = number
        why = (
            "is closed already"
            if is_closed
            else "says that something could not be compared: there is nothing to accept before it is. Put right what "
            f"it says ('loyalty subscriptions findings --number {number}')"
        )
        super().__init__(f"Finding {number} was not accepted: it {why}.")
