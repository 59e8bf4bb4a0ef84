"""A batch of fixes of one merchant, in its caller's transaction: locked, asked again, written, marked."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import fix_plans, shop_fixes, subscriptions
from loyalty_pipelines.db.drain import short_text
from loyalty_pipelines.db.engine import is_transient
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.fix_plans import (
    ASK,
    AWARD,
    CREATE,
    REFUND,
    UPDATE,
    FixOutcome,
    FixPlan,
    FixTarget,
    PlanRefusal,
    resolved,
)
from loyalty_pipelines.domain.fixes import Means, fix_of
from loyalty_pipelines.domain.source_mapping import Fixes, FunctionName, SourceMapping
from loyalty_pipelines.domain.subscriptions import BY_CODE

LOCK_TARGETS = load("fix_plans/lock_targets")
CREATE_MANY = load("fix_plans/create_many")
UPDATE_MANY = load("fix_plans/update_many")
AWARD_MANY = load("fix_plans/award_many")
PAYMENT_ROWS = load("fix_plans/payment_rows")
SUBSCRIPTION_ROWS = load("fix_plans/subscription_rows")
LOCK_NOT_AVAILABLE = "55P03"


class ShopIsBusyError(Exception):
    """Others write the shop's subscriptions: the batch is left for the next run."""


@dataclass(frozen=True, kw_only=True)
class FixRun:
    """What stays the same for all batches of a run."""

    mapping: SourceMapping
    actor: str
    run_id: str | None
    is_dry_run: bool

    @property
    def fixes(self) -> Fixes:
        """What the mapping allows."""
        return self.mapping.fixes or Fixes()

    def function(self, action: str) -> FunctionName | None:
        """Return the shop's function for an action; None where its row is written, or nothing is allowed."""
        found = self.fixes.actions.get(action)
        return found.function if found else None

    @property
    def is_locking_rows(self) -> bool:
        """Whether the shop lets its rows be locked."""
        return self.fixes.is_written(CREATE, UPDATE)


@dataclass(kw_only=True)
class Budget:
    """What a run may still do at one merchant; money of each currency apart. What fails counts, too."""

    max_fixes: int
    max_money: Decimal
    fixes: int = 0
    money: dict[str | None, Decimal] = field(default_factory=dict)
    stopped_by: str | None = None

    def take(self, plan: FixPlan) -> bool:
        """Count a plan; False, and stopped for good, where it would be too many or too much."""
        if self.stopped_by:
            return False
        spent = self.money.get(plan.currency, Decimal(0)) + plan.amount
        if self.fixes + 1 > self.max_fixes:
            self.stopped_by = "max_fixes"
        elif spent > self.max_money:
            self.stopped_by = "max_money"
        else:
            self.fixes += 1
            self.money[plan.currency] = spent
        return self.stopped_by is None

    @property
    def limit(self) -> str | None:
        """What it was stopped by, for people."""
        return {None: None, "max_fixes": f"{self.max_fixes:,}", "max_money": f"{self.max_money:f}"}[self.stopped_by]


@dataclass(kw_only=True)
class _Batch:
    """What happens in one transaction. `done`: target, what was set, function and row before, of each plan."""

    merchant_id: str
    now: datetime
    rows: Mapping[str, str | None] = field(default_factory=dict)
    done: list[tuple[FixPlan, str | None, Mapping[str, Any], str | None, str | None]] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)


def apply_batch(
    conn: Connection, run: FixRun, merchant_id: str, plan_ids: Sequence[int], budget: Budget
) -> tuple[Sequence[FixOutcome], Sequence[int]]:
    """Apply plans; return what became of each, and the numbers of those that have to wait for another batch.

    Raises `ShopIsBusyError` where the shop's table can't be locked in time.
    """
    chosen, later = _apart(fix_plans.lock(conn, merchant_id, plan_ids))
    if not chosen:
        return (), later
    batch = _Batch(merchant_id=merchant_id, now=subscriptions.now(conn))
    _lock_shop(conn, run, batch, chosen)
    unknown = _look_again(conn, run, batch, chosen)
    known = [one for one in chosen if one.class_name not in unknown]
    reasons = _misfits(conn, run, batch, known)
    fix_plans.mark_stale(conn, reasons)
    fresh = [one for one in known if one.plan_id not in reasons]
    taken = [one for one in fresh if budget.take(one)]
    _write(conn, run, batch, taken)
    fix_plans.mark_applied(conn, merchant_id, batch.done, actor=run.actor, run_id=run.run_id)
    for plan in taken:
        if plan.plan_id in batch.failed:
            fix_plans.mark_failed(conn, plan.plan_id, batch.failed[plan.plan_id], run_id=run.run_id)
    kept = {one.plan_id for one in taken}
    return list(_outcomes(chosen, reasons, batch.failed, unknown, kept)), later


