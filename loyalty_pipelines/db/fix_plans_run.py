"""Plans, applies and undoes fixes: the loops over transactions. What is fixed is compared again at once."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import fix_plans, fix_undo, sources, subscription_settings, subscriptions, subscriptions_run
from loyalty_pipelines.db.drain import short_text
from loyalty_pipelines.db.engine import is_connection_loss, reading, with_retries
from loyalty_pipelines.db.fix_batch import Budget, FixRun, ShopIsBusyError, apply_batch
from loyalty_pipelines.domain.fix_errors import NoSuchPlanError
from loyalty_pipelines.domain.fix_plans import BATCH, FixOutcome, FixPlan, MerchantFixes, PlanRefusal

Number = TypeVar("Number", int, Decimal)


def plan_fixes(
    engine: Engine,
    merchants: Sequence[str] | None = None,
    *,
    actor: str,
    run_id: str | None = None,
    finding_ids: Sequence[int] | None = None,
) -> Sequence[FixPlan | PlanRefusal]:
    """Plan what open findings need; return the plan of each, or why there is none. Nothing of the shop is changed.

    Planning again keeps the plans that still fit, and makes the others anew.
    """

    def work() -> Sequence[FixPlan | PlanRefusal]:
        with engine.begin() as conn:
            mapping = sources.require_mapping(conn)
            now = subscriptions.now(conn)
            _, planned, refusals = fix_plans.plan(
                conn, mapping, merchants, now=now, actor=actor, run_id=run_id, finding_ids=finding_ids
            )
            return [*fix_plans.plans_of(conn, planned), *refusals]

    return with_retries(work)


def approve_plans(engine: Engine, plan_ids: Sequence[int], *, actor: str) -> Sequence[FixPlan]:
    """Approve plans, all or none of them; what failed is tried again."""

    def work() -> Sequence[FixPlan]:
        with engine.begin() as conn:
            return fix_plans.approve(conn, plan_ids, actor=actor)

    return with_retries(work)


def apply_fixes(
    engine: Engine,
    merchants: Sequence[str] | None = None,
    *,
    is_dry_run: bool,
    actor: str,
    run_id: str | None = None,
    max_fixes: int | None = None,
    max_money: Decimal | None = None,
    plan_ids: Sequence[int] | None = None,
) -> Iterator[MerchantFixes]:
    """Apply automatic plans, planning missing ones first, and those that a person approved; yield each merchant.

    Each fix is asked about again under lock before it is written. `is_dry_run` does the same and rolls it back; it
    calls no function of the shop. `max_fixes` and `max_money` only lower a merchant's limits. `plan_ids`: only
    these plans. A merchant that the database refuses stops no other: its `failure` says why. At the end what was
    fixed is compared.
    """
    with reading(engine) as conn:
        mapping = sources.require_mapping(conn)
        sources.require_columns(conn)
        names = _merchants(conn, merchants, plan_ids)
        settings = subscription_settings.get_all(conn, names)
    run = FixRun(mapping=mapping, actor=actor, run_id=run_id, is_dry_run=is_dry_run)
    changed: list[str] = []
    for name in names:
        if settings[name].is_report_only:
            yield MerchantFixes(merchant_id=name, is_dry_run=is_dry_run, stopped_by="report_only")
            continue
        budget = Budget(
            max_fixes=_lower(settings[name].max_fixes, max_fixes),
            max_money=_lower(settings[name].max_money, max_money),
        )
        work = _try_merchant if is_dry_run else _apply_merchant
        done = work(engine, run, name, budget, plan_ids)
        if done.applied and not is_dry_run:
            changed.append(name)
        yield done
    if changed:
        _check_again(engine, changed, run_id)


def undo_plan(engine: Engine, plan_id: int, *, actor: str) -> FixPlan:
    """Take back what a plan did, and compare again; raise what says why not."""

    def work() -> FixPlan:
        with engine.begin() as conn:
            return fix_undo.undo(conn, sources.require_mapping(conn), plan_id, actor=actor)

    undone = with_retries(work)
    _check_again(engine, [undone.merchant_id], None)
    return undone


def _lower(setting: Number, argument: Number | None) -> Number:
    return setting if argument is None else min(setting, argument)


def _merchants(conn: Connection, merchants: Sequence[str] | None, plan_ids: Sequence[int] | None) -> Sequence[str]:
    if plan_ids is None:
        return sorted(set(merchants)) if merchants is not None else fix_plans.merchants(conn)
    found = {one.plan_id: one for one in fix_plans.plans(conn, plan_ids=plan_ids)}
    for plan_id in plan_ids:
        if plan_id not in found:
            raise NoSuchPlanError(plan_id)
    return sorted({one.merchant_id for one in found.values() if merchants is None or one.merchant_id in merchants})


# --- one merchant -----------------------------------------------------------------------------------------


def _apply_merchant(
    engine: Engine, run: FixRun, merchant_id: str, budget: Budget, plan_ids: Sequence[int] | None
) -> MerchantFixes:
    """Apply a merchant's plans, a transaction for each batch."""
    outcomes: list[FixOutcome] = []
    planned, stopped_by, failure, queue = 0, None, None, []
    try:
        planned, queue = with_retries(lambda: _plan(engine, run, merchant_id, plan_ids))
        outcomes += _not_due(engine, merchant_id, plan_ids, queue)
        while queue and budget.stopped_by is None:
            chosen = queue[: _size(budget)]
            done, later = with_retries(lambda chosen=chosen: _apply(engine, run, merchant_id, chosen, budget))
            outcomes += done
            queue = [*queue[len(chosen) :], *later]
    except ShopIsBusyError:
        stopped_by = "locked"
    except DBAPIError as error:
        if is_connection_loss(error):
            raise
        failure = short_text(error)
    with reading(engine) as conn:
        outcomes += _left(conn, queue, outcomes)
        waiting = fix_plans.waiting(conn, merchant_id)
    return _merchant_fixes(run, merchant_id, budget, planned, waiting, outcomes, stopped_by, failure)


