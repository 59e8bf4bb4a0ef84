"""From the evidence of a finding to its fix, class by class. Pure: what the shop allows is a parameter."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from loyalty_pipelines.domain.fix_plans import (
    ASK,
    AT_APPLYING,
    AWARD,
    CREATE,
    REFUND,
    UPDATE,
    Fix,
    FixTarget,
    PlanRefusal,
    instant,
)
from loyalty_pipelines.domain.money import amount_text

# What an update says besides, where the shop has a column for it.
OPTIONAL = ("cancelled_at", "current_period_start")
HUMAN = "it has no one right answer: docs/runbooks/subscriptions.md says what a person looks at"


@dataclass(frozen=True, kw_only=True)
class Means:
    """What the shop's mapping gives to fix with.

    `actions`: those that it allows. `statuses`: our words for statuses that it has words for. `columns`: the columns of
    subscriptions that an update can set.
    """

    actions: Collection[str]
    statuses: Collection[str]
    columns: Collection[str]


class _RefusedError(Exception):
    """No fix; the text says why."""


def fix_of(target: FixTarget, means: Means, now: datetime) -> Fix | PlanRefusal:
    """Return the fix of a finding as of `now`, or why there is none."""
    try:
        if target.policy not in ("A", "P") or target.class_name not in FIXES:
            raise _RefusedError(HUMAN)
        return FIXES[target.class_name](target, means, now)
    except _RefusedError as refused:
        return PlanRefusal(
            finding_id=target.finding_id,
            merchant_id=target.merchant_id,
            class_name=target.class_name,
            object_type=target.object_type,
            object_id=target.object_id,
            reason=str(refused),
        )


def missing_actions(means: Means) -> Mapping[str, str]:
    """Return the classes that no plan can be made for as things are, with the action that the mapping lacks."""
    lacking = {name: action for name, action in ACTIONS.items() if action not in means.actions}
    if UPDATE in means.actions:
        # Those whose subscription is there, and incomplete, can be put right all the same.
        lacking.pop("paid_without_subscription", None)
    return lacking


def _require(means: Means, action: str, otherwise: str) -> None:
    if action not in means.actions:
        raise _RefusedError(f"the mapping has no fixes.{action}: set it, or {otherwise}")


def _text(target: FixTarget, name: str) -> str:
    value = target.evidence.get(name)
    if value is None:
        raise _RefusedError(f"nobody knows its {name}, without which nothing can be done")
    return str(value)


def _amount(target: FixTarget, name: str) -> Decimal:
    return Decimal(str(target.evidence.get(name, 0)))


def _instant(target: FixTarget, name: str) -> datetime:
    found = instant(target.evidence.get(name))
    if found is None:
        raise _RefusedError(f"its {name} is {target.evidence.get(name)}: no instant that can be counted with")
    return found


def _paid_without_subscription(target: FixTarget, means: Means, now: datetime) -> Fix:
    start, end = _instant(target, "period_start"), target.evidence.get("period_end")
    ends = None if end is None else _instant(target, "period_end")
    period: dict[str, Any] = {"current_period_start": target.evidence["period_start"], "current_period_end": end}
    if ends is not None and ends <= now:
        if "order_id" not in target.evidence:
            raise _RefusedError(
                "the period that it paid for is over, and it names no order by which a new subscription would be known "
                "as its own: make one in the shop, or refund it"
            )
        lasts = (ends - start).total_seconds()
        period = {"current_period_start": AT_APPLYING, "current_period_end": f"{AT_APPLYING} + {lasts:.6f} seconds"}
    period = {name: value for name, value in period.items() if value is not None}
    paid = f"payment {target.object_id} paid {amount_text(_amount(target, 'amount'), target.currency)}"
    when = "from the time of applying" if AT_APPLYING in period.values() else f"from {start:%Y-%m-%d %H:%M} UTC"
    if target.evidence.get("subscription_status") == "incomplete":
        return _update(target, means, {"status": "active", **period}, f"{paid}: it becomes active, {when}")
    _require(means, CREATE, "make the subscription in the shop: the finding closes when the shop shows it")
    after = {
        "merchant_id": target.merchant_id,
        "customer_id": _text(target, "customer_id"),
        "plan_id": _text(target, "plan_id"),
        "order_id": target.evidence.get("order_id"),
        "status": "active",
        "amount": _number(target.evidence.get("plan_amount")),
        "currency": target.currency,
        **period,
        "is_complimentary": False,
    }
    _require_word(after, means)
    return Fix(
        action=CREATE,
        target_id=None,
        before={},
        after={name: value for name, value in after.items() if value is not None},
        inverse={"action": "remove_subscription"},
        amount=target.amount_at_risk,
        currency=target.currency,
        explanation=f"A subscription to {after['plan_id']} is made for customer {after['customer_id']}, {when}: {paid} "
        "and there is none.",
    )


def _require_word(after: Mapping[str, Any], means: Means) -> None:
    word = after.get("status")
    if word is not None and word not in means.statuses:
        raise _RefusedError(f"the shop has no word for the status {word}: list one in subscriptions.status.{word}")


def _number(value: object) -> str | None:
    return None if value is None else f"{Decimal(str(value)):f}"


def _update(target: FixTarget, means: Means, after: Mapping[str, Any], why: str) -> Fix:
    _require(means, UPDATE, "change the subscription in the shop: the finding closes when the shop shows it")
    subscription_id = _text(target, "subscription_id")
    if target.subscription is None:
        raise _RefusedError(f"the shop shows no subscription {subscription_id} any more")
    _require_word(after, means)
    missing = [name for name in after if name not in means.columns and name not in OPTIONAL]
    if missing:
        raise _RefusedError(f"the mapping has no subscriptions.columns.{missing[0]}, which would have to be changed")
    after = {name: value for name, value in after.items() if name in means.columns}
    before = {name: target.subscription.get(name) for name in after}
    return Fix(
        action=UPDATE,
        target_id=subscription_id,
        before=before,
        after=after,
        inverse={"action": UPDATE, "after": before},
        amount=target.amount_at_risk,
        currency=target.currency,
        explanation=f"Subscription {subscription_id}: {why}.",
    )


def _cancel(why: str) -> Callable[[FixTarget, Means, datetime], Fix]:
    def fix(target: FixTarget, means: Means, _now: datetime) -> Fix:
        return _update(target, means, {"status": "cancelled", "cancelled_at": AT_APPLYING}, f"it is cancelled, {why}")

    return fix


def _disputed(target: FixTarget, means: Means, now: datetime) -> Fix:
    why = f"because payment {_text(target, 'payment_id')} is disputed"
    if "paused" in means.statuses:
        return _update(target, means, {"status": "paused"}, f"it is paused, {why}")
    return _cancel(why)(target, means, now)


def _partly_refunded(target: FixTarget, means: Means, now: datetime) -> Fix:
    start, end = _instant(target, "period_start"), _instant(target, "period_end")
    amount = _amount(target, "amount")
    if amount <= 0 or end <= start:
        raise _RefusedError("its amount or period is not one that can be divided")
    kept = (amount - _amount(target, "refunded_amount")) / amount
    microseconds = int(Decimal((end - start) // timedelta(microseconds=1)) * kept)
    ends = start + timedelta(microseconds=microseconds)
    after: dict[str, Any] = {"current_period_end": ends.isoformat()}
    why = f"it ends {ends:%Y-%m-%d %H:%M} UTC, because {kept:.0%} of payment {target.object_id} were kept"
    if ends <= now:
        after |= {"status": "cancelled", "cancelled_at": AT_APPLYING}
        why += "; that is over, so it is cancelled"
    return _update(target, means, after, why)


def _period_gap(target: FixTarget, means: Means, _now: datetime) -> Fix:
    if target.object_type != "subscription":
        raise _RefusedError(HUMAN)
    until = _instant(target, "paid_until")
    after: dict[str, Any] = {"current_period_end": target.evidence["paid_until"]}
    why = f"it runs until {until:%Y-%m-%d %H:%M} UTC, because it is paid until then"
    if target.evidence.get("subscription_status") == "expired":
        after["status"] = "active"
        why += ", and is active again"
    return _update(target, means, after, why)


def _refund(target: FixTarget, means: Means, _now: datetime) -> Fix:
    refunded = _amount(target, "refunded_amount")
    amount = _amount(target, "amount") - refunded
    if target.class_name == "amount_differs":
        amount -= _amount(target, "expected_amount")
    if amount <= 0:
        raise _RefusedError("less was captured than was due: whether to ask for the rest is for a person to decide")
    _require(means, REFUND, "refund it at the payment provider: the finding closes when the shop shows the refund")
    before = {"refunded_amount": f"{refunded:f}"}
    after = {"refunded_amount": f"{refunded + amount:f}"}
    return Fix(
        action=REFUND,
        target_id=target.object_id,
        before=before,
        after=after,
        inverse={"action": REFUND, "after": before},
        amount=amount,
        currency=target.currency,
        explanation=f"Payment {target.object_id}: {amount_text(amount, target.currency)} are refunded, "
        f"{REFUND_REASONS[target.class_name]}.",
    )


def _ask(target: FixTarget, means: Means, _now: datetime) -> Fix:
    _require(means, ASK, "ask the payment provider: the finding closes when the shop shows what became of it")
    stage = target.evidence.get("stage")
    return Fix(
        action=ASK,
        target_id=target.object_id,
        before={"status": target.evidence.get("status")},
        after={"stage": stage},
        inverse=None,
        amount=Decimal(0),
        currency=target.currency,
        explanation=f"Payment {target.object_id}: the shop asks its provider what became of it (stage {stage}).",
    )


def _award(target: FixTarget, _means: Means, _now: datetime) -> Fix:
    return Fix(
        action=AWARD,
        target_id=target.object_id,
        before={"points": _number(target.evidence.get("points"))},
        after={"order_id": target.object_id},
        inverse=None,
        amount=target.amount_at_risk,
        currency=target.currency,
        explanation=f"Order {target.object_id} goes to the award engine, which gives or takes back its points.",
    )


REFUND_REASONS = {
    "captured_twice": "because it was captured twice",
    "charged_after_cancel": "because it was captured after the subscription was cancelled",
    "amount_differs": "because more was captured than was due",
}
# What the mapping has to allow for any fix of the class; the points are the product's own.
ACTIONS: Mapping[str, str] = {
    "paid_without_subscription": CREATE,
    "subscription_without_payment": UPDATE,
    "duplicate_same_plan": UPDATE,
    "refunded_but_active": UPDATE,
    "disputed_but_active": UPDATE,
    "partly_refunded": UPDATE,
    "period_gap": UPDATE,
    "captured_twice": REFUND,
    "charged_after_cancel": REFUND,
    "amount_differs": REFUND,
    "pending_too_long": ASK,
}
FIXES: Mapping[str, Callable[[FixTarget, Means, datetime], Fix]] = {
    "paid_without_subscription": _paid_without_subscription,
    "subscription_without_payment": _cancel("because nobody paid for the period that runs"),
    "duplicate_same_plan": _cancel("because the customer has the plan twice and this one is unpaid"),
    "refunded_but_active": _cancel("because what was paid for it was given back"),
    "disputed_but_active": _disputed,
    "partly_refunded": _partly_refunded,
    "period_gap": _period_gap,
    "captured_twice": _refund,
    "charged_after_cancel": _refund,
    "amount_differs": _refund,
    "pending_too_long": _ask,
    "paid_order_without_points": _award,
    "points_without_paid_order": _award,
}
