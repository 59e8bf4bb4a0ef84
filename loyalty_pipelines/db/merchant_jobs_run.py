"""Remembers whom a job has served, in a transaction after those of its work."""

from collections.abc import Collection, Mapping

from sqlalchemy import Engine

from loyalty_pipelines.db import merchant_jobs
from loyalty_pipelines.db.engine import with_retries


def note_merchants(
    engine: Engine, *, job: str, served: Collection[str], failures: Mapping[str, str], run_id: str | None
) -> None:
    """Remember that `job` has served these merchants, but those of `failures` (their reasons by merchant).

    For jobs whose work for a merchant is many transactions: only after the last of them is it known how it went. A
    crash before leaves the record older than the truth, never newer.
    """
    # '' stands for items whose merchant nobody knows yet.
    done = sorted(merchant_id for merchant_id in served if merchant_id and merchant_id not in failures)
    failed = sorted(merchant_id for merchant_id in failures if merchant_id)
    if not done and not failed:
        return

    def once() -> None:
        with engine.begin() as conn:
            merchant_jobs.record_successes(conn, done, job=job, run_id=run_id)
            for merchant_id in failed:
                merchant_jobs.record_failure(conn, merchant_id, job=job, run_id=run_id, failure=failures[merchant_id])

    with_retries(once)
