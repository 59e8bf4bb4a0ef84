"""The contracts over 1,000,000 orders, next to the same conditions as one hand-written statement.

Twice: over a clean shop, and over one in which a tenth of the orders has no amount and another tenth no customer, to
see that bad rows are counted and not fetched. Each turn runs both sides, one after the other.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psycopg
from psycopg.rows import dict_row

from benchmarks.report import Figure, publish
from loyalty_pipelines.db import sources
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.embedded import DEFAULT_SETTINGS, EmbeddedServer, start_server

SQL = Path(__file__).parent / "sql"
SETTINGS = {**DEFAULT_SETTINGS, "max_wal_size": "8GB", "checkpoint_timeout": "1h"}
CUSTOMERS = """
customers:
  relation: shop.customers
  columns: {merchant_id: merchant_id, customer_id: id, created_at: created_at}
"""
SPOIL = (
    "UPDATE shop.orders SET total = 'NaN' WHERE mod(id, 10) = 3",
    "UPDATE shop.orders SET customer_id = -1 WHERE mod(id, 10) = 4",
    "VACUUM FULL ANALYZE shop.orders",
)


def plain(url: str) -> str:
    """Return a SQLAlchemy URL as psycopg takes it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


def prepare(server: EmbeddedServer) -> None:
    """Make the shop with its customers, clean, and a copy with bad rows."""
    server.ensure_database("clean")
    engine = connect(server.url("clean"))
    upgrade(engine)
    with engine.begin() as conn:
        for name in ("shop", "contracts_base"):
            for statement in (SQL / f"{name}.sql").read_text().split(";\n"):
                if statement.strip():
                    conn.exec_driver_sql(statement)
        mapping = Path(__file__).with_name("shop.yaml").read_text() + CUSTOMERS
        sources.apply(conn, parse_mapping(mapping))
    engine.dispose()
    with psycopg.connect(plain(server.url("clean")), autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")
    with psycopg.connect(plain(server.url("postgres")), autocommit=True) as conn:
        conn.execute("CREATE DATABASE spoilt TEMPLATE clean STRATEGY FILE_COPY")
    with psycopg.connect(plain(server.url("spoilt")), autocommit=True) as conn:
        for statement in SPOIL:
            conn.execute(statement.encode())


def by_hand(url: str) -> tuple[float, dict[str, int]]:
    """Return the seconds of the hand-written statement and what it counts."""
    with psycopg.connect(plain(url)) as conn, conn.cursor(row_factory=dict_row) as cursor:
        started = time.monotonic()
        row = cursor.execute((SQL / "contracts_by_hand.sql").read_bytes()).fetchone()
        seconds = time.monotonic() - started
    assert row is not None
    return seconds, {name: int(count) for name, count in row.items() if count}


def measure(server: EmbeddedServer, name: str) -> dict[str, float]:
    """Return what both sides take, and that they count the same."""
    script = Path(__file__).with_name("contract_worker.py")
    ended = subprocess.run([sys.executable, str(script), server.url(name)], check=True, capture_output=True, text=True)
    found = json.loads(ended.stdout.splitlines()[-1])
    seconds, counted = by_hand(server.url(name))
    assert found["bad_rows"] == counted, (found["bad_rows"], counted)
    assert len(counted) == (2 if name == "spoilt" else 0), counted
    print(name, json.dumps(found), f"by hand {seconds:.2f} s", flush=True)
    return {**found, "by_hand_seconds": seconds}


@click.command()
@click.option("--runs", default=3, show_default=True, help="Turns; the medians count.")
def main(runs: int) -> None:
    """Measure the contracts."""
    with tempfile.TemporaryDirectory(prefix="lp-bench-") as folder:
        server = start_server(Path(folder) / "pg", settings=SETTINGS)
        prepare(server)
        measure(server, "clean")
        turns = {name: [measure(server, name) for _ in range(runs)] for name in ("clean", "spoilt")}
        server.stop()
    publish("contracts", [one for name, found in turns.items() for one in figures(name, found)], extra={"turns": turns})


def figures(name: str, turns: list[dict[str, float]]) -> list[Figure]:
    """Return the figures of one shop, medians over the turns."""

    def median(key: str) -> float:
        return statistics.median(turn[key] for turn in turns)

    ratios = [turn["orders_seconds"] / turn["by_hand_seconds"] for turn in turns]
    return [
        Figure(
            name=f"{name}: contract of 1,000,000 orders / one statement by hand",
            value=statistics.median(ratios),
            target=None,
            detail=f"{median('orders_seconds'):.2f} s / {median('by_hand_seconds'):.2f} s",
            samples=ratios,
        ),
        Figure(
            name=f"{name}: contracts of all views, seconds",
            value=median("all_seconds"),
            target=None,
            detail=f"and {median('import_seconds'):.1f} s to import Great Expectations",
            samples=[turn["all_seconds"] for turn in turns],
        ),
        Figure(
            name=f"{name}: peak memory of the worker, MB",
            value=median("memory_mb"),
            target=None,
            detail=f"{median('memory_after_import_mb'):.0f} MB after the import",
            samples=[turn["memory_mb"] for turn in turns],
        ),
    ]


if __name__ == "__main__":
    main()
