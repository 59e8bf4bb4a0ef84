"""Remembers whom a job has served, in transactions after those of its work."""

from collections.abc import Callable, Collection, Mapping
from functools import partial

from sqlalchemy import Connection, Engine

from loyalty_pipelines.db.engine import with_retries
from loyalty_pipelines.db.merchant_jobs import record_failure, record_successes


def note_merchants(
    engine: Engine, *, job: str, served: Collection[str], failures: Mapping[str, str], run_id: str | None
) -> None:
    """Remember that `job` has served these merchants, but those of `failures` (their reasons by merchant).

    For jobs whose work for a merchant is many transactions: only after the last of them is it known how it went. A
    crash before leaves the record older than the truth, never newer.
    """
    # '' stands for items whose merchant nobody knows yet.
    done = [merchant_id for merchant_id in served if merchant_id and merchant_id not in failures]
    if done:
        _in_transaction(engine, partial(record_successes, merchant_ids=done, job=job, run_id=run_id))
    for merchant_id, failure in failures.items():
        # One row in each transaction: two runs that meet would otherwise lock each other's in another order.
        if merchant_id:
            _in_transaction(
                engine, partial(record_failure, merchant_id=merchant_id, job=job, run_id=run_id, failure=failure)
            )


def _in_transaction(engine: Engine, work: Callable[[Connection], None]) -> None:
    def once() -> None:
        with engine.begin() as conn:
            work(conn)

    with_retries(once)
