"""What payments, orders, subscriptions and points can disagree on: classes, their severity, who may fix them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.findings import OpenFindings
from loyalty_pipelines.domain.source_models import SourceMapping

SUBJECT = "subscriptions"
# The name under which loyalty.merchant_jobs and the asset know the check.
JOB = "subscription_mismatches"
# Its object is the class that could not be looked for, and the merchant where nothing could.
CHECK_FAILED = "check_failed"
# Its object is a relation of the shop that the mapping lacks.
NOT_CHECKED = "not_checked"
# Said wherever something of the comparison is asked for, and there is nothing to compare.
NOT_MAPPED = (
    "The source mapping has no payments and no subscriptions: nothing is compared, and silence proves nothing. "
    "docs/source-mapping.md says how to map them."
)


@dataclass(frozen=True, kw_only=True)
class MismatchClass:
    """One sort of mismatch.

    `code` names it everywhere, for good: findings, commands, metrics, the runbook's section. `sentence` is the name of
    its asset check. `severity`: error is money or access wrong now, warning may be in flight or wants a look. `policy`
    is the widest that a finding of it can have: A automatic, P a plan that a person approves, H a person only; the
    statement narrows it for each finding. `needs`: the views without which nothing can be said. `reads`: the tables of
    `db/subscriptions.CREATE_FACTS` (and `repeated_payments`) that hold all that it may find; none if it reads others.
    """

    code: str
    sentence: str
    severity: str
    policy: str
    meaning: str
    needs: tuple[str, ...] = ("payments", "subscriptions", "plans")
    reads: tuple[str, ...] = ("odd_payments",)
    statements: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The statements that look for it."""
        return self.statements or (f"find_{self.code}",)


CLASSES = (
    MismatchClass(
        code="paid_without_subscription",
        sentence="every_paid_plan_has_its_subscription",
        severity="error",
        policy="A",
        meaning="Every captured payment for a plan has a subscription that covers its period.",
    ),
    MismatchClass(
        code="subscription_without_payment",
        sentence="every_live_subscription_is_paid",
        severity="error",
        policy="P",
        meaning="Every live subscription has a payment for the period that runs, or needs none.",
        reads=("uncovered_subscriptions",),
    ),
    MismatchClass(
        code="duplicate_same_plan",
        sentence="no_customer_has_a_plan_twice",
        severity="error",
        policy="A",
        meaning="No customer has two live subscriptions to one plan that can be had once.",
        reads=("several_subscriptions",),
    ),
    MismatchClass(
        code="duplicate_other_plan",
        sentence="no_customer_has_rival_plans",
        severity="warning",
        policy="H",
        meaning="No customer has live subscriptions to two plans that don't go together.",
        reads=("several_subscriptions",),
    ),
    MismatchClass(
        code="captured_twice",
        sentence="nothing_is_captured_twice",
        severity="error",
        policy="P",
        meaning="No order and no period of a subscription was paid twice.",
        needs=("payments",),
        reads=("paid_steps", "repeated_payments"),
        statements=("find_captured_twice", "find_captured_twice_for_order"),
    ),
    MismatchClass(
        code="overlapping_periods",
        sentence="no_paid_periods_overlap",
        severity="warning",
        policy="H",
        meaning="Paid periods of one subscription follow each other.",
        reads=("paid_steps",),
    ),
    MismatchClass(
        code="amount_differs",
        sentence="every_captured_amount_is_the_price",
        severity="error",
        policy="P",
        meaning="What was captured is the price of the plan less discount and points.",
    ),
    MismatchClass(
        code="currency_differs",
        sentence="currencies_agree",
        severity="error",
        policy="H",
        meaning="Payment, subscription and plan are in one currency.",
        reads=(),
    ),
    MismatchClass(
        code="charged_after_cancel",
        sentence="nobody_is_charged_after_cancelling",
        severity="error",
        policy="P",
        meaning="Nothing was captured for a period that begins after its subscription was cancelled.",
    ),
    MismatchClass(
        code="refunded_but_active",
        sentence="no_refunded_subscription_is_live",
        severity="error",
        policy="P",
        meaning="No subscription runs on money that was given back.",
    ),
    MismatchClass(
        code="partly_refunded",
        sentence="no_partly_refunded_period_is_kept",
        severity="warning",
        policy="P",
        meaning="Whoever got a part of the money back does not keep the whole period.",
    ),
    MismatchClass(
        code="disputed_but_active",
        sentence="no_disputed_subscription_is_live",
        severity="error",
        policy="P",
        meaning="No subscription runs on money that the customer's bank takes back.",
    ),
    MismatchClass(
        code="period_gap",
        sentence="subscriptions_run_as_long_as_they_are_paid",
        severity="warning",
        policy="P",
        meaning="Subscriptions run as long as they are paid, and paid periods have no hole.",
        reads=("uncovered_subscriptions", "paid_steps"),
    ),
    MismatchClass(
        code="payment_without_order",
        sentence="every_payment_has_its_order",
        severity="error",
        policy="H",
        meaning="Every captured payment belongs to an order, a subscription or a plan.",
        needs=("payments",),
    ),
    MismatchClass(
        code="payment_without_customer",
        sentence="every_payment_for_a_plan_has_its_customer",
        severity="error",
        policy="H",
        meaning="Every captured payment for a plan belongs to a customer.",
        needs=("payments",),
        reads=(),
        statements=("create_unknown_customers", "find_payment_without_customer"),
    ),
    MismatchClass(
        code="pending_too_long",
        sentence="no_payment_is_pending_for_long",
        severity="warning",
        policy="A",
        meaning="Every payment is settled soon: captured or failed.",
        needs=("payments",),
    ),
    MismatchClass(
        code="status_unknown",
        sentence="every_status_is_known",
        severity="warning",
        policy="H",
        meaning="The source mapping knows every status of payments, subscriptions and orders.",
        needs=(),
        reads=(),
    ),
    MismatchClass(
        code="paid_order_without_points",
        sentence="every_paid_order_is_in_the_ledger",
        severity="error",
        policy="A",
        meaning="Every paid order that earns points is in the ledger.",
        needs=(),
        reads=("unawarded_orders",),
    ),
    MismatchClass(
        code="points_without_paid_order",
        sentence="no_unpaid_order_has_points",
        severity="error",
        policy="A",
        meaning="No order that is not paid, or not any more, has points in force.",
        needs=(),
        reads=("unpaid_orders",),
    ),
    MismatchClass(
        code="redeemed_value_differs",
        sentence="redeemed_points_equal_their_discount",
        severity="warning",
        policy="H",
        meaning="Points that were redeemed for an order are what the order gives for them.",
        needs=(),
        reads=("odd_orders",),
    ),
)
BY_CODE = {one.code: one for one in CLASSES}
WARNINGS = (NOT_CHECKED, *(one.code for one in CLASSES if one.severity == "warning"))
RELATIONS = ("payments", "subscriptions", "plans")


