"""Warnings and expiry against the same writes as single statements, their flatness, and a night with nothing to do.

Both sides begin with fresh copies of one database and write the same rows into the ledger's own tables, with all their
indexes: outbox and date for a warning; entry, balance and outbox for an expiry. Medians of three, after one warm-up.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import psycopg

from benchmarks.awards import SETTINGS, plain, timed
from benchmarks.report import Figure, publish
from loyalty_pipelines.db import sources
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.domain.expiry import ExpiryOptions, Limits, Page
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.embedded import EmbeddedServer, start_server

SQL = Path(__file__).parent / "sql"
ACCOUNTS = 1_000_000
FEW_ACCOUNTS = 100_000
MERCHANTS = 1_000
# How many pages are the first and the last of a run: a single one is noise.
PAGES = 50
MIDNIGHT = "local_midnight(now(), {days}, 'Europe/Luxembourg')"
SITUATIONS = {
    # The date is as far ahead as warnings go.
    "warnings": f"UPDATE loyalty.accounts SET expires_at = loyalty.{MIDNIGHT.format(days=14)}",
    # Due tonight, everybody told: one warning each has been sent.
    "expiry": f"UPDATE loyalty.accounts SET expires_at = loyalty.{MIDNIGHT.format(days=0)}, "
    f"warned_for = loyalty.{MIDNIGHT.format(days=0)}; "
    "INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, payload, status, settled_at) "
    "SELECT merchant_id, loyalty.warning_key(account_id, expires_at, 'Europe/Luxembourg'), 'loyalty_points_expiring', "
    "customer_id, jsonb_build_object('points', balance, 'expires_at', expires_at), 'sent', now() "
    "FROM loyalty.accounts ORDER BY merchant_id, account_id",
    # Everybody was active lately.
    "idle": f"UPDATE loyalty.accounts SET expires_at = loyalty.{MIDNIGHT.format(days=200)}",
}
BARE = {
    "warnings": (
        "INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, payload) "
        "SELECT merchant_id, 'expiring/' || account_id || '/' || to_char(expires_at, 'YYYY-MM-DD'), "
        "'loyalty_points_expiring', customer_id, jsonb_build_object('points', balance, 'expires_at', expires_at) "
        "FROM loyalty.accounts",
        "UPDATE loyalty.accounts SET warned_for = expires_at",
    ),
    "expiry": (
        "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, "
        "balance_after, reference_type, reference_id, reference_seq, actor, run_id, occurred_at) "
        "SELECT merchant_id, account_id, next_seq, 'expired', -balance, balance, 0, 'expiry', "
        "account_id || '/' || next_seq, 1, 'bare', 'bare', expires_at FROM loyalty.accounts",
        "INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, payload) "
        "SELECT merchant_id, 'expired/' || account_id || '/' || next_seq, 'loyalty_points_expired', customer_id, "
        "jsonb_build_object('points', balance, 'expires_at', expires_at) FROM loyalty.accounts",
        "UPDATE loyalty.accounts SET balance = 0, next_seq = next_seq + 1, last_expiry_seq = next_seq, "
        "expires_at = NULL, warned_for = NULL",
    ),
}


@dataclass
class Night:
    """Seconds of a run, what it did to how many accounts, and seconds between the ends of its pages."""

    seconds: float
    accounts: int
    pages: list[float] = field(default_factory=list)


def prepare(server: EmbeddedServer, name: str, *, merchants: int, accounts: int, situation: str) -> None:
    """Make a database that iterations copy."""
    server.ensure_database(name)
    engine = connect(server.url(name))
    upgrade(engine)
    with engine.begin() as conn:
        script = (SQL / "expiry_base.sql").read_text().format(merchants=merchants, accounts=accounts // merchants)
        for statement in script.split(";\n"):
            conn.exec_driver_sql(statement)
        sources.apply(conn, parse_mapping(Path(__file__).with_name("expiry.yaml").read_text()))
    engine.dispose()
    with psycopg.connect(plain(server.url(name)), autocommit=True) as conn:
        for statement in SITUATIONS[situation].split("; "):
            conn.execute(statement.encode())
        conn.execute("VACUUM (FULL, ANALYZE) loyalty.accounts")
        conn.execute("VACUUM ANALYZE")


@contextmanager
def copy_of(server: EmbeddedServer, name: str) -> Iterator[str]:
    """A fresh copy of a prepared database; its URL."""
    with psycopg.connect(plain(server.url("postgres")), autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS iteration WITH (FORCE)")
        admin.execute(f"CREATE DATABASE iteration TEMPLATE {name} STRATEGY FILE_COPY".encode())
        url = server.url("iteration")
        with psycopg.connect(plain(url), autocommit=True) as conn:
            conn.execute("SELECT sum(balance) FROM loyalty.accounts")
            conn.execute("SELECT sum(points) FROM loyalty.ledger_entries")
            conn.execute("SELECT count(payload) FROM loyalty.notifications")
            conn.execute("CHECKPOINT")
        yield url
        admin.execute("DROP DATABASE iteration WITH (FORCE)")


def night(url: str, *, connections: int) -> Night:
    """Run a night over all merchants."""
    engine = connect(url, pool_size=connections + 1)
    ends: list[float] = []

    def note(_: str, page: Page) -> None:
        if page.accounts:
            ends.append(time.monotonic())

    options = ExpiryOptions(connections=connections, limits=Limits(accepted_accounts=10**9))
    started = time.monotonic()
    done = list(expire_merchants(engine, options=options, actor="benchmark", on_page=note))
    seconds = time.monotonic() - started
    engine.dispose()
    assert not any(one.failure for one in done), next(one.failure for one in done if one.failure)
    pages = [after - before for before, after in zip([started, *ends], ends, strict=False)]
    return Night(seconds=seconds, accounts=sum(one.accounts_warned + one.accounts_expired for one in done), pages=pages)


def bare(url: str, situation: str) -> float:
    """Do the same writes as single statements of one transaction; return the seconds."""
    with psycopg.connect(plain(url), autocommit=True) as conn:
        return timed(conn, *BARE[situation])


def check(url: str) -> None:
    """Fail unless the ledger adds up."""
    with psycopg.connect(plain(url)) as conn:
        wrong = conn.execute(
            "SELECT count(*) FROM (SELECT a.balance, sum(e.points) AS points FROM loyalty.accounts AS a "
            "JOIN loyalty.ledger_entries AS e USING (merchant_id, account_id) "
            "GROUP BY a.merchant_id, a.account_id, a.balance) AS s WHERE balance <> points"
        ).fetchone()
    assert wrong == (0,), wrong


@click.command()
@click.option("--iterations", default=3, show_default=True, help="Their median counts; one more warms up.")
@click.option("--accounts", default=ACCOUNTS, show_default=True, help="Accounts that are due.")
def main(iterations: int, accounts: int) -> None:
    """Measure warnings and expiry."""
    few = accounts * FEW_ACCOUNTS // ACCOUNTS
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)
        print(json.dumps({name: round(value, 4)}), flush=True)

    with tempfile.TemporaryDirectory(prefix="lp-bench-") as name:
        server = start_server(Path(name) / "pg", settings=SETTINGS)
        for situation in BARE:
            prepare(server, situation, merchants=MERCHANTS, accounts=accounts, situation=situation)
            prepare(server, f"few_{situation}", merchants=MERCHANTS // 10, accounts=few, situation=situation)
            prepare(server, f"one_{situation}", merchants=1, accounts=accounts, situation=situation)
        prepare(server, "idle", merchants=MERCHANTS, accounts=accounts, situation="idle")
        for iteration in range(iterations + 1):
            for situation in BARE:
                _measure(server, situation, accounts, few, note if iteration else lambda *_: None)
            with copy_of(server, "idle") as url:
                done = night(url, connections=2)
                assert done.accounts == 0
                if iteration:
                    note("idle seconds", done.seconds)
        server.stop()
    publish("expiry", figures(found, accounts, few), extra={"samples": found})


def _measure(server: EmbeddedServer, situation: str, accounts: int, few: int, note) -> None:
    with copy_of(server, situation) as url:
        note(f"{situation} bare seconds", bare(url, situation))
        if situation == "expiry":
            check(url)
    for connections in (2, 1):
        with copy_of(server, situation) as url:
            done = night(url, connections=connections)
            assert done.accounts == accounts, done.accounts
            note(f"{situation} seconds on {connections}", done.seconds)
            check(url)
    with copy_of(server, f"few_{situation}") as url:
        done = night(url, connections=2)
        assert done.accounts == few, done.accounts
        note(f"{situation} seconds of few", done.seconds)
    with copy_of(server, f"one_{situation}") as url:
        done = night(url, connections=1)
        assert done.accounts == accounts
        note(f"{situation} first pages ms", 1000 * statistics.median(done.pages[1 : PAGES + 1]))
        note(f"{situation} last pages ms", 1000 * statistics.median(done.pages[-PAGES:]))
        note(f"{situation} seconds of one merchant", done.seconds)


def figures(found: dict[str, list[float]], accounts: int, few: int) -> list[Figure]:
    """Return the figures as medians."""
    middle = {name: statistics.median(values) for name, values in found.items()}
    shown = []
    for what in BARE:
        bare_seconds = middle[f"{what} bare seconds"]
        for connections, target in ((2, ">= 0.5"), (1, None)):
            seconds = middle[f"{what} seconds on {connections}"]
            shown.append(
                Figure(
                    name=f"{what} / bare limit, {connections} connection{'s' if connections > 1 else ''}",
                    value=bare_seconds / seconds,
                    target=target,
                    detail=f"{accounts / seconds:,.0f} accounts/s against {accounts / bare_seconds:,.0f}",
                    samples=found[f"{what} seconds on {connections}"],
                )
            )
        many, fewer = middle[f"{what} seconds on 2"] / accounts, middle[f"{what} seconds of few"] / few
        shown.append(
            Figure(
                name=f"{what}: seconds per account, {accounts:,} / {few:,}",
                value=many / fewer,
                target="<= 1.3",
                detail=f"{100_000 * many:.2f} s / {100_000 * fewer:.2f} s per 100,000",
            )
        )
        first, last = middle[f"{what} first pages ms"], middle[f"{what} last pages ms"]
        shown.append(
            Figure(
                name=f"{what}: last pages / first pages",
                value=last / first,
                target="<= 2",
                detail=f"{last:.1f} ms / {first:.1f} ms, one merchant, all of one instant",
            )
        )
    busy = middle["warnings seconds on 2"]
    shown.append(
        Figure(
            name="a night with nothing due / with all due",
            value=middle["idle seconds"] / min(busy, middle["expiry seconds on 2"]),
            target="<= 0.01",
            detail=f"{middle['idle seconds']:.2f} s for {MERCHANTS:,} merchants, {accounts:,} accounts",
            samples=found["idle seconds"],
        )
    )
    return shown


if __name__ == "__main__":
    main()
