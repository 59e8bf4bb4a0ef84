"""A scrape over 1,000,000 accounts of 1,000 merchants, beside the bare sum of their balances.

A busy hour: 20 award batches per merchant in it and ten times as many before, 100 orders per merchant in the inbox, a
queue, findings, mails that wait and mails that were sent, a year of nights. No ledger entry is read, however many there
are: the last figure counts the reads.
"""

import tempfile
import time
from pathlib import Path

import click
import psycopg

from benchmarks.awards import SETTINGS, plain
from benchmarks.expiry import ACCOUNTS, MERCHANTS, SQL
from benchmarks.report import Figure, publish
from loyalty_pipelines.db import sources
from loyalty_pipelines.db.engine import connect, reading
from loyalty_pipelines.db.metrics import read_metrics
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.embedded import EmbeddedServer, start_server
from loyalty_pipelines.resources.prometheus import as_text

BUSY = """
INSERT INTO loyalty.award_batches (
    merchant_id, actor, rows_claimed, rows_repeated, orders_changed, orders_unchanged, orders_queued, orders_skipped,
    orders_missing, entries_written, points_changed, recorded_at, award_seconds, oldest_enqueued_at
)
SELECT m.id, 'live_awards', 10, 0, 10, 0, 0, 0, 0, 10, 100, now() - n * interval '3 minutes', 0.01,
    now() - n * interval '3 minutes' - interval '2 seconds'
FROM generate_series(220, 1, -1) AS n CROSS JOIN shop.merchants AS m;
INSERT INTO loyalty.order_inbox (merchant_id, customer_id, order_id, source)
SELECT m.id, 'c' || n, 'o' || n, 'benchmark' FROM shop.merchants AS m CROSS JOIN generate_series(1, 100) AS n;
INSERT INTO loyalty.reconciliation_queue (merchant_id, operation, order_id, customer_id, reason, points_earned)
SELECT m.id, 'update', 'o' || n, 'c' || n, 'benchmark', 5 FROM shop.merchants AS m
CROSS JOIN generate_series(1, 10) AS n;
INSERT INTO loyalty.findings (merchant_id, subject, class, severity, object_type, object_id, points_difference)
SELECT m.id, 'benchmark', 'class' || mod(n, 5), 'error', 'account', n, n FROM shop.merchants AS m
CROSS JOIN generate_series(1, 20) AS n;
INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, status, settled_at)
SELECT m.id, 'mail/' || n, 'loyalty_enrollment', 'c' || n, CASE WHEN n <= 100 THEN 'pending' ELSE 'sent' END,
    CASE WHEN n > 100 THEN now() - (n - 100) * interval '90 minutes' / 40 END
FROM shop.merchants AS m CROSS JOIN generate_series(1, 500) AS n;
INSERT INTO loyalty.expiry_runs (merchant_id, run_id, as_of, actor, started_at, finished_at)
SELECT m.id, n::text, now() - n * interval '1 day', 'benchmark', now() - n * interval '1 day',
    now() - n * interval '1 day'
FROM generate_series(365, 1, -1) AS n CROSS JOIN shop.merchants AS m;
INSERT INTO loyalty.merchant_jobs (merchant_id, job, succeeded_at)
SELECT m.id, j.job, now() FROM shop.merchants AS m
CROSS JOIN (VALUES ('awarded_points'), ('balance_integrity'), ('points_liability')) AS j (job)
"""
READS = (
    "SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0)) "
    "FROM pg_statio_all_tables WHERE schemaname = 'loyalty' AND relname = 'ledger_entries'"
)


def prepare(server: EmbeddedServer, *, merchants: int, accounts: int) -> str:
    """Make the database; return its URL."""
    server.ensure_database("metrics")
    url = server.url("metrics")
    engine = connect(url)
    upgrade(engine)
    with engine.begin() as conn:
        script = (SQL / "expiry_base.sql").read_text().format(merchants=merchants, accounts=accounts // merchants)
        for statement in (*script.split(";\n"), *BUSY.split(";\n")):
            conn.exec_driver_sql(statement, execution_options={"no_parameters": True})
        sources.apply(conn, parse_mapping(Path(__file__).with_name("expiry.yaml").read_text()))
    engine.dispose()
    with psycopg.connect(plain(url), autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")
    return url


def ledger_reads(url: str) -> int:
    """Return how many pages of the ledger and its indexes were read so far."""
    with psycopg.connect(plain(url), autocommit=True) as conn:
        conn.execute("SELECT pg_stat_force_next_flush()")
        row = conn.execute(READS).fetchone()
    assert row
    return int(row[0])


@click.command()
@click.option("--iterations", default=7, show_default=True, help="Their median counts; one more warms up.")
@click.option("--accounts", default=ACCOUNTS, show_default=True, help="Accounts of all merchants.")
def main(iterations: int, accounts: int) -> None:
    """Measure a scrape."""
    scrapes: list[float] = []
    texts: list[float] = []
    sums: list[float] = []
    size = series = 0
    with tempfile.TemporaryDirectory(prefix="lp-bench-") as name:
        server = start_server(Path(name) / "pg", settings=SETTINGS)
        url = prepare(server, merchants=MERCHANTS, accounts=accounts)
        engine = connect(url)
        before = ledger_reads(url)
        for iteration in range(iterations + 1):
            started = time.monotonic()
            with reading(engine, is_one_snapshot=True) as conn:
                measured = read_metrics(conn)
            scraped = time.monotonic()
            size = len(as_text(measured))
            series = sum(len(samples) for samples in measured.samples.values())
            written = time.monotonic()
            with reading(engine) as conn:
                conn.exec_driver_sql("SELECT merchant_id, sum(balance) FROM loyalty.accounts GROUP BY 1").all()
            if iteration:
                scrapes.append(scraped - started)
                texts.append(written - scraped)
                sums.append(time.monotonic() - written)
        engine.dispose()
        reads = ledger_reads(url) - before
        server.stop()
    middle = sorted(scrapes)[len(scrapes) // 2]
    publish(
        "metrics",
        [
            Figure(
                name="seconds of a scrape",
                value=middle,
                target=None,
                detail=f"{accounts:,} accounts, {MERCHANTS:,} merchants, {series:,} series; their balances alone: "
                f"{sorted(sums)[len(sums) // 2]:.2f} s",
                samples=scrapes,
            ),
            Figure(
                name="seconds of writing the text",
                value=sorted(texts)[len(texts) // 2],
                target=None,
                detail=f"{size / 1e6:.1f} MB",
                samples=texts,
            ),
            Figure(name="ledger pages read", value=reads, target="<= 0", detail="by all scrapes together"),
        ],
    )


if __name__ == "__main__":
    main()