def _merchant_fixes(
    run: FixRun,
    merchant_id: str,
    budget: Budget,
    planned: int,
    waiting: int,
    outcomes: Sequence[FixOutcome],
    stopped_by: str | None,
    failure: str | None,
) -> MerchantFixes:
    return MerchantFixes(
        merchant_id=merchant_id,
        is_dry_run=run.is_dry_run,
        planned=planned,
        waiting=waiting,
        outcomes=tuple(outcomes),
        stopped_by=stopped_by or budget.stopped_by,
        limit=budget.limit,
        failure=failure,
    )


def _size(budget: Budget) -> int:
    """Return how many plans a batch has: one more than may be applied, so that it is seen that there are more."""
    return max(1, min(BATCH, budget.max_fixes - budget.fixes + 1))


def _plan(engine: Engine, run: FixRun, merchant_id: str, plan_ids: Sequence[int] | None) -> tuple[int, Sequence[int]]:
    with engine.begin() as conn:
        return _plan_in(conn, run, merchant_id, plan_ids)


def _plan_in(
    conn: Connection, run: FixRun, merchant_id: str, plan_ids: Sequence[int] | None
) -> tuple[int, Sequence[int]]:
    planned = 0
    if plan_ids is None:
        planned, _, _ = fix_plans.plan(
            conn, run.mapping, [merchant_id], now=subscriptions.now(conn), actor=run.actor, run_id=run.run_id
        )
    else:
        fix_plans.settle(conn, [merchant_id])
    return planned, fix_plans.due(conn, merchant_id, plan_ids)


