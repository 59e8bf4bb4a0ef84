"""From paid to awarded with an idle Dagster, against an empty job of the same instance.

A daemon runs as `loyalty up` starts it. Orders are paid one by one at random moments; the clock stops when the entry
can be seen. The empty job is timed from its request (the run's creation) to its end, in turns with the orders.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from sqlalchemy import Engine, text

from benchmarks.report import Figure, publish
from loyalty_pipelines.db import demo
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.processes import dagster_environment, dagster_running

INTERVAL_SECONDS = 5.0
CODE = ("-m", "benchmarks.definitions", "-d", str(Path(__file__).parent.parent))


@click.command()
@click.option("--runs", default=15, show_default=True, help="Orders and empty jobs; the medians count.")
def main(runs: int) -> None:
    """Measure the latency of one order."""
    with tempfile.TemporaryDirectory(prefix="lp-bench-") as folder:
        os.environ["LOYALTY_HOME"] = folder
        environment = dagster_environment()
        os.environ.update(environment)
        engine = connect(environment["LOYALTY_DATABASE_URL"])
        upgrade(engine)
        with engine.begin() as conn:
            demo.prepare(conn, merchants=1)
        log = Path(folder) / "daemon.log"
        with dagster_running("dagster-daemon", ["run"], environment=environment, log=log, workspace=CODE):
            pay_and_wait(engine, "warm-up")
            empty_job()
            paid, empty = [], []
            for number in range(runs):
                time.sleep(random.uniform(0, INTERVAL_SECONDS))
                paid.append(pay_and_wait(engine, f"order-{number}"))
                wait_until_idle()
                empty.append(empty_job())
        engine.dispose()
    limit = INTERVAL_SECONDS / 2 + 1.25 * statistics.median(empty)
    paid_p50 = statistics.median(paid)
    publish(
        "latency",
        [
            Figure(
                name="paid to awarded, p50 / (tick / 2 + 1.25 x empty job)",
                value=paid_p50 / limit,
                target="<= 1.0",
                detail=f"p50 {paid_p50:.2f} s, max {max(paid):.2f} s; empty job {statistics.median(empty):.2f} s, "
                f"limit {limit:.2f} s",
                samples=paid,
            )
        ],
        extra={"paid_seconds": paid, "empty_job_seconds": empty},
    )


def pay_and_wait(engine: Engine, order_id: str) -> float:
    """Pay an order; return the seconds until its entry can be seen."""
    with engine.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at) "
                "VALUES ('shop-01', :id, 'ann', 10, 'EUR', 'paid', now())"
            ),
            {"id": order_id},
        )
    started = time.monotonic()
    seen = text("SELECT 1 FROM loyalty.ledger_entries WHERE reference_id = :id")
    while time.monotonic() - started < 120:
        with engine.connect() as conn:
            if conn.execute(seen, {"id": order_id}).first():
                return time.monotonic() - started
        time.sleep(0.02)
    raise SystemExit(f"{order_id} was not awarded within two minutes")


def empty_job() -> float:
    """Launch the empty job; return the seconds from its request to its end."""
    import dagster as dg

    script = str(Path(sys.executable).with_name("dagster"))
    subprocess.run(
        [script, "job", "launch", *CODE, "-j", "empty_job"],
        check=True,
        capture_output=True,
    )
    with dg.DagsterInstance.get() as instance:
        while True:
            (record,) = instance.get_run_records(dg.RunsFilter(job_name="empty_job"), limit=1)
            if record.end_time is not None:
                assert record.dagster_run.is_success
                return record.end_time - record.create_timestamp.timestamp()
            time.sleep(0.1)


def wait_until_idle() -> None:
    """Wait until no run is in flight: the job that awarded ends after its entry can be seen."""
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        while any(not record.dagster_run.is_finished for record in instance.get_run_records(limit=5)):
            time.sleep(0.1)


if __name__ == "__main__":
    main()