def _outcomes(
    chosen: Sequence[FixPlan],
    reasons: Mapping[int, str],
    failed: Mapping[int, str],
    unknown: Mapping[str, str],
    kept: set[int],
) -> Iterator[FixOutcome]:
    for plan in chosen:
        if plan.plan_id in reasons:
            yield FixOutcome(plan=plan, outcome="stale", text=reasons[plan.plan_id])
        elif plan.plan_id in failed:
            yield FixOutcome(plan=plan, outcome="failed", text=failed[plan.plan_id])
        elif plan.plan_id in kept:
            yield FixOutcome(plan=plan, outcome="applied", text=plan.explanation)
        elif plan.class_name in unknown:
            yield FixOutcome(
                plan=plan, outcome="skipped", text=f"nobody knows whether it fits: {unknown[plan.class_name]}"
            )
        else:
            yield FixOutcome(plan=plan, outcome="skipped", text="beyond the limit of one run")


def _apart(plans: Sequence[FixPlan]) -> tuple[Sequence[FixPlan], Sequence[int]]:
    """Return plans that have nothing to do with each other, and the numbers of the others.

    What one of them changes may settle the next one: that one is asked about when this one is written.
    """
    touched: set[tuple[str | None, ...]] = set()
    chosen: list[FixPlan] = []
    later: list[int] = []
    for plan in plans:
        if touched.isdisjoint(plan.touched):
            chosen.append(plan)
            touched |= plan.touched
        else:
            later.append(plan.plan_id)
    return chosen, later


# --- asking again -----------------------------------------------------------------------------------------


def _lock_shop(conn: Connection, run: FixRun, batch: _Batch, plans: Sequence[FixPlan]) -> None:
    """Keep the shop from changing what the plans are about, until the transaction ends."""
    creations = [one for one in plans if one.action == CREATE] if run.fixes.is_written(CREATE) else []
    targets = [one.target_id for one in plans if one.action == UPDATE]
    try:
        if creations:
            orders = [str(one.evidence["order_id"]) for one in creations if "order_id" in one.evidence]
            shop_fixes.lock_orders(conn, batch.merchant_id, orders)
            shop_fixes.lock_subscriptions(conn)
        if targets:
            statement = LOCK_TARGETS if run.is_locking_rows else SUBSCRIPTION_ROWS
            with shop_fixes.waiting_a_moment(conn):
                batch.rows = _raw_rows(conn, statement, batch.merchant_id, targets)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE:
            raise ShopIsBusyError from error
        raise


def _raw_rows(
    conn: Connection, statement: Any, merchant_id: str, ids: Sequence[str | None]
) -> Mapping[str, str | None]:
    rows = conn.execute(statement, {"merchant_id": merchant_id, "target_ids": list(ids)})
    return {row.target_id: row.raw_row for row in rows}


def _look_again(conn: Connection, run: FixRun, batch: _Batch, plans: Sequence[FixPlan]) -> Mapping[str, str]:
    """Compare again what the plans are about; return the classes that could not be looked for, each with the reason."""
    subscriptions.prepare(conn, [batch.merchant_id])
    objects = {(one.merchant_id, f"{one.object_type}s", one.object_id) for one in plans}
    subscriptions.read_objects(conn, sorted(objects))
    empty = subscriptions.prepare_rows(conn, run.mapping, as_of=batch.now)
    missing = {
        code: f"the mapping has no {relation}"
        for relation, classes in subscriptions.missing_relations(run.mapping).items()
        for code in classes
    }
    unknown: dict[str, str] = {}
    for code in sorted({one.class_name for one in plans}):
        if code in missing:
            unknown[code] = missing[code]
            continue
        try:
            with conn.begin_nested():
                subscriptions.find(conn, BY_CODE[code], run.mapping, as_of=batch.now, empty=empty)
        except DBAPIError as error:
            if is_transient(error):
                raise
            unknown[code] = short_text(error)
    return unknown


def _misfits(conn: Connection, run: FixRun, batch: _Batch, plans: Sequence[FixPlan]) -> Mapping[int, str]:
    """Return the plans that don't fit what the shop shows now, each with the reason."""
    found = fix_plans.suspected_now(conn, plans, as_of=batch.now)
    means = fix_plans.means_of(run.mapping)
    reasons = {one.plan_id: _misfit(one, found.get(one.plan_id), means, batch.now) for one in plans}
    return {plan_id: reason for plan_id, reason in reasons.items() if reason}


def _misfit(plan: FixPlan, target: FixTarget | None, means: Means, now: datetime) -> str | None:
    if target is None:
        return "nothing is wrong with it any more"
    fix = fix_of(target, means, now)
    if isinstance(fix, PlanRefusal):
        return f"nothing can be done any more: {fix.reason}"
    if plan.status == "planned" and target.policy != "A":
        return "it needs approval by now"
    return fix_plans.misfit(plan, target, fix)


# --- writing ----------------------------------------------------------------------------------------------


