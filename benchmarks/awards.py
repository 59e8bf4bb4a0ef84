"""Award throughput against the bare limit of PostgreSQL, against one order per transaction, and its flatness.

Every iteration awards the same 1,000,000 orders in a fresh copy of one database, then writes the very same rows there
without any of the work around them. Medians of three, after one warm-up.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psycopg
from sqlalchemy import Engine, text

from benchmarks.report import Figure, publish
from loyalty_pipelines.db import sources
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.embedded import DEFAULT_SETTINGS, EmbeddedServer, start_server

SQL = Path(__file__).parent / "sql"
# Room for the data of both sides, so that neither is measured on the disk's speed; durability stays on.
SETTINGS = {**DEFAULT_SETTINGS, "shared_buffers": "2GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h"}
ORDERS = 1_000_000
FEW_ORDERS = 50_000
ONE_BY_ONE_ORDERS = 5_000


def plain(url: str) -> str:
    """Return a SQLAlchemy URL as psycopg takes it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


def prepare(server: EmbeddedServer) -> None:
    """Make the database that every iteration copies: the shop, its accounts, every order waiting in the inbox."""
    server.ensure_database("base")
    engine = connect(server.url("base"))
    upgrade(engine)
    with engine.begin() as conn:
        for statement in (SQL / "shop.sql").read_text().split(";\n"):
            if statement.strip():
                conn.exec_driver_sql(statement)
        sources.apply(conn, parse_mapping(Path(__file__).with_name("shop.yaml").read_text()))
    engine.dispose()
    with psycopg.connect(plain(server.url("base")), autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")


@contextmanager
def copy_of_base(server: EmbeddedServer, *, waiting: int, order_of_inbox: str) -> Iterator[str]:
    """A fresh copy of the prepared database with `waiting` orders in the inbox; its URL."""
    with psycopg.connect(plain(server.url("postgres")), autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS iteration WITH (FORCE)")
        admin.execute("CREATE DATABASE iteration TEMPLATE base STRATEGY FILE_COPY")
        url = server.url("iteration")
        with psycopg.connect(plain(url), autocommit=True) as conn:
            fill = (
                "INSERT INTO loyalty.order_inbox (merchant_id, customer_id, order_id, source) "
                "SELECT merchant_id::text, customer_id::text, id::text, 'benchmark' FROM shop.orders "
                f"ORDER BY {order_of_inbox} LIMIT {waiting}"
            )
            conn.execute(fill.encode())
            conn.execute("VACUUM ANALYZE loyalty.order_inbox")
            conn.execute("SELECT sum(total), count(paid_at) FROM shop.orders")
            conn.execute("CHECKPOINT")
        yield url
        admin.execute("DROP DATABASE iteration WITH (FORCE)")


def award(url: str, *, connections: int) -> dict[str, float]:
    """Drain the inbox in a process of its own; return seconds, orders and the process's peak memory in MB."""
    script = Path(__file__).with_name("award_worker.py")
    run = subprocess.run(
        [sys.executable, str(script), url, str(connections)], check=True, capture_output=True, text=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def bare(url: str) -> tuple[float, float]:
    """Write the rows of the iteration's ledger again with nothing around them.

    Return the seconds of the bare limit (entries and balances), and of all net writes as bulk statements.
    """
    with psycopg.connect(plain(url), autocommit=True) as conn:
        for statement in (SQL / "bare_tables.sql").read_text().split(";\n"):
            if statement.strip():
                conn.execute(statement.encode())
        entries_and_balances = timed(
            conn,
            "INSERT INTO bare_entries SELECT * FROM entries_to_write",
            "UPDATE bare_accounts AS a SET balance = b.balance, next_seq = b.next_seq, "
            "last_activity_at = b.last_activity_at, expires_at = b.expires_at FROM balances_to_write AS b "
            "WHERE a.merchant_id = b.merchant_id AND a.account_id = b.account_id",
        )
        the_rest = timed(
            conn,
            "INSERT INTO bare_order_points SELECT * FROM order_points_to_write",
            "DELETE FROM bare_inbox",
        )
    return entries_and_balances, entries_and_balances + the_rest


def timed(conn: psycopg.Connection, *statements: str) -> float:
    """Return the seconds of the statements in one transaction, commit included."""
    started = time.monotonic()
    with conn.transaction():
        for statement in statements:
            conn.execute(statement.encode())
    return time.monotonic() - started


def one_by_one(url: str) -> float:
    """Award orders as a task queue does: one per transaction, check, lock, insert, update; return orders per second."""
    engine = connect(url)
    with engine.connect() as conn:
        orders = conn.execute(
            text(
                "SELECT merchant_id::text, id::text, customer_id::text, total FROM shop.orders "
                "ORDER BY paid_at LIMIT :n"
            ),
            {"n": ONE_BY_ONE_ORDERS},
        ).all()
    started = time.monotonic()
    for order in orders:
        _award_one(engine, order)
    seconds = time.monotonic() - started
    engine.dispose()
    return ONE_BY_ONE_ORDERS / seconds


def _award_one(engine: Engine, order) -> None:
    with engine.begin() as conn:
        key = {"m": order.merchant_id, "o": order.id}
        if conn.execute(EXISTS, key).first():
            return
        account = conn.execute(LOCK, {"m": order.merchant_id, "c": order.customer_id}).one()
        points = int(order.total)
        conn.execute(
            INSERT,
            {**key, "a": account.account_id, "s": account.next_seq, "p": points, "b": account.balance},
        )
        conn.execute(UPDATE, {"m": order.merchant_id, "a": account.account_id, "p": points})


EXISTS = text(
    "SELECT 1 FROM loyalty.ledger_entries WHERE merchant_id = :m AND reference_type = 'order' AND reference_id = :o"
)
LOCK = text(
    "SELECT account_id, balance, next_seq FROM loyalty.accounts WHERE merchant_id = :m AND customer_id = :c FOR UPDATE"
)
INSERT = text(
    "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, balance_after, "
    "reference_type, reference_id, reference_seq, actor, occurred_at) "
    "VALUES (:m, :a, :s, 'earned', :p, :b, :b + :p, 'order', :o, 1, 'benchmark', now())"
)
UPDATE = text(
    "UPDATE loyalty.accounts SET balance = balance + :p, next_seq = next_seq + 1, last_activity_at = now() "
    "WHERE merchant_id = :m AND account_id = :a"
)


@click.command()
@click.option("--runs", default=3, show_default=True, help="Iterations; the median counts.")
def main(runs: int) -> None:
    """Measure award throughput."""
    with tempfile.TemporaryDirectory(prefix="lp-bench-") as folder:
        server = start_server(Path(folder) / "pg", settings=SETTINGS)
        prepare(server)
        measured = [measure(server) for _ in range(runs + 1)][1:]
        server.stop()
    publish("awards", figures(measured), extra={"iterations": measured})


def measure(server: EmbeddedServer) -> dict[str, float]:
    """One iteration of everything."""
    result: dict[str, float] = {}
    as_triggers_fill_it, as_the_sweep_fills_it = "orders.id", "merchant_id::text, customer_id::text, orders.id"
    for name, connections, order in (
        ("one", 1, as_triggers_fill_it),
        ("swept", 1, as_the_sweep_fills_it),
        ("two", 2, as_triggers_fill_it),
    ):
        with copy_of_base(server, waiting=ORDERS, order_of_inbox=order) as url:
            run = award(url, connections=connections)
            assert run["orders"] == ORDERS, run
            result[f"{name}_seconds"] = run["seconds"]
            result[f"{name}_memory"] = run["memory_mb"]
            if name == "two":
                result["bare_seconds"], result["net_seconds"] = bare(url)
    with copy_of_base(server, waiting=FEW_ORDERS, order_of_inbox=as_triggers_fill_it) as url:
        run = award(url, connections=2)
        assert run["orders"] == FEW_ORDERS, run
        result["few_seconds"], result["few_memory"] = run["seconds"], run["memory_mb"]
    with copy_of_base(server, waiting=1, order_of_inbox=as_triggers_fill_it) as url:
        result["one_by_one_per_second"] = one_by_one(url)
    print(json.dumps(result), flush=True)
    return result


def figures(measured: list[dict[str, float]]) -> list[Figure]:
    """Return the figures as medians over the iterations."""

    def ratio(name: str, target: str | None, detail: str, compute) -> Figure:
        samples = [compute(run) for run in measured]
        return Figure(name=name, value=statistics.median(samples), target=target, detail=detail, samples=samples)

    def median(key: str) -> float:
        return statistics.median(run[key] for run in measured)

    speed = f"{ORDERS / median('two_seconds'):,.0f} orders/s, bare {ORDERS / median('bare_seconds'):,.0f}/s"
    return [
        ratio("award / bare limit", ">= 0.5", speed, lambda r: r["bare_seconds"] / r["two_seconds"]),
        ratio(
            "award / all net writes in bulk",
            ">= 0.7",
            f"net writes {ORDERS / median('net_seconds'):,.0f}/s",
            lambda r: r["net_seconds"] / r["two_seconds"],
        ),
        ratio(
            "the same on one connection / bare limit",
            None,
            f"{ORDERS / median('one_seconds'):,.0f} orders/s; inbox filled by triggers",
            lambda r: r["bare_seconds"] / r["one_seconds"],
        ),
        ratio(
            "... inbox filled by the sweep",
            None,
            f"{ORDERS / median('swept_seconds'):,.0f} orders/s",
            lambda r: r["bare_seconds"] / r["swept_seconds"],
        ),
        ratio(
            "award / one order per transaction",
            ">= 25",
            f"{median('one_by_one_per_second'):,.0f} orders/s one by one",
            lambda r: ORDERS / r["two_seconds"] / r["one_by_one_per_second"],
        ),
        ratio(
            "... both on one connection",
            None,
            "inbox filled by triggers",
            lambda r: ORDERS / r["one_seconds"] / r["one_by_one_per_second"],
        ),
        ratio(
            "cost per order, 1,000,000 pending / 50,000",
            "<= 1.3",
            f"{median('two_seconds') / ORDERS * 1e6:.1f} / {median('few_seconds') / FEW_ORDERS * 1e6:.1f} us",
            lambda r: (r["two_seconds"] / ORDERS) / (r["few_seconds"] / FEW_ORDERS),
        ),
        ratio("peak memory of the worker, MB", "<= 300", "1,000,000 pending", lambda r: r["two_memory"]),
        ratio("peak memory of the worker, MB", "<= 300", "50,000 pending", lambda r: r["few_memory"]),
    ]


if __name__ == "__main__":
    main()
