"""What an item of the reconciliation queue costs, with 1,000, 10,000 and 100,000 of them waiting.

Each item redeems 10 points and earns 20, for one of ten orders of its customer; five merchants. Every size is drained
in fresh copies of one database, in turns, so that a noisy neighbour meets all of them.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import psutil
import psycopg

from benchmarks.report import Figure, publish
from loyalty_pipelines.db import sample_shop
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.db.queue_run import drain_queue
from loyalty_pipelines.embedded import DEFAULT_SETTINGS, EmbeddedServer, start_server

SQL = Path(__file__).parent / "sql"
# Durability stays on; room for what a turn writes.
SETTINGS = {**DEFAULT_SETTINGS, "max_wal_size": "8GB", "checkpoint_timeout": "1h"}
SIZES = (1_000, 10_000, 100_000)


def plain(url: str) -> str:
    """Return a SQLAlchemy URL as psycopg takes it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


def prepare(server: EmbeddedServer) -> None:
    """Make the database that every turn copies: the shop, its accounts, an empty queue."""
    server.ensure_database("base")
    engine = connect(server.url("base"))
    upgrade(engine)
    with engine.begin() as conn:
        sample_shop.create(conn)
    engine.dispose()
    with psycopg.connect(plain(server.url("base")), autocommit=True) as conn:
        conn.execute((SQL / "queue_base.sql").read_bytes())
        conn.execute("VACUUM ANALYZE")


@contextmanager
def waiting(server: EmbeddedServer, items: int) -> Iterator[str]:
    """A fresh copy of the database in which the shop has reported `items` failed updates; its URL."""
    with psycopg.connect(plain(server.url("postgres")), autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS turn WITH (FORCE)")
        admin.execute("CREATE DATABASE turn TEMPLATE base STRATEGY FILE_COPY")
        with psycopg.connect(plain(server.url("turn")), autocommit=True) as conn:
            report = (
                "SELECT count(loyalty.report_failed_update(customer_id, 20, 10, id, 20, 'timeout', merchant_id)) FROM "
                f"(SELECT * FROM sample_shop.orders ORDER BY length(id), id LIMIT {items} OFFSET 0) AS o"
            )
            conn.execute(report.encode())
            conn.execute("CHECKPOINT")
        yield server.url("turn")
        admin.execute("DROP DATABASE turn WITH (FORCE)")


def processor_seconds(server: EmbeddedServer) -> float:
    """Return the processor time of this process and of the server, with that of its sessions that have ended."""
    postmaster = psutil.Process(server.pid)
    alive = [one.cpu_times() for one in (postmaster, *postmaster.children())]
    ended = postmaster.cpu_times()
    return (
        time.process_time() + sum(one.user + one.system for one in alive) + ended.children_user + ended.children_system
    )


def drain(server: EmbeddedServer, items: int) -> dict[str, float]:
    """Drain `items` and return the milliseconds that each took, by the clock and of the processors."""
    with waiting(server, items) as url:
        engine = connect(url)
        started, used = time.monotonic(), processor_seconds(server)
        report = drain_queue(engine, actor="benchmark")
        cost = {
            "clock": (time.monotonic() - started) / items * 1000,
            "processor": (processor_seconds(server) - used) / items * 1000,
        }
        engine.dispose()
        assert (report.total("applied"), report.failures) == (items, {}), report
        with psycopg.connect(plain(url)) as conn:
            wrong = conn.execute(
                "SELECT count(*) FROM (SELECT a.balance, sum(e.points) AS points FROM loyalty.accounts AS a JOIN "
                "loyalty.ledger_entries AS e USING (merchant_id, account_id) GROUP BY a.account_id, a.balance) AS s "
                "WHERE balance <> points"
            ).fetchone()
            assert wrong == (0,), wrong
    return cost


@click.command()
@click.option("--runs", default=3, show_default=True, help="Turns; the medians count.")
def main(runs: int) -> None:
    """Measure the drain of the queue."""
    turns = []
    with tempfile.TemporaryDirectory(prefix="lp-bench-") as folder:
        server = start_server(Path(folder) / "pg", settings=SETTINGS)
        prepare(server)
        drain(server, SIZES[0])
        for _ in range(runs):
            # The small ones are over in seconds: before and after the large one.
            before = {size: drain(server, size) for size in SIZES[:2]}
            large = drain(server, SIZES[-1])
            after = {size: drain(server, size) for size in SIZES[:2]}
            turn = {"clock": {}, "processor": {}}
            for kind, costs in turn.items():
                costs.update({size: (before[size][kind] + after[size][kind]) / 2 for size in SIZES[:2]})
                costs[SIZES[-1]] = large[kind]
            turns.append(turn)
            print(json.dumps(turn), flush=True)
        server.stop()
    publish("reconciliation_queue", figures(turns), extra={"turns": turns})


def figures(turns: list[dict[str, dict[int, float]]]) -> list[Figure]:
    """Return the figures as medians over the turns; the small sizes are means of before and after the large one."""
    found = []
    for kind, target in (("clock", "<= 1.3"), ("processor", None)):
        for large in SIZES[1:]:
            ratios = [turn[kind][large] / turn[kind][SIZES[0]] for turn in turns]
            big, small = (statistics.median(turn[kind][size] for turn in turns) for size in (large, SIZES[0]))
            found.append(
                Figure(
                    name=f"cost per item by the {kind}, {large:,} waiting / {SIZES[0]:,}",
                    value=statistics.median(ratios),
                    target=target,
                    detail=f"{big:.2f} ms / {small:.2f} ms",
                    samples=ratios,
                )
            )
    return found


if __name__ == "__main__":
    main()