def _write(conn: Connection, run: FixRun, batch: _Batch, plans: Sequence[FixPlan]) -> None:
    awards = [one for one in plans if one.action == AWARD]
    called = [one for one in plans if run.function(one.action)]
    creations = [one for one in plans if one.action == CREATE and not run.function(CREATE)]
    updates = [one for one in plans if one.action == UPDATE and not run.function(UPDATE)]
    _together(conn, batch, creations, lambda some: _create(conn, batch, some))
    _together(conn, batch, updates, lambda some: _change(conn, batch, some))
    if awards:
        conn.execute(AWARD_MANY, {"merchant_id": batch.merchant_id, "plan_ids": [one.plan_id for one in awards]})
        batch.done += [(one, one.target_id, one.after, None, None) for one in awards]
    if called:
        _call(conn, run, batch, called)


def _together(
    conn: Connection, batch: _Batch, plans: Sequence[FixPlan], write: Callable[[Sequence[FixPlan]], None]
) -> None:
    """Write all at once; where the shop refuses that, one by one, so that one bad row fails alone."""
    if not plans:
        return
    try:
        with conn.begin_nested():
            write(plans)
        return
    except DBAPIError as error:
        if is_transient(error):
            raise
        if len(plans) == 1:
            batch.failed[plans[0].plan_id] = short_text(error)
            return
    for one in plans:
        _together(conn, batch, [one], write)


def _create(conn: Connection, batch: _Batch, plans: Sequence[FixPlan]) -> None:
    sets = {one.plan_id: resolved(one.after, batch.now) for one in plans}
    # Where the shop lets the id be given: the same plan makes the same id, so that the key itself refuses a second one.
    changes = [
        {
            "plan_id": one.plan_id,
            "given": {
                **sets[one.plan_id],
                "subscription_id": str(uuid5(NAMESPACE_URL, f"{one.merchant_id}/{one.fix_key}")),
            },
        }
        for one in plans
    ]
    values = {"changes": _json(changes)}
    ids = {row.plan_id: row.target_id for row in conn.execute(CREATE_MANY, values)}
    batch.done += [(one, ids[one.plan_id], sets[one.plan_id], None, None) for one in plans]


def _change(conn: Connection, batch: _Batch, plans: Sequence[FixPlan]) -> None:
    sets = {one.plan_id: resolved(one.after, batch.now) for one in plans}
    changes = [{"plan_id": one.plan_id, "target_id": one.target_id, "given": sets[one.plan_id]} for one in plans]
    values = {"merchant_id": batch.merchant_id, "changes": _json(changes)}
    ids = {row.plan_id: row.target_id for row in conn.execute(UPDATE_MANY, values)}
    for one in plans:
        if ids.get(one.plan_id) is None:
            batch.failed[one.plan_id] = f"the shop has no subscription {one.target_id} any more"
        else:
            row = batch.rows.get(one.target_id or "")
            batch.done.append((one, one.target_id, sets[one.plan_id], None, row))


def _call(conn: Connection, run: FixRun, batch: _Batch, plans: Sequence[FixPlan]) -> None:
    """Call the shop's functions, one by one: what they do beside the database can't be taken back and done again."""
    payments = [one.target_id for one in plans if one.action == REFUND]
    rows = dict(batch.rows)
    if payments:
        rows |= _raw_rows(conn, PAYMENT_ROWS, batch.merchant_id, payments)
    for plan in plans:
        function = run.function(plan.action)
        if function is None:
            continue
        set_to = resolved(plan.after, batch.now)
        row = rows.get(plan.target_id or "") if plan.action in (REFUND, UPDATE) else None
        if run.is_dry_run:
            batch.done.append((plan, plan.target_id, set_to, str(function), row))
            continue
        try:
            with conn.begin_nested():
                answer = shop_fixes.call_function(conn, function, payload(plan, plan.before, set_to, is_undo=False))
        except DBAPIError as error:
            if is_transient(error):
                raise
            batch.failed[plan.plan_id] = short_text(error)
            continue
        target_id = plan.target_id
        if plan.action == CREATE:
            target_id = answer
        batch.done.append((plan, target_id, set_to, str(function), row))


def payload(plan: FixPlan, before: Mapping[str, Any], after: Mapping[str, Any], *, is_undo: bool) -> dict[str, Any]:
    """Return what a function of the shop is told about a fix."""
    evidence = plan.evidence
    target_key = {REFUND: "payment_id", ASK: "payment_id", UPDATE: "subscription_id", CREATE: "subscription_id"}
    named = {
        name: evidence.get(name) for name in ("payment_id", "subscription_id", "order_id", "customer_id", "plan_id")
    }
    if plan.action in target_key and plan.target_id:
        named[target_key[plan.action]] = plan.target_id
    return {
        "key": plan.fix_key,
        "action": plan.action,
        "is_undo": is_undo,
        "merchant_id": plan.merchant_id,
        "target_id": plan.target_id,
        **named,
        "before": before,
        "after": after,
        "amount": plan.amount,
        "currency": plan.currency,
    }


def _json(value: object) -> str:
    return json.dumps(value, default=str)
