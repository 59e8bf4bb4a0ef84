"""The nightly proof: all merchants in one transaction, and one by one where that is refused."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import findings, integrity, integrity_repairs, merchant_jobs
from loyalty_pipelines.db.drain import short_text
from loyalty_pipelines.db.engine import is_connection_loss, reading, with_retries
from loyalty_pipelines.db.proof_run import alone, by_merchant, groups
from loyalty_pipelines.domain.integrity import CHECK_FAILED, JOB, SUBJECT, MerchantProof
from loyalty_pipelines.domain.integrity_repairs import Repair, RepairPlan
from loyalty_pipelines.domain.money import amounts_by_currency


def prove(
    engine: Engine, merchants: Sequence[str] | None = None, *, is_full: bool, run_id: str | None = None
) -> Iterator[MerchantProof]:
    """Prove these merchants, or everybody in the ledger, and yield each.

    `is_full` compares everything; without it, what was written since the last proof, and everything where there was
    none. All are proved from one snapshot in one transaction. If PostgreSQL refuses that, and one row is enough, each
    merchant gets a transaction of its own, and the one at fault becomes a finding and is yielded with its `failure`.
    One proof at a time: a second one waits. A lost database is raised, and is transient.
    """
    with alone(engine, lock=integrity.lock, unlock=integrity.unlock):
        with reading(engine) as conn:
            known = integrity.merchants(conn, merchants)
        for group, is_group_full in groups(known, is_full=is_full):
            # Everybody: no list to compare each entry with.
            scope = None if merchants is None and len(group) == len(known) else group
            yield from _prove_group(engine, group, scope, is_full=is_group_full, run_id=run_id)
        # Nothing to compare is right, too: the shop has just listed them.
        without_accounts = sorted(set(merchants or ()) - set(known))
        with engine.begin() as conn:
            merchant_jobs.record_successes(conn, without_accounts, job=JOB, run_id=run_id)
        yield from (MerchantProof(merchant_id=one, is_full=True) for one in without_accounts)


def _prove_group(
    engine: Engine, group: Sequence[str], scope: Sequence[str] | None, *, is_full: bool, run_id: str | None
) -> Iterator[MerchantProof]:
    try:
        yield from with_retries(lambda: _prove(engine, group, scope, is_full=is_full, run_id=run_id))
    except DBAPIError as error:
        if is_connection_loss(error):
            raise
        if len(group) > 1:
            for one in group:
                yield from _prove_group(engine, [one], [one], is_full=is_full, run_id=run_id)
            return
        yield _failed(engine, group[0], short_text(error), is_full=is_full, run_id=run_id)


def _prove(
    engine: Engine, group: Sequence[str], scope: Sequence[str] | None, *, is_full: bool, run_id: str | None
) -> Sequence[MerchantProof]:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        verified_until = integrity.verified_until(conn)
        if is_full:
            integrity.find_everything(conn, scope)
        else:
            integrity.find_in_new_entries(conn, scope)
        integrity.seal(conn, is_full=is_full)
        integrity.record(conn, scope, is_full=is_full, run_id=run_id)
        integrity.save_marks(conn, group, verified_until=verified_until, is_full=is_full)
        if is_full:
            # A look at what is new is no proof of all: success is what the night has done.
            merchant_jobs.record_successes(conn, group, job=JOB, run_id=run_id)
        return _proofs(conn, group, scope, is_full=is_full, proved=integrity.count_proved(conn))


def _proofs(
    conn: Connection,
    group: Sequence[str],
    scope: Sequence[str] | None,
    *,
    is_full: bool,
    proved: Mapping[str, tuple[int, int]],
    failure: str | None = None,
) -> Sequence[MerchantProof]:
    found = by_merchant(findings.open_findings(conn, subject=SUBJECT, merchant_ids=scope))
    costs = by_merchant(findings.at_risk(conn, subject=SUBJECT, merchant_ids=scope))
    return [
        MerchantProof(
            merchant_id=name,
            is_full=is_full,
            accounts=proved.get(name, (0, 0))[0],
            entries=proved.get(name, (0, 0))[1],
            findings=tuple(found[name]),
            points_at_risk=sum(one.points for one in costs[name]),
            amounts_at_risk=amounts_by_currency((one.currency, one.amount) for one in costs[name]),
            failure=failure,
        )
        for name in group
    ]


def _failed(engine: Engine, merchant_id: str, why: str, *, is_full: bool, run_id: str | None) -> MerchantProof:
    with engine.begin() as conn:
        findings.record_failure(conn, merchant_id, subject=SUBJECT, class_name=CHECK_FAILED, why=why, run_id=run_id)
        merchant_jobs.record_failure(conn, merchant_id, job=JOB, run_id=run_id, failure=why)
        (failed,) = _proofs(conn, [merchant_id], [merchant_id], is_full=is_full, proved={}, failure=why)
    return failed


def apply_repairs(
    engine: Engine, plans: Sequence[RepairPlan], *, reason: str, actor: str
) -> Sequence[tuple[RepairPlan, int | None]]:
    """Repair each account in a transaction of its own, then prove their merchants, so that what is right is closed.

    Returns each plan as it was decided under the account's lock, with the repair's number, or none and its `refusal`.
    """
    done = [_repair(engine, plan, reason=reason, actor=actor) for plan in plans]
    # What was repaired is said in any case: if this fails, the next proof closes the findings.
    with suppress(DBAPIError):
        _prove_again(engine, {plan.merchant_id for plan, number in done if number is not None})
    return done


def undo_repair(engine: Engine, number: int, *, actor: str) -> Repair:
    """Take back what a repair changed, and prove its merchant in full: what was wrong is a finding again.

    What can't be taken back any more is in the `columns_left` of the result.

    Raises `NoSuchRepairError` and `RepairUndoneError`.
    """
    with engine.begin() as conn:
        undone = integrity_repairs.undo(conn, number, actor=actor)
    _prove_again(engine, {undone.merchant_id}, is_full=True)
    return undone


def _repair(engine: Engine, plan: RepairPlan, *, reason: str, actor: str) -> tuple[RepairPlan, int | None]:
    if plan.refusal:
        return plan, None
    try:
        with engine.begin() as conn:
            return integrity_repairs.repair(conn, plan, reason=reason, actor=actor)
    except DBAPIError as error:
        if is_connection_loss(error):
            raise
        return replace(plan, refusal=short_text(error)), None


def _prove_again(engine: Engine, merchants: Iterable[str], *, is_full: bool = False) -> None:
    if chosen := sorted(merchants):
        for _ in prove(engine, chosen, is_full=is_full):
            pass
