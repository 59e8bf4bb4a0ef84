"""The check of payments and subscriptions: all merchants in one transaction, and fewer where that is refused."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import findings, merchant_jobs, sources, subscriptions
from loyalty_pipelines.db.drain import short_text
from loyalty_pipelines.db.engine import is_connection_loss, is_transient, reading, with_retries
from loyalty_pipelines.db.proof_run import alone, by_merchant, groups
from loyalty_pipelines.domain.money import amounts_by_currency
from loyalty_pipelines.domain.source_mapping import SourceMapping
from loyalty_pipelines.domain.subscriptions import (
    CHECK_FAILED,
    CLASSES,
    JOB,
    NOT_CHECKED,
    SUBJECT,
    WARNINGS,
    MerchantComparison,
)


@dataclass(frozen=True, kw_only=True)
class _Check:
    """What stays the same for all merchants of one check. `as_of`: None is the instant of each transaction."""

    mapping: SourceMapping
    as_of: datetime | None
    run_id: str | None


class _ClassFailedError(Exception):
    """One class could not be looked for among several merchants: fewer of them are tried, until one is at fault."""


def check(
    engine: Engine,
    merchants: Sequence[str] | None = None,
    *,
    is_full: bool,
    as_of: datetime | None = None,
    run_id: str | None = None,
) -> Iterator[MerchantComparison]:
    """Compare payments, orders, subscriptions and points of these merchants, or of all, and yield each.

    `is_full` compares everything; without it, what belongs to what the shop changed since the last check, and
    everything where there was none. All are compared from one snapshot in one transaction. If PostgreSQL refuses that
    for one row or class, the merchants are halved until the one at fault is alone: there, the class that fails becomes
    a finding and the others run; its `failure` says so. One check at a time: a second one waits. Raises
    `NoMappingError` and `MappingWithdrawnError` where there is no shop to read, and what the database raises when it is
    lost; neither is ever "nothing is wrong".
    """
    with alone(engine, lock=subscriptions.lock, unlock=subscriptions.unlock):
        with reading(engine) as conn:
            mapping = sources.require_mapping(conn)
            sources.require_columns(conn)
            known = subscriptions.merchants(conn, merchants)
        every = merchants is None
        checking = _Check(mapping=mapping, as_of=as_of, run_id=run_id)
        if not is_full:
            with_retries(lambda: _poll(engine, mapping))
        for group, is_group_full in groups(known, is_full=is_full):
            yield from _check_group(
                engine, checking, group, is_full=is_group_full, is_every=every and len(group) == len(known)
            )
        # A merchant that nothing is known of has nothing wrong.
        for merchant_id in sorted(set(merchants or ()) - set(known)):
            yield MerchantComparison(merchant_id=merchant_id, is_full=True)


def _poll(engine: Engine, mapping: SourceMapping) -> None:
    with engine.begin() as conn:
        subscriptions.poll(conn, mapping)


def _check_group(
    engine: Engine, checking: _Check, group: Sequence[str], *, is_full: bool, is_every: bool
) -> Iterator[MerchantComparison]:
    try:
        yield from with_retries(lambda: _compare(engine, checking, group, is_full=is_full, is_every=is_every))
    except (DBAPIError, _ClassFailedError) as error:
        if isinstance(error, DBAPIError) and (is_connection_loss(error) or is_transient(error)):
            raise
        if len(group) > 1:
            middle = len(group) // 2
            for half in (group[:middle], group[middle:]):
                yield from _check_group(engine, checking, half, is_full=is_full, is_every=False)
            return
        yield _failed(engine, checking, group[0], short_text(error), is_full=is_full)


def _compare(
    engine: Engine, checking: _Check, group: Sequence[str], *, is_full: bool, is_every: bool
) -> Sequence[MerchantComparison]:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        as_of = checking.as_of or subscriptions.now(conn)
        subscriptions.prepare(conn, group)
        if is_full:
            subscriptions.read_everything(conn, is_every_merchant=is_every)
        else:
            subscriptions.read_what_changed(conn, as_of=as_of)
        empty = subscriptions.prepare_rows(conn, checking.mapping, as_of=as_of)
        failed, left_out = _find_classes(conn, checking, empty, is_alone=len(group) == 1, as_of=as_of)
        closing = [one.code for one in CLASSES if one.code not in failed and one.code not in left_out]
        if is_full:
            closing += [NOT_CHECKED, CHECK_FAILED]
        subscriptions.record(
            conn,
            None if is_every else group,
            closing=closing,
            warnings=WARNINGS,
            is_full=is_full,
            as_of=as_of,
            run_id=checking.run_id,
        )
        failure = "; ".join(f"{code}: {why}" for code, why in failed.items()) or None
        if failure:
            merchant_jobs.record_failure(conn, group[0], job=JOB, run_id=checking.run_id, failure=failure)
        elif is_full:
            # A look at what changed is no comparison of all: success is what the night has done.
            merchant_jobs.record_successes(conn, group, job=JOB, run_id=checking.run_id)
        counts = subscriptions.counts(conn)
        subscriptions.let_go(conn, is_every_merchant=is_full and is_every)
        return _comparisons(conn, group, is_every=is_every, is_full=is_full, counts=counts, failure=failure)


def _find_classes(
    conn: Connection, checking: _Check, empty: Collection[str], *, is_alone: bool, as_of: datetime
) -> tuple[Mapping[str, str], set[str]]:
    """Look for each class; return those that failed, with the reason, and those whose relations are missing."""
    missing = subscriptions.missing_relations(checking.mapping)
    if missing:
        subscriptions.note_missing(conn, missing)
    left_out = {code for classes in missing.values() for code in classes}
    failed: dict[str, str] = {}
    for one in CLASSES:
        if one.code in left_out:
            continue
        try:
            # Among several merchants the whole transaction is given up: nothing to go back to.
            with conn.begin_nested() if is_alone else nullcontext():
                subscriptions.find(conn, one, checking.mapping, as_of=as_of, empty=empty)
        except DBAPIError as error:
            if is_transient(error):
                raise
            if not is_alone:
                raise _ClassFailedError from error
            failed[one.code] = short_text(error)
            subscriptions.note_failed_class(conn, one.code, why=failed[one.code])
    return failed, left_out


def _comparisons(
    conn: Connection,
    group: Sequence[str],
    *,
    is_every: bool,
    is_full: bool,
    counts: Mapping[str, tuple[int, int]],
    failure: str | None = None,
) -> Sequence[MerchantComparison]:
    scope = None if is_every else group
    found = by_merchant(findings.open_findings(conn, subject=SUBJECT, merchant_ids=scope))
    costs = by_merchant(findings.at_risk(conn, subject=SUBJECT, merchant_ids=scope))
    return [
        MerchantComparison(
            merchant_id=name,
            is_full=is_full,
            payments=counts.get(name, (0, 0))[0],
            subscriptions=counts.get(name, (0, 0))[1],
            findings=tuple(found[name]),
            amounts_at_risk=amounts_by_currency((one.currency, one.amount) for one in costs[name]),
            failure=failure,
        )
        for name in group
    ]


def _failed(engine: Engine, checking: _Check, merchant_id: str, why: str, *, is_full: bool) -> MerchantComparison:
    with engine.begin() as conn:
        findings.record_failure(
            conn, merchant_id, subject=SUBJECT, class_name=CHECK_FAILED, why=why, run_id=checking.run_id
        )
        merchant_jobs.record_failure(conn, merchant_id, job=JOB, run_id=checking.run_id, failure=why)
        (failed,) = _comparisons(conn, [merchant_id], is_every=False, is_full=is_full, counts={}, failure=why)
    return failed
