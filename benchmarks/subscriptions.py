"""The comparison of payments and subscriptions next to a bare hash join, a thousand changes, and automatic fixes.

All sides read one database of 1,000,000 orders, 1,200,000 payments and 400,000 subscriptions in one run, with all
points awarded; medians of three after one warm-up. Fixes stand next to bare inserts of as many rows into a like table.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import click
import psycopg
from sqlalchemy import Engine

from benchmarks.awards import SETTINGS, plain, timed
from benchmarks.report import Figure, publish
from loyalty_pipelines.db import sample_shop
from loyalty_pipelines.db.drain import DrainOptions, drain
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.fix_plans_run import apply_fixes
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.db.subscriptions_run import check
from loyalty_pipelines.embedded import EmbeddedServer, start_server

SQL = Path(__file__).parent / "sql"
SUBSCRIPTIONS = 400_000
CHANGES = 1_000
LOST = 10_000
SMALLER_CHECKS = 3
# As the check has it: memory enough that nothing is hashed twice, and no sorting.
BARE_SETTINGS = "SET work_mem = '128MB'", "SET enable_mergejoin = off"
BARE_FIXES = (
    "INSERT INTO bare_subscriptions (merchant_id, customer_id, plan_id, order_id, status, price, currency, "
    "period_start, period_end, created_at) SELECT merchant_id, customer_id, plan_id, id, 'active', total, currency, "
    "paid_at, paid_at + interval '1 month', paid_at FROM sample_shop.orders WHERE id LIKE 'lost{round}-%'"
)


def script(name: str, **values: int) -> list[str]:
    """Return the statements of a file."""
    return (SQL / f"{name}.sql").read_text().format(**values).split(";\n")


def prepare(server: EmbeddedServer, *, merchants: int, subscriptions: int) -> str:
    """Make the database; return its URL."""
    server.ensure_database("subscriptions")
    url = server.url("subscriptions")
    engine = connect(url)
    upgrade(engine)
    with engine.begin() as conn:
        sample_shop.create(conn)
    goods = subscriptions * 29 // 20
    with psycopg.connect(plain(url), autocommit=True) as conn:
        for statement in script("subscriptions_base", merchants=merchants, subscriptions=subscriptions, goods=goods):
            conn.execute(statement.encode())
        conn.execute("CREATE TABLE bare_subscriptions (LIKE sample_shop.subscriptions INCLUDING ALL)")
        conn.execute(
            "INSERT INTO loyalty.subscription_settings (merchant_id, max_fixes, max_money, changed_by) "
            "SELECT id, 100000, 1000000000, 'benchmark' FROM sample_shop.merchants"
        )
    report = drain(engine, options=DrainOptions(), actor="benchmark", run_id="benchmark")
    assert report.failures == {}, report.failures
    engine.dispose()
    with psycopg.connect(plain(url), autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")
    return url


def places(subscriptions: int, number: int) -> dict[str, int]:
    """Return which rows change: others each time, all over the tables."""
    every = subscriptions // 600
    return {
        "every": every,
        **{name: (17 * number + 5 * k) % every for k, name in enumerate(("first", "second", "third"))},
    }


def compare(engine: Engine, *, is_full: bool) -> float:
    """Do one check of everything or of what changed; return the seconds."""
    started = time.monotonic()
    done = list(check(engine, is_full=is_full))
    seconds = time.monotonic() - started
    wrong = [(one.merchant_id, [found.class_name for found in one.findings]) for one in done if one.findings]
    assert not wrong, wrong[:3]
    assert not any(one.failure for one in done)
    return seconds


def tidy(url: str) -> None:
    """Remove dead rows: two million of the inbox after the first check; of findings and catalogs after many fixes.

    Autovacuum takes a minute to come by, and is not what is measured.
    """
    with psycopg.connect(plain(url), autocommit=True) as conn:
        conn.execute("VACUUM")


def fix(engine: Engine, url: str, *, number: int, merchants: int) -> tuple[float, float, float]:
    """Lose some webhooks; return the seconds of applying fixes, of the rows alone in one statement, and one by one."""
    with psycopg.connect(plain(url), autocommit=True) as conn:
        for statement in script("subscriptions_lost", round=number, merchants=merchants, lost=LOST):
            conn.execute(statement.encode())
        # Their points are another fix.
        drain(engine, options=DrainOptions(), actor="benchmark", run_id="benchmark")
        list(check(engine, is_full=False))
        started = time.monotonic()
        done = list(apply_fixes(engine, is_dry_run=False, actor="benchmark", run_id="benchmark"))
        fixed = time.monotonic() - started
        applied = sum(one.applied for one in done)
        assert applied == LOST, applied
        at_once = timed(conn, BARE_FIXES.format(round=number))
        rows = conn.execute(
            "SELECT merchant_id, customer_id, plan_id, id, paid_at FROM sample_shop.orders WHERE id LIKE %s LIMIT 2000",
            [f"lost{number}-%"],
        ).fetchall()
        started = time.monotonic()
        for row in rows:
            conn.execute(
                "INSERT INTO bare_subscriptions (merchant_id, customer_id, plan_id, order_id, period_start) "
                "VALUES (%s, %s, %s, %s, %s)",
                row,
            )
        one_by_one = (time.monotonic() - started) * LOST / len(rows)
    return fixed, at_once, one_by_one


def measure(engine: Engine, url: str, *, number: int, merchants: int, subscriptions: int) -> dict[str, float]:
    """One iteration of everything."""
    bare = "".join(script("subscriptions_bare"))
    changes = []
    with psycopg.connect(plain(url), autocommit=True) as conn:
        for setting in BARE_SETTINGS:
            conn.execute(setting.encode())
        before = timed(conn, bare)
        full = compare(engine, is_full=True)
        after = timed(conn, bare)
        # A quarter of a second: whatever else the machine does at that moment shows, so it is done several times.
        for step in range(SMALLER_CHECKS):
            for statement in script("subscriptions_changes", **places(subscriptions, SMALLER_CHECKS * number + step)):
                conn.execute(statement.encode())
            noted = conn.execute("SELECT count(*) FROM loyalty.subscription_inbox").fetchone()
            assert noted is not None
            assert noted[0] == CHANGES, noted
            changes.append(compare(engine, is_full=False))
    fixed, at_once, one_by_one = fix(engine, url, number=number, merchants=merchants)
    tidy(url)
    result = {
        # Before and after, so that neither side has the warmer cache.
        "bare": (before + after) / 2,
        "full": full,
        "changes": statistics.median(changes),
        "fixes": fixed,
        "bare_at_once": at_once,
        "bare_one_by_one": one_by_one,
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

    return [
        ratio("full check / bare hash join", "<= 8", f"{median('full'):.1f} s, {median('bare'):.2f} s", "full", "bare"),
        ratio(f"{CHANGES:,} changed rows, % of full", "<= 3", f"{median('changes'):.2f} s", "changes", "full", 100),
        Figure(
            name="automatic fixes/s",
            value=round(LOST / median("fixes")),
            target=None,
            detail=f"{LOST:,} subscriptions made, and checked again, in {median('fixes'):.1f} s",
            samples=[LOST / one["fixes"] for one in measured],
        ),
        ratio("fixes / one bare INSERT of all", None, f"{median('bare_at_once'):.2f} s", "fixes", "bare_at_once"),
        ratio(
            "fixes / bare INSERTs one by one", None, f"{median('bare_one_by_one'):.1f} s", "fixes", "bare_one_by_one"
        ),
    ]


@click.command()
@click.option("--runs", default=3, show_default=True, help="Iterations, after one warm-up.")
@click.option("--subscriptions", default=SUBSCRIPTIONS, show_default=True, help="With 2.5 orders and 3 payments each.")
@click.option("--merchants", default=20, show_default=True)
def main(runs: int, subscriptions: int, merchants: int) -> None:
    """Measure the comparison."""
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(Path(folder) / "pg", settings=SETTINGS)
        url = prepare(server, merchants=merchants, subscriptions=subscriptions)
        engine = connect(url)
        print(json.dumps({"first check": compare(engine, is_full=True)}), flush=True)
        tidy(url)
        measured = [
            measure(engine, url, number=number, merchants=merchants, subscriptions=subscriptions)
            for number in range(runs + 1)
        ][1:]
        engine.dispose()
        server.stop()
    publish("subscriptions", figures(measured), extra={"iterations": measured})


if __name__ == "__main__":
    main()