def _apply(
    engine: Engine, run: FixRun, merchant_id: str, chosen: Sequence[int], budget: Budget
) -> tuple[Sequence[FixOutcome], Sequence[int]]:
    trial = _copy(budget)
    with engine.begin() as conn:
        found = apply_batch(conn, run, merchant_id, chosen, trial)
    # Counted when it is committed: a batch that is tried again counts once.
    budget.fixes, budget.money, budget.stopped_by = trial.fixes, trial.money, trial.stopped_by
    return found


def _copy(budget: Budget) -> Budget:
    return replace(budget, money=dict(budget.money))


def _not_due(
    engine: Engine, merchant_id: str, plan_ids: Sequence[int] | None, queue: Sequence[int]
) -> Sequence[FixOutcome]:
    """Say of plans that were named why they are not applied."""
    if plan_ids is None:
        return ()
    with reading(engine) as conn:
        return _not_due_in(conn, merchant_id, plan_ids, queue)


def _not_due_in(
    conn: Connection, merchant_id: str, plan_ids: Sequence[int], queue: Sequence[int]
) -> Sequence[FixOutcome]:
    named = fix_plans.plans(conn, merchant_ids=[merchant_id], plan_ids=[one for one in plan_ids if one not in queue])
    return [
        FixOutcome(
            plan=one,
            outcome="skipped",
            text="it waits for approval" if one.status == "planned" else f"it is {one.status}",
        )
        for one in reversed(named)
    ]


def _left(conn: Connection, queue: Sequence[int], outcomes: Sequence[FixOutcome]) -> Sequence[FixOutcome]:
    """Say of plans that nothing became of why: the run stopped before them."""
    known = {one.plan.plan_id for one in outcomes}
    numbers = [one for one in queue if one not in known]
    left = fix_plans.plans(conn, plan_ids=numbers) if numbers else ()
    return [FixOutcome(plan=one, outcome="skipped", text="the run stopped before it") for one in reversed(left)]


def _try_merchant(
    engine: Engine, run: FixRun, merchant_id: str, budget: Budget, plan_ids: Sequence[int] | None
) -> MerchantFixes:
    """Do all of it in one transaction that is rolled back; its batches see each other's plans, not their changes."""
    try:
        with engine.connect() as conn, conn.begin() as transaction:
            found = _try_in(conn, run, merchant_id, budget, plan_ids)
            transaction.rollback()
    except DBAPIError as error:
        if is_connection_loss(error):
            raise
        return _merchant_fixes(run, merchant_id, budget, 0, 0, (), None, short_text(error))
    return found


def _try_in(
    conn: Connection, run: FixRun, merchant_id: str, budget: Budget, plan_ids: Sequence[int] | None
) -> MerchantFixes:
    outcomes: list[FixOutcome] = []
    stopped_by: str | None = None
    planned, queue = _plan_in(conn, run, merchant_id, plan_ids)
    if plan_ids is not None:
        outcomes += _not_due_in(conn, merchant_id, plan_ids, queue)
    while queue and budget.stopped_by is None:
        chosen = queue[: _size(budget)]
        # The temporary tables go with the savepoint.
        with conn.begin_nested() as batch:
            try:
                done, later = apply_batch(conn, run, merchant_id, chosen, budget)
            except ShopIsBusyError:
                stopped_by, done, later = "locked", (), ()
            batch.rollback()
        if stopped_by:
            break
        outcomes += done
        queue = [*queue[len(chosen) :], *later]
    outcomes += _left(conn, queue, outcomes)
    waiting = fix_plans.waiting(conn, merchant_id)
    return _merchant_fixes(run, merchant_id, budget, planned, waiting, outcomes, stopped_by, None)


def _check_again(engine: Engine, merchants: Sequence[str], run_id: str | None) -> None:
    """Close what was fixed; what is noted in the inbox is compared by the next check, if this one fails."""
    with suppress(DBAPIError):
        for _ in subscriptions_run.check(engine, merchants, is_full=False, run_id=run_id):
            pass
