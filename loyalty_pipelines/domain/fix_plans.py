"""What would put a finding right: the fix that its evidence gives, the plan that keeps it, what became of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from loyalty_pipelines.domain.money import amounts_by_currency, money_text

CREATE, UPDATE, REFUND = "create_subscription", "update_subscription", "refund_payment"
ASK, AWARD = "ask_payment", "award_order"
# Plans are made of what is known now: after this they are made anew.
VALID_FOR = timedelta(days=7)
# An object that was fixed for the same class within this time is not fixed automatically again.
NOT_AGAIN_WITHIN = timedelta(days=7)
MAX_FAILURES = 3
# Others can't write the shop's subscriptions while a batch of new ones is compared again and written: 0.1 s.
BATCH = 100
# In `after`, for what is not known before it is done.
AT_APPLYING = "time of applying"
COLUMNS = ("status", "current_period_start", "current_period_end", "cancelled_at")


@dataclass(frozen=True, kw_only=True)
class FixTarget:
    """A finding, or a suspicion of now, as far as a fix is computed from it.

    `subscription`: the columns of the subscription that an update would change, in the words of loyalty_source; None
    where the shop shows none. `is_repeated`: it was fixed for the same class lately, or a fix of it was undone.
    """

    finding_id: int
    merchant_id: str
    class_name: str
    object_type: str
    object_id: str
    policy: str | None
    amount_at_risk: Decimal
    currency: str | None
    evidence: Mapping[str, Any]
    evidence_text: str
    subscription: Mapping[str, Any] | None = None
    is_repeated: bool = False

    @property
    def fix_key(self) -> str:
        """Return what names the finding and what is done about it, once and for all."""
        stage = self.evidence.get("stage") if self.class_name == "pending_too_long" else None
        ends = () if stage is None else (str(stage),)
        return "/".join((self.class_name, self.object_type, self.object_id, str(self.finding_id), *ends))

    @property
    def plan_policy(self) -> str:
        """Return A or P; what came back is for a person to approve. Asking again changes nothing, so it may repeat."""
        return "A" if self.policy == "A" and not self.is_held else "P"

    @property
    def is_held(self) -> bool:
        """Return whether a person has to approve what would be automatic, had it not been fixed before."""
        return self.policy == "A" and self.is_repeated and self.class_name != "pending_too_long"


@dataclass(frozen=True, kw_only=True)
class Fix:
    """What is done about one finding; `inverse`: what undoing does, None where nothing can be undone."""

    action: str
    target_id: str | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    inverse: Mapping[str, Any] | None
    amount: Decimal
    currency: str | None
    explanation: str


@dataclass(frozen=True, kw_only=True)
class PlanRefusal:
    """A finding that no plan is made for, and why."""

    finding_id: int
    merchant_id: str
    class_name: str
    object_type: str
    object_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FixPlan:
    """A row of loyalty.fix_plans. `function`: the shop's function that did it; None: written through the view.

    `row_before`, `row_after`: the shop's own values as the text of a jsonb, which keeps every digit.
    """

    plan_id: int
    merchant_id: str
    fix_key: str
    finding_id: int
    class_name: str
    object_type: str
    object_id: str
    policy: str
    action: str
    target_id: str | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    inverse: Mapping[str, Any] | None
    evidence: Mapping[str, Any]
    amount: Decimal
    currency: str | None
    explanation: str
    status: str
    planned_by: str
    planned_at: datetime
    expires_at: datetime
    approved_by: str | None
    approved_at: datetime | None
    applied_by: str | None
    applied_at: datetime | None
    undone_by: str | None
    undone_at: datetime | None
    function: str | None
    row_before: str | None
    row_after: str | None
    failure: str | None
    failures: int
    run_id: str | None

    @property
    def is_automatic(self) -> bool:
        """Whether it needs nobody's approval."""
        return self.policy == "A"

    @property
    def touched(self) -> frozenset[tuple[str | None, ...]]:
        """Return what it changes or depends on: two plans that share some of it are not applied in one batch."""
        if self.action in (ASK, AWARD):
            return frozenset({(self.action, self.target_id)})
        found: set[tuple[str | None, ...]] = set()
        if self.action in (REFUND, UPDATE):
            found.add((self.action, self.target_id))
        if self.action in (CREATE, UPDATE) and "customer_id" in self.evidence:
            found.add(("customer", str(self.evidence["customer_id"]), str(self.evidence.get("plan_id"))))
        return frozenset(found)


@dataclass(frozen=True, kw_only=True)
class FixOutcome:
    """What became of a plan in one run: applied, stale, failed or skipped, and why."""

    plan: FixPlan
    outcome: str
    text: str


