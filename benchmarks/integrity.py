"""The nightly proof next to the bare sum of the same ledger, the hour's proof of 10,000 new entries, and peak memory.

All sides read one database of 10,000,000 entries in one run, with the server's own settings; medians of three after one
warm-up; an hour's proof is done three times in each.
"""

import json
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
from loyalty_pipelines.db import integrity, sources
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.integrity_run import prove
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.embedded import EmbeddedServer, start_server

SQL = Path(__file__).parent / "sql"
ACCOUNTS = 1_000_000
ENTRIES = 10 * ACCOUNTS
NEWS = 10_000
HOURS = 3
BARE = (
    "SELECT count(*), sum(points) FROM (SELECT merchant_id, account_id, sum(points) AS points "
    "FROM loyalty.ledger_entries GROUP BY merchant_id, account_id) AS sums"
)


def prepare(server: EmbeddedServer, *, merchants: int, accounts: int) -> str:
    """Make the database; return its URL."""
    server.ensure_database("integrity")
    url = server.url("integrity")
    engine = connect(url)
    upgrade(engine)
    each_round = (SQL / "integrity_round.sql").read_text()
    rounds = ";\n".join(each_round.format(round=number) for number in range(1, 11))
    script = (SQL / "integrity_base.sql").read_text().format(merchants=merchants, accounts=accounts, rounds=rounds)
    with psycopg.connect(plain(url), autocommit=True) as conn:
        for statement in script.split(";\n"):
            conn.execute(statement.encode())
    with engine.begin() as conn:
        sources.apply(conn, parse_mapping(Path(__file__).with_name("expiry.yaml").read_text()))
    engine.dispose()
    with psycopg.connect(plain(url), autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")
    return url


def work(url: str, mode: str) -> None:
    """Do one proof in a process of its own, as a worker does; print what it took."""
    import dagster as dg

    from loyalty_pipelines.definitions import defs

    assert defs.resolve_job_def("integrity_job")
    assert dg.__version__
    engine = connect(url)
    started = time.monotonic()
    if mode == "balances":
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin() as transaction:
            integrity.create_tables(conn)
            integrity.find_in_balances(conn, None)
            found = conn.exec_driver_sql("SELECT count(*) FROM found").scalar_one()
            proved = conn.exec_driver_sql("SELECT sum(entries) FROM integrity_sums").scalar_one()
            transaction.rollback()
    else:
        done = list(prove(engine, is_full=mode == "full"))
        found, proved = sum(one.open_findings for one in done), sum(one.entries for one in done)
    seconds = time.monotonic() - started
    assert found == 0, found
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "entries": int(proved), "memory_mb": memory}))


def run(url: str, mode: str) -> dict[str, float]:
    """Do one proof in a new process."""
    command = [sys.executable, "-m", "benchmarks.integrity", "--work", url, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def an_hour(url: str, number: int, accounts: int) -> dict[str, float]:
    """Let other accounts than before earn an order each, and prove what is new."""
    news = (SQL / "integrity_news.sql").read_text().format(every=accounts // NEWS, number=2 * number + 1)
    with psycopg.connect(plain(url), autocommit=True) as conn:
        conn.execute(news.encode())
    new = run(url, "new")
    assert new["entries"] == NEWS, new
    return new


def measure(url: str, number: int, accounts: int) -> dict[str, float]:
    """One iteration of everything."""
    with psycopg.connect(plain(url), autocommit=True) as conn:
        before = timed(conn, BARE)
        balances, full = run(url, "balances"), run(url, "full")
        after = timed(conn, BARE)
    # Half a second: whatever else the machine does at that moment shows, so it is done several times.
    hours = [an_hour(url, HOURS * number + hour, accounts) for hour in range(HOURS)]
    result = {
        # Before and after, so that neither side has the warmer cache.
        "bare": (before + after) / 2,
        "balances": balances["seconds"],
        "full": full["seconds"],
        "new": statistics.median(one["seconds"] for one in hours),
        "memory_mb": max(one["memory_mb"] for one in (balances, full, *hours)),
    }
    print(json.dumps(result), flush=True)
    return result


def figures(measured: list[dict[str, float]]) -> list[Figure]:
    """Return the figures as medians over the iterations."""

    def ratio(name: str, target: str | None, detail: str, above: str, below: str, factor: float = 1) -> Figure:
        samples = [factor * one[above] / one[below] for one in measured]
        return Figure(name=name, value=statistics.median(samples), target=target, detail=detail, samples=samples)

    def median(key: str) -> float:
        return statistics.median(one[key] for one in measured)

    bare = f"{median('bare'):.1f} s for {ENTRIES:,} entries"
    return [
        ratio("full balance check / bare sum", "<= 2", f"{median('balances'):.1f} s, {bare}", "balances", "bare"),
        ratio("all classes / bare sum", "<= 6", f"{median('full'):.1f} s", "full", "bare"),
        ratio(f"{NEWS:,} new entries, % of full", "<= 2", f"{median('new'):.2f} s", "new", "full", 100),
        ratio(f"{NEWS:,} new entries, % of the balance check", None, "", "new", "balances", 100),
        Figure(
            name="peak memory of the worker, MB",
            value=max(one["memory_mb"] for one in measured),
            target="<= 300",
            detail="of all proofs",
        ),
    ]


@click.command()
@click.option("--runs", default=3, show_default=True, help="Iterations, after one warm-up.")
@click.option("--accounts", default=ACCOUNTS, show_default=True, help="Accounts, with ten entries each.")
@click.option("--merchants", default=100, show_default=True)
@click.option("--work", "job", nargs=2, default=None, hidden=True)
def main(runs: int, accounts: int, merchants: int, job: tuple[str, str] | None) -> None:
    """Measure the proof."""
    if job:
        work(*job)
        return
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(Path(folder) / "pg", settings=SETTINGS)
        url = prepare(server, merchants=merchants, accounts=accounts)
        first = run(url, "full")
        print(json.dumps({"first proof, with the seals": first["seconds"]}), flush=True)
        # Else autovacuum finds the new seals while something is measured.
        with psycopg.connect(plain(url), autocommit=True) as conn:
            conn.execute("VACUUM ANALYZE")
        measured = [measure(url, number, accounts) for number in range(runs + 1)][1:]
        server.stop()
    publish("integrity", figures(measured), extra={"iterations": measured, "first": first})


if __name__ == "__main__":
    main()
