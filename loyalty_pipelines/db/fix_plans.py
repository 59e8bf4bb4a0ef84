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
    COLUMNS,
    MAX_FAILURES,
    NOT_AGAIN_WITHIN,
    UPDATE,
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
OPEN_FINDINGS = load("fix_plans/open_findings")
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
    columns = mapping.subscriptions.columns if mapping.subscriptions else {}
    actions = mapping.fixes.actions if mapping.fixes else {}
    is_written = UPDATE in actions and actions[UPDATE].function is None
    return Means(
        actions=frozenset(actions),
        # A function of the shop is told everything.
        columns=frozenset(columns).intersection(COLUMNS) if is_written else frozenset(COLUMNS),
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
) -> tuple[int, Sequence[int], Sequence[PlanRefusal]]:
    """Plan what open findings need; return how many plans are new, which findings have one, and which none.

    A plan that waits, and that its finding would not give any more, is let go and made anew.
    """
    settle(conn, merchant_ids)
    means = means_of(mapping)
    fixes = [(target, fix_of(target, means, now)) for target in open_targets(conn, merchant_ids, finding_ids)]
    good = [(target, fix) for target, fix in fixes if isinstance(fix, Fix)]
    refusals = [fix for _, fix in fixes if isinstance(fix, PlanRefusal)]
    waits = plans(conn, merchant_ids=merchant_ids, finding_ids=finding_ids, statuses=("planned", "approved"))
    _let_go(conn, good, refusals, waits)
    added = 0
    for start in range(0, len(good), PAGE):
        rows = [_row(target, fix) for target, fix in good[start : start + PAGE]]
        values = {"plans": json.dumps(rows, default=str), "actor": actor, "run_id": run_id, "valid_for": VALID_FOR}
        added += len(conn.execute(INSERT, values).all())
    return added, [target.finding_id for target, _ in good], refusals


def plans_of(conn: Connection, finding_ids: Sequence[int]) -> Sequence[FixPlan]:
    """Return the plans that findings have now, the oldest first."""
    return list(reversed(plans(conn, finding_ids=finding_ids, statuses=LIVE)))


def _open_among(conn: Connection, finding_ids: Sequence[int]) -> set[int]:
    return set(conn.execute(OPEN_FINDINGS, {"finding_ids": sorted(set(finding_ids))}).scalars())


def open_targets(
    conn: Connection, merchant_ids: Sequence[str] | None, finding_ids: Sequence[int] | None = None
) -> Sequence[FixTarget]:
    """Return open findings with the columns of the subscriptions that they name."""
    return with_subscriptions(conn, _targets(conn, merchant_ids, finding_ids))


def held(conn: Connection, finding_ids: Sequence[int]) -> set[int]:
    """Return those of the findings that are automatic, but for an earlier fix: a person approves their next plan."""
    return {one.finding_id for one in _targets(conn, None, finding_ids) if one.is_held}


def _targets(
    conn: Connection, merchant_ids: Sequence[str] | None, finding_ids: Sequence[int] | None
) -> Sequence[FixTarget]:
    values = {
        "subject": SUBJECT,
        "merchant_ids": _array(merchant_ids),
        "finding_ids": _array(finding_ids),
        "not_again_within": NOT_AGAIN_WITHIN,
    }
    return [_target(row) for row in conn.execute(TARGETS, values).mappings()]


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


def _target(row: Mapping[Any, Any]) -> FixTarget:
    return FixTarget(**row, evidence=parse(row["evidence_text"]))


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


def _let_go(
    conn: Connection,
    good: Iterable[tuple[FixTarget, Fix]],
    refusals: Iterable[PlanRefusal],
    waits: Sequence[FixPlan],
) -> None:
    """Mark plans stale that their findings would not give any more."""
    refused = {one.finding_id: one.reason for one in refusals}
    by_finding = {target.finding_id: (target, fix) for target, fix in good}
    found: dict[int, str] = {}
    for one in waits:
        reason = None
        if one.finding_id in refused:
            reason = f"nothing can be planned any more: {refused[one.finding_id]}"
        elif one.finding_id in by_finding:
            target, fix = by_finding[one.finding_id]
            reason = misfit(one, target, fix)
            if reason is None and one.is_automatic and one.status == "planned" and target.plan_policy == "P":
                reason = "it needs approval by now"
        if reason:
            found[one.plan_id] = reason
    mark_stale(conn, found)


def misfit(plan: FixPlan, target: FixTarget, fix: Fix) -> str | None:
    """Return why a plan is not what its finding gives now; None when it is."""
    if plan.fix_key != target.fix_key:
        return "the finding is at another stage by now"
    changed = differs(plan, fix)
    return f"since it was planned, this changed: {changed}" if changed else None


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


def suspected_now(conn: Connection, chosen: Sequence[FixPlan], *, as_of: datetime) -> Mapping[int, FixTarget]:
    """Return what the classes say now of the plans' objects; nothing of those that are not suspected any more."""
    said = {_object_of(row): row for row in conn.execute(SUSPECTED_NOW, {"as_of": as_of}).mappings()}
    still_open = _open_among(conn, [one.finding_id for one in chosen])
    known = {
        one.plan_id: _target({**said[key], "finding_id": one.finding_id})
        for one in chosen
        if one.finding_id in still_open
        and (key := (one.merchant_id, one.class_name, one.object_type, one.object_id)) in said
    }
    return dict(zip(known, with_subscriptions(conn, list(known.values())), strict=True))


def _object_of(row: RowMapping) -> tuple[str, str, str, str]:
    return row["merchant_id"], row["class_name"], row["object_type"], row["object_id"]


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
    changes = [
        {"plan_id": plan.plan_id, "target_id": target_id, "after": after, "function": function, "row_before": row}
        for plan, target_id, after, function, row in done
    ]
    values = {
        "merchant_id": merchant_id,
        "changes": json.dumps(changes, default=str),
        "actor": actor,
        "run_id": run_id,
    }
    conn.execute(APPLIED, values)


def mark_undone(conn: Connection, plan_id: int, *, actor: str) -> None:
    """A plan whose fix was taken back."""
    conn.execute(UNDONE, {"plan_id": plan_id, "actor": actor})


def _array(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)
