"""When each job last succeeded and last failed for a merchant."""

from collections.abc import Sequence

from sqlalchemy import Connection

from loyalty_pipelines.db.statements import load

RECORD_SUCCESSES = load("merchant_jobs/record_successes")
RECORD_FAILURE = load("merchant_jobs/record_failure")


def record_successes(conn: Connection, merchant_ids: Sequence[str], *, job: str, run_id: str | None) -> None:
    """Remember that `job` has just succeeded for these merchants; with its work, in one transaction."""
    if merchant_ids:
        conn.execute(RECORD_SUCCESSES, {"merchant_ids": list(merchant_ids), "job": job, "run_id": run_id})


def record_failure(conn: Connection, merchant_id: str, *, job: str, run_id: str | None, failure: str) -> None:
    """Remember that `job` has just failed for a merchant, and why (without personal data)."""
    values = {"merchant_id": merchant_id, "job": job, "run_id": run_id, "failure": failure}
    conn.execute(RECORD_FAILURE, values)
