"""Fix plans: made of open findings, approved, locked, asked again, marked. Nothing here commits."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.fix_errors import NoSuchPlanError, NotApprovableError
from loyalty_pipelines.domain.fix_plans import (
    MAX_FAILURES,
    NOT_AGAIN_WITHIN,
    VALID_FOR,
    Fix,
    FixPlan,
    FixTarget,
    PlanRefusal,
    differs,
    parse,
)
from loyalty_pipelines.domain.fixes import Means, fix_of
from loyalty_pipelines.domain.source_mapping import SourceMapping
from loyalty_pipelines.domain.subscriptions import SUBJECT

TARGETS = load("fix_plans/targets")
SUSPECTED_NOW = load("fix_plans/suspected_now")
SUBSCRIPTIONS_NOW = load("fix_plans/subscriptions_now")
INSERT = load("fix_plans/insert")
PLANS = load("fix_plans/plans")
SETTLE = load("fix_plans/settle")
STALE = load("fix_plans/stale")
FAILED = load("fix_plans/failed")
DUE = load("fix_plans/due")
WAITING = load("fix_plans/waiting")
MERCHANTS = load("fix_plans/merchants")
LOCK_MERCHANT = load("fix_plans/lock_merchant")
LOCK = load("fix_plans/lock")
LOCK_NUMBERS = load("fix_plans/lock_numbers")
APPROVE = load("fix_plans/approve")
APPLIED = load("fix_plans/applied")
UNDONE = load("fix_plans/undone")
NO_LIMIT = 2**62
PAGE = 1000
LIVE = ("planned", "approved", "applied", "failed")
JSON_COLUMNS = ("before", "after", "inverse", "evidence")


def means_of(mapping: SourceMapping) -> Means:
    """Return what the mapping gives to fix with."""
    statuses = mapping.subscriptions.status if mapping.subscriptions else {}
    return Means(
        actions=frozenset(mapping.fixes.actions if mapping.fixes else ()),
        statuses=frozenset(ours for ours, theirs in statuses.items() if theirs),
    )


def merchants(conn: Connection) -> Sequence[str]:
    """Return the merchants that something may be fixed for."""
    return list(conn.execute(MERCHANTS, {"subject": SUBJECT}).scalars())


# --- planning ---------------------------------------------------------------------------------------------


def settle(conn: Connection, merchant_ids: Sequence[str] | None) -> None:
    """Let go of plans that are too old, or whose finding is closed or accepted."""
    conn.execute(SETTLE, {"merchant_ids": _array(merchant_ids)})


def plan(
    conn: Connection,
    mapping: SourceMapping,
    merchant_ids: Sequence[str] | None,
    *,
    now: datetime,
    actor: str,
    run_id: str | None,
    finding_ids: Sequence[int] | None = None,
) -> tuple[int, Sequence[FixPlan | PlanRefusal]]:
    """Plan what open findings need; return how many plans are new, and the plan or the refusal of each finding.

    A plan that waits, and that the finding would not give any more, is let go and made anew.
    """
    settle(conn, merchant_ids)
    targets = open_targets(conn, merchant_ids, finding_ids)
    means = means_of(mapping)
    fixes = [(target, fix_of(target, means, now)) for target in targets]
    good = [(target, fix) for target, fix in fixes if isinstance(fix, Fix)]
    refusals = [fix for _, fix in fixes if isinstance(fix, PlanRefusal)]
    numbers = [target.finding_id for target, _ in good]
    _let_go(conn, good, plans(conn, finding_ids=numbers, statuses=("planned", "approved")))
    _let_go_refused(conn, refusals)
    added = 0
    for start in range(0, len(good), PAGE):
        rows = [_row(target, fix) for target, fix in good[start : start + PAGE]]
        values = {"plans": json.dumps(rows, default=str), "actor": actor, "run_id": run_id, "valid_for": VALID_FOR}
        added += len(conn.execute(INSERT, values).all())
    kept = plans(conn, finding_ids=numbers, statuses=LIVE)
    keys = {target.fix_key for target, _ in good}
    return added, [*(one for one in reversed(kept) if one.fix_key in keys), *refusals]


def open_targets(
    conn: Connection, merchant_ids: Sequence[str] | None, finding_ids: Sequence[int] | None = None
) -> Sequence[FixTarget]:
    """Return open findings with the columns of the subscriptions that they name."""
    values = {
        "subject": SUBJECT,
        "merchant_ids": _array(merchant_ids),
        "finding_ids": _array(finding_ids),
        "not_again_within": NOT_AGAIN_WITHIN,
    }
    return with_subscriptions(conn, [_target(row) for row in conn.execute(TARGETS, values).mappings()])


def with_subscriptions(conn: Connection, targets: Sequence[FixTarget]) -> Sequence[FixTarget]:
    """Return the targets with the columns of their subscriptions as they are now."""
    named = {(one.merchant_id, _subscription_of(one)) for one in targets if _subscription_of(one)}
    known: dict[tuple[str, str], Any] = {}
    keys = sorted(named)
    for start in range(0, len(keys), PAGE):
        part = keys[start : start + PAGE]
        values = {"merchant_ids": [one for one, _ in part], "subscription_ids": [one for _, one in part]}
        for row in conn.execute(SUBSCRIPTIONS_NOW, values):
            known[(row.merchant_id, row.subscription_id)] = parse(row.columns_text)
    return [replace(one, subscription=known.get((one.merchant_id, _subscription_of(one)))) for one in targets]


def _subscription_of(target: FixTarget) -> str:
    return str(target.evidence.get("subscription_id") or "")


def _target(row: RowMapping) -> FixTarget:
    named = {name: row[name] for name in row if name != "plan_id"}
    return FixTarget(**named, evidence=parse(row["evidence_text"]))


def _row(target: FixTarget, fix: Fix) -> Mapping[str, Any]:
    return {
        "merchant_id": target.merchant_id,
        "fix_key": target.fix_key,
        "finding_id": target.finding_id,
        "class": target.class_name,
        "object_type": target.object_type,
        "object_id": target.object_id,
        "policy": target.plan_policy,
        "action": fix.action,
        "target_id": fix.target_id,
        "before": fix.before,
        "after": fix.after,
        "inverse": fix.inverse,
        "evidence": target.evidence_text,
        "amount": fix.amount,
        "currency": fix.currency,
        "explanation": fix.explanation,
    }


def _let_go(conn: Connection, good: Iterable[tuple[FixTarget, Fix]], waiting: Sequence[FixPlan]) -> None:
    """Mark plans stale that their findings would not give any more."""
    by_key = {(one.merchant_id, one.fix_key): one for one in waiting}
    found: dict[int, str] = {}
    by_finding: dict[int, str] = {}
    for target, fix in good:
        by_finding[target.finding_id] = target.fix_key
        one = by_key.get((target.merchant_id, target.fix_key))
        if one is None:
            continue
        changed = differs(one, fix)
        if changed:
            found[one.plan_id] = f"since it was planned, this changed: {changed}"
        elif one.is_automatic and one.status == "planned" and target.plan_policy == "P":
            found[one.plan_id] = "it needs approval by now"
    for one in waiting:
        # A later stage of the same finding asks instead.
        if one.fix_key != by_finding.get(one.finding_id):
            found[one.plan_id] = "the finding is at another stage by now"
    mark_stale(conn, found)


def _let_go_refused(conn: Connection, refusals: Sequence[PlanRefusal]) -> None:
    reasons = {one.finding_id: one.reason for one in refusals}
    waiting = plans(conn, finding_ids=list(reasons), statuses=("planned", "approved"))
    mark_stale(conn, {one.plan_id: f"nothing can be planned any more: {reasons[one.finding_id]}" for one in waiting})


# --- plans ------------------------------------------------------------------------------------------------


def plans(
    conn: Connection,
    *,
    merchant_ids: Sequence[str] | None = None,
    plan_ids: Sequence[int] | None = None,
    finding_ids: Sequence[int] | None = None,
    statuses: Sequence[str] | None = None,
    object_type: str | None = None,
    object_id: str | None = None,
    limit: int = NO_LIMIT,
) -> Sequence[FixPlan]:
    """Return plans, the newest first."""
    values = {
        "merchant_ids": _array(merchant_ids),
        "plan_ids": _array(plan_ids),
        "finding_ids": _array(finding_ids),
        "statuses": _array(statuses),
        "object_type": object_type,
        "object_id": object_id,
        "row_limit": limit,
    }
    return [_plan(row) for row in conn.execute(PLANS, values).mappings()]


def plan_of(conn: Connection, plan_id: int) -> FixPlan:
    """Return a plan; raise `NoSuchPlanError` when there is none."""
    found = plans(conn, plan_ids=[plan_id])
    if not found:
        raise NoSuchPlanError(plan_id)
    return found[0]


def _plan(row: RowMapping) -> FixPlan:
    named: dict[str, Any] = dict(row)
    for name in JSON_COLUMNS:
        named[name] = None if named[name] is None else parse(named[name])
    return FixPlan(**named)


def approve(conn: Connection, plan_ids: Sequence[int], *, actor: str) -> Sequence[FixPlan]:
    """Approve plans, all or none; raise `NoSuchPlanError`, and `NotApprovableError` with what is wrong of each."""
    settle(conn, None)
    conn.execute(LOCK_NUMBERS, {"plan_ids": list(plan_ids)})
    found = {one.plan_id: one for one in plans(conn, plan_ids=plan_ids)}
    for plan_id in plan_ids:
        if plan_id not in found:
            raise NoSuchPlanError(plan_id)
    reasons = {
        one.plan_id: f"is {one.status}" + (f" ({one.failure})" if one.failure else "")
        for one in found.values()
        if one.status not in ("planned", "approved", "failed")
    }
    if reasons:
        raise NotApprovableError(reasons)
    conn.execute(APPROVE, {"plan_ids": list(plan_ids), "actor": actor})
    return list(reversed(plans(conn, plan_ids=plan_ids)))


def due(conn: Connection, merchant_id: str, plan_ids: Sequence[int] | None = None) -> Sequence[int]:
    """Return the numbers of plans that may be applied now."""
    return list(conn.execute(DUE, {"merchant_id": merchant_id, "plan_ids": _array(plan_ids)}).scalars())


def waiting(conn: Connection, merchant_id: str) -> int:
    """Return how many plans wait for approval."""
    return conn.execute(WAITING, {"merchant_id": merchant_id}).scalar_one()


def lock(conn: Connection, merchant_id: str, plan_ids: Sequence[int]) -> Sequence[FixPlan]:
    """Wait for other fixes of the merchant, lock those of the plans that may still be applied, and return them."""
    lock_merchant(conn, merchant_id)
    numbers = list(conn.execute(LOCK, {"merchant_id": merchant_id, "plan_ids": list(plan_ids)}).scalars())
    return list(reversed(plans(conn, merchant_ids=[merchant_id], plan_ids=numbers)))


def lock_merchant(conn: Connection, merchant_id: str) -> None:
    """Wait until no other fix of the merchant is at work, and keep others waiting until the transaction ends."""
    conn.execute(LOCK_MERCHANT, {"merchant_id": merchant_id})


def lock_number(conn: Connection, plan_id: int) -> None:
    """Lock one plan, whatever its status."""
    conn.execute(LOCK_NUMBERS, {"plan_ids": [plan_id]})


def suspected_now(
    conn: Connection, merchant_id: str, plan_ids: Sequence[int], *, as_of: datetime
) -> Mapping[int, FixTarget]:
    """Return what the classes say now of the plans' objects; nothing of those that are not suspected any more."""
    values = {"merchant_id": merchant_id, "plan_ids": list(plan_ids), "as_of": as_of}
    rows = conn.execute(SUSPECTED_NOW, values).mappings().all()
    found = with_subscriptions(conn, [_target(row) for row in rows])
    return {row["plan_id"]: one for row, one in zip(rows, found, strict=True)}


