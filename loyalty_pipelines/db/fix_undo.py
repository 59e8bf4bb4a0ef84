"""Takes back what a plan did, if nobody changed it since. Functions take a connection and never commit."""

import json
from collections.abc import Sequence

from sqlalchemy import Connection

from loyalty_pipelines.db import fix_plans, shop_fixes
from loyalty_pipelines.db.fix_batch import payload
from loyalty_pipelines.domain.fix_errors import ChangedSinceError, NotUndoableError
from loyalty_pipelines.domain.fix_plans import CREATE, REFUND, FixPlan
from loyalty_pipelines.domain.source_mapping import Fixes, SourceMapping


def undo(conn: Connection, mapping: SourceMapping, plan_id: int, *, actor: str) -> FixPlan:
    """Put the shop's row back as it was, byte for byte, or call the shop's function; return the plan as it is then."""
    plan = fix_plans.plan_of(conn, plan_id)
    fix_plans.lock_merchant(conn, plan.merchant_id)
    fix_plans.lock_number(conn, plan_id)
    plan = fix_plans.plan_of(conn, plan_id)
    if plan.status != "applied":
        raise NotUndoableError(plan_id, f"it is {plan.status}, and only what is applied can be")
    if plan.inverse is None:
        raise NotUndoableError(plan_id, f"nothing takes back {plan.action}")
    fixes = mapping.fixes or Fixes()
    is_locking = fixes.is_written("create_subscription", "update_subscription")
    _require_unchanged(conn, plan, is_locking=is_locking)
    if plan.function is not None:
        _call(conn, fixes, plan)
    else:
        _write(conn, fixes, plan)
    fix_plans.mark_undone(conn, plan_id, actor=actor)
    return fix_plans.plan_of(conn, plan_id)


def _require_unchanged(conn: Connection, plan: FixPlan, *, is_locking: bool) -> None:
    if plan.row_after is None or plan.target_id is None:
        return
    if plan.action == REFUND:
        now = shop_fixes.payment_row(conn, plan.merchant_id, plan.target_id)
        what = f"payment {plan.target_id}"
    else:
        read = shop_fixes.lock_subscription if is_locking else shop_fixes.subscription_row
        now = read(conn, plan.merchant_id, plan.target_id)
        what = f"subscription {plan.target_id}"
    if now != plan.row_after:
        raise ChangedSinceError(plan.plan_id, what, _differing(plan.row_after, now))


def _differing(left: str, right: str | None) -> Sequence[str]:
    """Return the columns that differ, with every digit; none where the row is gone."""
    if right is None:
        return ()
    was, found = (json.loads(one, parse_float=str, parse_int=str) for one in (left, right))
    return sorted(name for name in {**was, **found} if was.get(name) != found.get(name))


def _call(conn: Connection, fixes: Fixes, plan: FixPlan) -> None:
    action = fixes.actions.get(plan.action)
    if action is None or action.function is None:
        raise NotUndoableError(
            plan.plan_id,
            f"function {plan.function} did it, and the mapping's fixes.{plan.action} names no function any more",
        )
    shop_fixes.call_function(conn, action.function, payload(plan, plan.after, plan.before, is_undo=True))


def _write(conn: Connection, fixes: Fixes, plan: FixPlan) -> None:
    if not fixes.is_written(plan.action):
        raise NotUndoableError(
            plan.plan_id, f"the mapping does not let it be written any more: set fixes.{plan.action} to write"
        )
    if plan.target_id is None:
        raise NotUndoableError(plan.plan_id, "nobody knows what it changed")
    if plan.action == CREATE:
        if shop_fixes.is_subscription_paid(conn, plan.merchant_id, plan.target_id):
            raise NotUndoableError(
                plan.plan_id, f"payments name subscription {plan.target_id} by now: end it in the shop"
            )
        is_done = shop_fixes.remove_subscription(conn, plan.merchant_id, plan.target_id)
    elif plan.row_before is None:
        raise NotUndoableError(plan.plan_id, "what the row was before is not known")
    else:
        is_done = shop_fixes.restore_subscription(conn, plan.merchant_id, plan.target_id, plan.row_before)
    if not is_done:
        raise ChangedSinceError(plan.plan_id, f"subscription {plan.target_id}", ())
