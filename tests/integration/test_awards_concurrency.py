"""Awarding at once, interrupted and overtaken: real processes, real kills, real restarts."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text

from loyalty_pipelines.db import awards, expiry, sample_shop
from loyalty_pipelines.db.drain import DrainOptions, drain
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.domain.expiry import Position
from loyalty_pipelines.embedded import start_server
from tests.conftest import FAST_SETTINGS
from tests.integration.test_awards_poison import TOTALS, many_orders, map_over, points
from tests.shop import Shop

# Drains until its standard input is closed, then once more, and prints what failed.
WORKER = """
import select, sys
from loyalty_pipelines.db.drain import DrainOptions, drain
from loyalty_pipelines.db.engine import connect
url, name, batch_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
engine = connect(url, application_name=name)
failures, is_last = [], False
while True:
    is_last = bool(select.select([sys.stdin], [], [], 0)[0])
    report = drain(engine, options=DrainOptions(batch_size=batch_size), actor=name, run_id=name)
    failures.extend(report.failures.values())
    if is_last:
        break
print(failures)
"""


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


@contextmanager
def worker(shop: Shop, name: str, *, batch_size: int) -> Iterator[subprocess.Popen[str]]:
    """A process that drains; it is killed if it is still there at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, url_of(shop.engine), name, str(batch_size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(processes: list[subprocess.Popen[str]]) -> None:
    """Let workers drain a last time, and check that nothing failed in any."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert (output, errors) == ("[]\n", "")


def wait_until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait until the condition holds; fail the test when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def waiting_for_a_lock(shop: Shop, application: str, count: int = 1) -> Callable[[], bool]:
    """Return a condition: so many sessions of the application wait for a lock."""
    return lambda: (
        shop.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = :name AND wait_event_type = 'Lock'",
            name=application,
        )
        == count
    )


@contextmanager
def holding(shop: Shop, statement: str, **values: object) -> Iterator[Connection]:
    """A transaction that has run a statement and stays open until the test ends it."""
    with shop.engine.connect() as conn, conn.begin():
        conn.execute(text(statement), values)
        yield conn


LOCK_ACCOUNT = "SELECT FROM loyalty.accounts WHERE customer_id = :customer FOR UPDATE"


@contextmanager
def draining(url: str, *, batch_size: int = 10_000) -> Iterator[Future]:
    """A drain in a thread, with an engine of its own whose sessions are called 'drainer'."""
    engine = connect(url, application_name="drainer")
    with ThreadPoolExecutor(max_workers=1) as pool:
        options = DrainOptions(batch_size=batch_size)
        yield pool.submit(drain, engine, options=options, actor="drainer", run_id="r")
    engine.dispose()


def assert_every_order_is_right(shop: Shop) -> None:
    """Compare what orders earned with the shop's own rows, at one point per unit."""
    assert shop.inbox() == 0
    wrong = shop.rows(
        "SELECT * FROM (SELECT id, floor(total) AS deserved FROM sample_shop.orders "
        "WHERE status = 'paid' AND total >= 1) AS o "
        "FULL JOIN (SELECT order_id AS id, target_points FROM loyalty.order_points WHERE target_points > 0) AS p "
        "USING (id) WHERE deserved IS DISTINCT FROM target_points"
    )
    assert wrong == []
    assert shop.problems() == []


# --- at once --------------------------------------------------------------------------------------------


def test_four_processes_award_each_order_once_while_the_shop_writes_and_customers_spend(shop: Shop) -> None:
    many_orders(shop, 3_000)
    stop = threading.Event()
    with ExitStack() as stack:
        with holding(shop, "SELECT pg_advisory_xact_lock(hashtextextended('loyalty.award.m1', 0))"):
            processes = [stack.enter_context(worker(shop, f"w{n}", batch_size=250)) for n in range(4)]
            wait_until(lambda: all(waiting_for_a_lock(shop, f"w{n}")() for n in range(4)))
        with ThreadPoolExecutor(max_workers=3) as pool:
            spent = [pool.submit(spend_until, shop, stop, seed) for seed in range(2)]
            written = pool.submit(write_for_a_while, shop)
            try:
                written.result()
            finally:
                stop.set()
            assert sum(future.result() for future in spent) > 0
        finish(processes)
    assert shop.value("SELECT count(DISTINCT actor) FROM loyalty.award_batches") > 1
    assert shop.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    assert_every_order_is_right(shop)


def write_for_a_while(shop: Shop) -> None:
    """What a busy shop does: new orders, cancellations, corrections, customers that change, in 300 transactions."""
    dice = random.Random(1)
    for number in range(300):
        order_id = str(dice.randrange(1, 3_000))
        match number % 4:
            case 0:
                shop.order(f"new {number}", dice.randrange(100), customer=f"c{dice.randrange(120)}")
            case 1:
                shop.set_status(order_id, dice.choice(["cancelled", "paid"]))
            case 2:
                shop.change(order_id, total=dice.randrange(50))
            case _:
                shop.change(order_id, customer_id=f"c{dice.randrange(120)}")


def spend_until(shop: Shop, stop: threading.Event, seed: int) -> int:
    """Take a point off random accounts that have one; return how often that worked."""
    dice, count = random.Random(seed), 0
    while not stop.is_set():
        customer = f"c{dice.randrange(97)}"
        with shop.engine.begin() as conn:
            account = conn.execute(
                text("SELECT * FROM loyalty.accounts WHERE customer_id = :id FOR NO KEY UPDATE"), {"id": customer}
            ).one_or_none()
            if account is None or account.balance < 1:
                continue
            conn.execute(
                text(
                    "INSERT INTO loyalty.ledger_entries (merchant_id, account_id, seq, kind, points, balance_before, "
                    "balance_after, reference_type, reference_id, reference_seq, actor, occurred_at) VALUES "
                    "('m1', :account, :seq, 'redeemed', -1, :before, :before - 1, 'checkout', :id, 1, 'test', now())"
                ),
                {
                    "account": account.account_id,
                    "seq": account.next_seq,
                    "before": account.balance,
                    "id": f"{seed}/{count}",
                },
            )
            conn.execute(
                text(
                    "UPDATE loyalty.accounts SET balance = balance - 1, next_seq = next_seq + 1 WHERE account_id = :id"
                ),
                {"id": account.account_id},
            )
        count += 1
    return count


def test_processes_that_meet_the_same_poison_blame_no_order_behind_it(shop: Shop) -> None:
    map_over(shop, TOTALS.format(total="10 * total / CASE WHEN id::int % 100 = 0 THEN 0 ELSE 10 END"))
    many_orders(shop, 1_000)
    with ExitStack() as stack:
        with holding(shop, "SELECT pg_advisory_xact_lock(hashtextextended('loyalty.award.m1', 0))"):
            processes = [stack.enter_context(worker(shop, f"w{n}", batch_size=20)) for n in range(3)]
            wait_until(lambda: all(waiting_for_a_lock(shop, f"w{n}")() for n in range(3)))
        wait_until(lambda: shop.inbox() == 0)
        finish(processes)
    assert sorted(shop.queued(), key=int) == [str(n) for n in range(100, 1_001, 100)]
    assert points(shop) == 9_900
    assert shop.value("SELECT sum(attempts) FROM loyalty.reconciliation_queue") == 10
    assert shop.problems() == []


# --- overtaken ------------------------------------------------------------------------------------------


def test_a_row_that_commits_after_a_later_stamped_one_was_processed_is_still_awarded(shop: Shop) -> None:
    insert = (
        "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at, updated_at) "
        "VALUES ('m1', :id, 'ann', 10, 'EUR', 'paid', now(), :updated_at)"
    )
    with holding(shop, insert, id="early", updated_at="2025-06-01"):
        shop.run(insert, id="late", updated_at="2025-06-02")
        shop.award()
        assert list(shop.tracked("late").values()) == [(10, 10, 0)]
        assert shop.tracked("early") == {}
    shop.award()
    assert shop.balance() == 20
    assert_every_order_is_right(shop)


def test_a_rolled_back_order_is_never_awarded(shop: Shop) -> None:
    insert = (
        "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at) "
        "VALUES ('m1', '1', 'ann', 10, 'EUR', 'paid', now())"
    )
    with holding(shop, insert) as conn:
        shop.award()
        conn.get_transaction().rollback()  # type: ignore[union-attr]
    shop.award()
    assert shop.entries() == []


def test_an_update_that_commits_between_claim_and_lock_is_not_lost(shop: Shop) -> None:
    shop.order("1", "10")
    shop.award()
    shop.change("1", total=20)
    with draining(url_of(shop.engine)) as drained:
        with holding(shop, LOCK_ACCOUNT, customer="ann"):
            wait_until(waiting_for_a_lock(shop, "drainer"))
            shop.change("1", total=35)
        assert drained.result(60).failures == {}
    assert shop.entries() == [("earned", 10), ("re-earned", 10)]
    assert shop.inbox() == 1
    shop.award()
    assert shop.balance() == 35
    assert_every_order_is_right(shop)


def test_points_spent_between_claim_and_lock_are_seen(shop: Shop) -> None:
    shop.order("1", "10")
    shop.award()
    shop.set_status("1", "cancelled")
    with draining(url_of(shop.engine)) as drained:
        with holding(shop, LOCK_ACCOUNT, customer="ann") as conn:
            wait_until(waiting_for_a_lock(shop, "drainer"))
            conn.execute(
                text(
                    "INSERT INTO loyalty.ledger_entries SELECT merchant_id, account_id, 2, 'redeemed', -7, 10, 3, 0, "
                    "'checkout', 'c', 1, NULL, 'test', NULL, now() FROM loyalty.ledger_entries"
                )
            )
            conn.execute(text("UPDATE loyalty.accounts SET balance = 3, next_seq = 3"))
        assert drained.result(60).failures == {}
    assert shop.entries() == [("earned", 10), ("redeemed", -7), ("reversed", -3)]
    assert shop.tracked("1") == {"ann": (0, 7, 7)}
    assert_every_order_is_right(shop)


def test_points_that_expire_between_claim_and_lock_are_not_taken_again(shop: Shop) -> None:
    shop.program(clawback="allow_negative")
    shop.order("1", "10")
    shop.award()
    with ExitStack() as held:
        conn = held.enter_context(holding(shop, LOCK_ACCOUNT, customer="ann"))
        conn.execute(text("UPDATE loyalty.accounts SET expires_at = now()"))
        as_of = expiry.now(conn)
        night = expiry.begin_run(conn, "m1", run_id="night", as_of=as_of, actor="test")
        page = expiry.expire_page(
            conn,
            "m1",
            run_id=night.run_id,
            as_of=as_of,
            is_warning_required=False,
            actor="test",
            after=Position(),
            page_size=10,
        )
        assert page.points == 10
        shop.set_status("1", "cancelled")
        with draining(url_of(shop.engine)) as drained:
            wait_until(waiting_for_a_lock(shop, "drainer"))
            held.close()
            assert drained.result(60).failures == {}
    assert (shop.balance(), shop.tracked("1")) == (0, {"ann": (0, 10, 10)})
    assert_every_order_is_right(shop)


def test_an_account_that_a_checkout_creates_at_the_same_time_is_used(shop: Shop) -> None:
    shop.order("1", "10")
    with draining(url_of(shop.engine)) as drained:
        with holding(shop, "INSERT INTO loyalty.accounts (merchant_id, customer_id) VALUES ('m1', 'ann')"):
            wait_until(waiting_for_a_lock(shop, "drainer"))
        assert drained.result(60).failures == {}
    assert shop.entries() == [("earned", 10)]
    assert_every_order_is_right(shop)


# --- interrupted ----------------------------------------------------------------------------------------


@pytest.fixture
def half_done(shop: Shop) -> Shop:
    """60 orders of 6 customers; 'c5' has an account already, so that its lock stops a worker in the middle."""
    shop.run("INSERT INTO loyalty.accounts (merchant_id, customer_id) VALUES ('m1', 'c5')")
    for number in range(60):
        shop.order(str(number), 1 + number, customer=f"c{number % 6}")
    return shop


def test_killing_a_worker_in_the_middle_of_a_batch_loses_nothing_and_repeats_nothing(half_done: Shop) -> None:
    with worker(half_done, "victim", batch_size=25) as victim:
        with holding(half_done, LOCK_ACCOUNT, customer="c5"):
            wait_until(waiting_for_a_lock(half_done, "victim"))
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
        wait_until(lambda: not half_done.rows("SELECT FROM pg_stat_activity WHERE application_name = 'victim'"))
    # Batches of 25, 25 and 10 rows by customer: two are committed, the third is as if it had never begun.
    assert half_done.inbox() == 10
    assert half_done.value("SELECT count(*) FROM loyalty.award_batches") == 2
    assert half_done.entries("c5") == []
    half_done.award()
    assert half_done.value("SELECT count(*) FROM loyalty.ledger_entries") == 60
    assert_every_order_is_right(half_done)


def test_a_drain_whose_session_is_terminated_goes_on_by_itself(half_done: Shop) -> None:
    with draining(url_of(half_done.engine), batch_size=25) as drained:
        with holding(half_done, LOCK_ACCOUNT, customer="c5"):
            for _ in range(2):
                wait_until(waiting_for_a_lock(half_done, "drainer"))
                assert half_done.value(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE application_name = 'drainer' AND wait_event_type = 'Lock'"
                )
        report = drained.result(60)
    assert report.failures == {}
    assert report.total("orders_changed") == 60
    assert half_done.value("SELECT count(*) FROM loyalty.ledger_entries") == 60
    assert_every_order_is_right(half_done)


def test_a_worker_that_hangs_in_its_transaction_does_not_block_the_others_for_ever(half_done: Shop) -> None:
    stuck = connect(url_of(half_done.engine))
    with stuck.connect() as conn:
        shown = [
            conn.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("idle_in_transaction_session_timeout", "lock_timeout")
        ]
        assert shown == ["1min", "30s"]
        # The same, only sooner.
        conn.execute(text("SET idle_in_transaction_session_timeout = '1s'"))
        conn.commit()
        awards.lock_merchant(conn, "m1")
        conn.execute(text(LOCK_ACCOUNT), {"customer": "c5"})
        half_done.award()
        conn.invalidate()
    stuck.dispose()
    assert_every_order_is_right(half_done)


def test_a_server_that_is_restarted_in_the_middle_is_waited_for() -> None:
    with tempfile.TemporaryDirectory(prefix="lp-", dir="/tmp") as folder:
        # A crash must keep what was committed, so commits wait for the log here.
        settings = {**FAST_SETTINGS, "synchronous_commit": "on", "shared_buffers": "32MB"}
        data_dir = Path(folder) / "pg"
        server = start_server(data_dir, settings=settings)
        try:
            server.ensure_database("shop")
            engine = connect(server.url("shop"))
            upgrade(engine)
            with engine.begin() as conn:
                sample_shop.create(conn)
            shop = Shop(engine)
            shop.merchant("m1")
            shop.run("INSERT INTO loyalty.accounts (merchant_id, customer_id) VALUES ('m1', 'c5')")
            for number in range(60):
                shop.order(str(number), 1 + number, customer=f"c{number % 6}")
            with draining(server.url("shop"), batch_size=25) as drained:
                holder = engine.connect()
                holder.execute(text(LOCK_ACCOUNT), {"customer": "c5"})
                wait_until(waiting_for_a_lock(shop, "drainer"))
                server.stop(mode="immediate")
                server = start_server(data_dir, settings=settings)
                holder.invalidate()
                report = drained.result(60)
            assert report.failures == {}
            assert report.total("orders_changed") == 60
            assert_every_order_is_right(shop)
            engine.dispose()
        finally:
            server.stop(mode="immediate")