@dataclass(frozen=True, kw_only=True)
class MerchantFixes:
    """What a run did at one merchant, or would do.

    `planned`: plans that it made. `waiting`: plans that nobody has approved. `stopped_by`: None, "max_fixes",
    "max_money", "report_only", or "locked" where the shop's table was busy. `limit`: what it was stopped by.
    """

    merchant_id: str
    is_dry_run: bool
    planned: int = 0
    waiting: int = 0
    outcomes: Sequence[FixOutcome] = ()
    stopped_by: str | None = None
    limit: str | None = None
    failure: str | None = None
    counts: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Count once."""
        counts: dict[str, int] = {"applied": 0, "stale": 0, "failed": 0, "skipped": 0}
        for one in self.outcomes:
            counts[one.outcome] += 1
        object.__setattr__(self, "counts", counts)

    @property
    def applied(self) -> int:
        """How many were applied, or would be."""
        return self.counts["applied"]

    @property
    def stale(self) -> int:
        """How many no longer fit what the shop shows."""
        return self.counts["stale"]

    @property
    def failed(self) -> int:
        """How many the shop refused."""
        return self.counts["failed"]

    @property
    def skipped(self) -> int:
        """How many are left for later."""
        return self.counts["skipped"]

    @property
    def money(self) -> Mapping[str, Decimal]:
        """Return what the applied ones are about, by currency."""
        done = (one.plan for one in self.outcomes if one.outcome == "applied")
        return amounts_by_currency((plan.currency, plan.amount) for plan in done)

    @property
    def sentence(self) -> str:
        """Return what happened, for people."""
        if self.stopped_by == "report_only":
            return f"{self.merchant_id} is report only: nothing was planned, nothing was changed."
        verb = "would be applied" if self.is_dry_run else "applied"
        fixes = "1 fix" if self.applied == 1 else f"{self.applied:,} fixes"
        parts = [f"{fixes} {verb}" + (f" ({money_text(self.money)})" if self.money else "")]
        parts += [
            f"{number:,} {what}"
            for number, what in (
                (self.stale, "not fitting any more"),
                (self.failed, "failed"),
                (self.skipped, "left for later"),
                (self.waiting, "waiting for approval"),
            )
            if number
        ]
        return f"{self.merchant_id}: {', '.join(parts)}.{self._stop}"

    @property
    def _stop(self) -> str:
        if self.failure:
            return f" It could not go on: {self.failure}."
        if self.stopped_by == "locked":
            return " It stopped because others write the shop's subscriptions: the next run goes on."
        if self.stopped_by:
            return f" It stopped at {self.stopped_by} {self.limit}: the next run goes on, or raise the limit."
        return ""

    @property
    def metadata(self) -> Mapping[str, int | str]:
        """Return what Dagster shows of it."""
        return {
            "dry run": str(self.is_dry_run).lower(),
            "planned": self.planned,
            "applied": self.applied,
            "stale": self.stale,
            "failed": self.failed,
            "left for later": self.skipped,
            "waiting for approval": self.waiting,
            "money": money_text(self.money),
            "stopped by": self.stopped_by or "-",
            "summary": self.sentence,
        }


def parse(words: str) -> Any:
    """Return JSON whose numbers keep every digit."""
    return json.loads(words, parse_float=Decimal)


def instant(value: object) -> datetime | None:
    """Return the instant of a text that PostgreSQL wrote; None where there is none that Python can count with."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else None


def resolved(after: Mapping[str, Any], now: datetime) -> Mapping[str, Any]:
    """Return `after` with the instant of now where the plan says: time of applying."""
    return {name: _resolved(value, now) for name, value in after.items()}


def _resolved(value: object, now: datetime) -> object:
    if not isinstance(value, str) or not value.startswith(AT_APPLYING):
        return value
    seconds = value.removeprefix(AT_APPLYING).removeprefix(" + ").removesuffix(" seconds")
    return (now + timedelta(seconds=float(seconds or 0))).isoformat()


def differs(plan: FixPlan, fix: Fix) -> str | None:
    """Return what of a plan is no longer what its finding gives now; None when it is the same fix."""
    named = [
        ("what is done", plan.action, fix.action),
        ("the target", plan.target_id, fix.target_id),
        *((name, plan.before.get(name), fix.before.get(name)) for name in {**plan.before, **fix.before}),
        *((name, plan.after.get(name), fix.after.get(name)) for name in {**plan.after, **fix.after}),
        ("the amount", plan.amount, fix.amount),
        ("the currency", plan.currency, fix.currency),
    ]
    # The target of a new subscription is known after it is made.
    changed = dict.fromkeys(name for name, was, is_now in named if _plain(was) != _plain(is_now))
    return ", ".join(changed) or None


def _plain(value: object) -> object:
    if isinstance(value, (Decimal, int, float)) and not isinstance(value, bool):
        return Decimal(str(value)).normalize()
    return value