# --- what became of them ----------------------------------------------------------------------------------


def mark_stale(conn: Connection, reasons: Mapping[int, str]) -> None:
    """Plans that no longer fit, each with its reason."""
    if reasons:
        conn.execute(STALE, {"plan_ids": list(reasons), "reasons": list(reasons.values())})


def mark_failed(conn: Connection, plan_id: int, failure: str, *, run_id: str | None) -> None:
    """A plan that the shop refused; after some times it is not tried again by itself."""
    conn.execute(FAILED, {"plan_id": plan_id, "failure": failure, "max_failures": MAX_FAILURES, "run_id": run_id})


def mark_applied(
    conn: Connection,
    merchant_id: str,
    done: Sequence[tuple[FixPlan, str | None, Mapping[str, Any], str | None, str | None]],
    *,
    actor: str,
    run_id: str | None,
) -> None:
    """Plans that were applied: target, what was set, the shop's function, and the row before, of each."""
    if not done:
        return
    values = {
        "merchant_id": merchant_id,
        "plan_ids": [one[0].plan_id for one in done],
        "target_ids": [one[1] for one in done],
        "afters": [json.dumps(one[2], default=str) for one in done],
        "functions": [one[3] for one in done],
        "rows_before": [one[4] for one in done],
        "actor": actor,
        "run_id": run_id,
    }
    conn.execute(APPLIED, values)


def mark_undone(conn: Connection, plan_id: int, *, actor: str) -> None:
    """A plan whose fix was taken back."""
    conn.execute(UNDONE, {"plan_id": plan_id, "actor": actor})


def _array(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)
