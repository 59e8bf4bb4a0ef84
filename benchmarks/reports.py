"""The liability report next to the bare sum of the same ledger by merchant and month; and its peak memory.

The report is what the asset does: months, balances and calendar of all merchants, HTML with its charts, CSV. Medians of
three, after one warm-up. Nothing is promised of it: it is one pass more over the ledger per night.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psycopg

from benchmarks.awards import SETTINGS, plain, timed
from benchmarks.report import Figure, publish
from loyalty_pipelines.db import sources
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.db.reports_run import report_liability
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.embedded import EmbeddedServer, start_server

SQL = Path(__file__).parent / "sql"
BARE = ("SELECT merchant_id, date_trunc('month', recorded_at), sum(points) FROM loyalty.ledger_entries GROUP BY 1, 2",)


def prepare(server: EmbeddedServer, *, merchants: int, accounts: int, entries: int) -> str:
    """Make the database; return its URL."""
    server.ensure_database("reports")
    url = server.url("reports")
    engine = connect(url)
    upgrade(engine)
    with engine.begin() as conn:
        script = (SQL / "reports_base.sql").read_text().format(merchants=merchants, accounts=accounts, entries=entries)
        for statement in script.split(";\n"):
            conn.exec_driver_sql(statement)
        sources.apply(conn, parse_mapping(Path(__file__).with_name("expiry.yaml").read_text()))
    engine.dispose()
    with psycopg.connect(plain(url), autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")
    return url


def write_once(url: str) -> None:
    """Compute and render the report as a run does, and say how long it took and what it took of memory."""
    from loyalty_pipelines.report_files.liability import liability_files

    engine = connect(url)
    started = time.monotonic()
    report = report_liability(engine)
    computed = time.monotonic()
    size = sum(len(one.content) for one in liability_files(report))
    rendered = time.monotonic()
    assert all(one.difference == 0 for one in report.merchants)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(computed - started, rendered - computed, peak, size)


@click.command()
@click.option("--entries", default=1_000_000, show_default=True)
@click.option("--accounts", default=100_000, show_default=True)
@click.option("--merchants", default=1_000, show_default=True)
@click.option("--iterations", default=3, show_default=True)
@click.option("--once", "url", hidden=True)
def main(entries: int, accounts: int, merchants: int, iterations: int, url: str | None) -> None:
    """Measure, and write build/benchmarks/reports.json."""
    if url:
        write_once(url)
        return
    samples: dict[str, list[float]] = {name: [] for name in ("bare", "computed", "rendered", "memory", "size")}
    with tempfile.TemporaryDirectory(prefix="loyalty-bench-") as folder:
        server = start_server(Path(folder) / "pg", settings=SETTINGS)
        url = prepare(server, merchants=merchants, accounts=accounts, entries=entries)
        for iteration in range(iterations + 1):
            with psycopg.connect(plain(url), autocommit=True) as conn:
                bare = timed(conn, *BARE)
            # A process of its own: memory counts from its start.
            command = [sys.executable, "-m", "benchmarks.reports", "--once", url]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            if iteration:
                for name, value in zip(samples, [bare, *map(float, said)], strict=True):
                    samples[name].append(value)
        server.stop()
    middle = {name: statistics.median(values) for name, values in samples.items()}
    publish(
        "reports",
        [
            Figure(
                name="liability computed / bare sum by merchant and month",
                value=middle["computed"] / middle["bare"],
                target=None,
                detail=f"{middle['computed']:.2f} s / {middle['bare']:.2f} s, {entries:,} entries",
                samples=samples["computed"],
            ),
            Figure(
                name="HTML, charts and CSV, seconds",
                value=middle["rendered"],
                target=None,
                detail=f"{middle['size'] / 2**20:.1f} MiB of files",
                samples=samples["rendered"],
            ),
            Figure(
                name="peak memory of the process, MiB",
                value=middle["memory"],
                target=None,
                detail="computed and rendered",
                samples=samples["memory"],
            ),
        ],
        extra={"samples": samples},
    )


if __name__ == "__main__":
    main()