def is_mapped(mapping: SourceMapping) -> bool:
    """Whether there is anything to compare: payments or subscriptions."""
    return mapping.payments is not None or mapping.subscriptions is not None


class UnknownClassError(LoyaltyError):
    """There is no class of mismatches with this code."""

    def __init__(self, name: str) -> None:
        self.name = name
        known = ", ".join([*BY_CODE, CHECK_FAILED, NOT_CHECKED])
        super().__init__(f"There is no class {name!r} of mismatches; the classes are {known}.")


def require_class(name: str) -> str:
    """Return the code; raise `UnknownClassError` when there is no such class."""
    if name not in BY_CODE and name not in (CHECK_FAILED, NOT_CHECKED):
        raise UnknownClassError(name)
    return name


@dataclass(frozen=True, kw_only=True)
class MerchantComparison:
    """What a check has looked at and found at one merchant; `failure`: why it could not, or a class could not.

    `payments` and `subscriptions`: how many were looked at. `findings`: what is open, by class. `amounts_at_risk`: by
    currency, of each object the largest.
    """

    merchant_id: str
    is_full: bool
    payments: int = 0
    subscriptions: int = 0
    findings: Sequence[OpenFindings] = ()
    amounts_at_risk: Mapping[str, Decimal] = field(default_factory=dict)
    failure: str | None = None

    @property
    def open_findings(self) -> int:
        """How many findings are open."""
        return sum(one.findings for one in self.findings)

    def metadata(self) -> Mapping[str, int | float | str]:
        """Return what the run shows of the merchant, but for the classes."""
        return {
            "payments": self.payments,
            "subscriptions": self.subscriptions,
            "findings": self.open_findings,
            **{f"amount at risk {currency}": float(amount) for currency, amount in self.amounts_at_risk.items()},
            "compared": "everything" if self.is_full else "what changed",
        }


@dataclass(frozen=True, kw_only=True)
class UncomparedMerchant:
    """A merchant whose last full comparison is too long ago (None: never), or whose last one failed, and why."""

    merchant_id: str
    compared_at: datetime | None
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class SubscriptionSettings:
    """How a merchant's payments and subscriptions are compared and put right.

    `max_fixes`, `max_money`: what one run may do at most, money in the merchant's currency. `tolerance_percent`:
    amounts that differ by less are equal. `grace_minutes`: no class reports a row that is younger.
    """

    merchant_id: str
    is_report_only: bool = False
    max_fixes: int = 100
    max_money: Decimal = Decimal(1000)
    tolerance_percent: Decimal = Decimal(1)
    grace_minutes: int = 0
    changed_by: str | None = None
    changed_at: datetime | None = None
