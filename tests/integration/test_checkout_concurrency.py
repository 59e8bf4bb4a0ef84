"""Checkouts at once, against awards, and killed: real connections, real processes, real kills."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from loyalty_pipelines.db import sweep
from loyalty_pipelines.db.drain import drain
from loyalty_pipelines.db.holds_run import release_stale_holds
from tests.checkout import Checkout
from tests.shop import Shop

# What a checkout may answer beside success.
EXPECTED = {"LP002", "LP003", "LP008", "LP009", "LP012"}


def url_of(shop: Shop) -> str:
    return shop.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


def deadlocks(shop: Shop) -> int:
    return shop.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


@pytest.mark.parametrize("function", ["redeem_points", "reserve_points"])
def test_of_50_that_spend_all_points_at_once_exactly_one_succeeds(shop: Shop, function: str) -> None:
    shop.order("first", "100.00")
    shop.award()
    start = threading.Barrier(50)

    def spend(number: int) -> str:
        with psycopg.connect(url_of(shop), autocommit=True) as conn:
            start.wait()
            try:
                conn.execute(f"SELECT loyalty.{function}('m1', 'ann', %s, 100)".encode(), [f"o{number}"])
            except psycopg.Error as error:
                return f"{error.sqlstate} {error.diag.message_primary}"
        return "spent"

    with ThreadPoolExecutor(max_workers=50) as pool:
        answers = Counter(pool.map(spend, range(50)))
    assert answers == {"spent": 1, "LP002 Insufficient loyalty points. Available: 0, Requested: 100": 49}
    assert deadlocks(shop) == 0
    assert shop.problems() == []


def test_of_50_that_redeem_one_order_at_once_all_get_the_same_answer(shop: Shop) -> None:
    shop.order("first", "100.00")
    shop.award()
    start = threading.Barrier(50)

    def spend(_: int) -> object:
        with psycopg.connect(url_of(shop), autocommit=True) as conn:
            start.wait()
            return conn.execute(
                "SELECT * FROM loyalty.update_customer_loyalty_points_atomic('ann', 7, 30, 'o')"
            ).fetchone()

    with ThreadPoolExecutor(max_workers=50) as pool:
        assert set(pool.map(spend, range(50))) == {("m1", 7, 30, 100, 77)}
    assert shop.entries() == [("earned", 100), ("redeemed", -30), ("earned", 7)]
    assert (deadlocks(shop), shop.problems()) == (0, [])


def test_two_customers_who_redeem_one_order_at_once_do_not_both_succeed(shop: Shop) -> None:
    shop.order("anns", "100.00", customer="ann")
    shop.order("bobs", "100.00", customer="bob")
    shop.award()
    for number in range(20):
        start = threading.Barrier(2)

        def spend(customer: str, order: str = f"o{number}", start: threading.Barrier = start) -> str:
            with psycopg.connect(url_of(shop), autocommit=True) as conn:
                start.wait()
                try:
                    conn.execute("SELECT loyalty.redeem_points('m1', %s, %s, 1)", [customer, order])
                except psycopg.Error as error:
                    return str(error.sqlstate)
            return "spent"

        with ThreadPoolExecutor(max_workers=2) as pool:
            assert sorted(pool.map(spend, ["ann", "bob"])) == ["LP003", "spent"]
    assert shop.balance("ann") + shop.balance("bob") == 180
    assert shop.problems() == []


def test_5000_mixed_operations_on_100_accounts_leave_every_balance_equal_to_its_entries(shop: Shop) -> None:
    """8 connections; awards, cancellations, sweeps and the release of holds go on meanwhile."""
    for number in range(100):
        shop.order(f"first {number}", "1000.00", customer=f"c{number}")
    shop.award()
    stop = threading.Event()

    def operate(seed: int) -> Counter[str]:
        dice, answers = random.Random(seed), Counter[str]()
        with psycopg.connect(url_of(shop), autocommit=True) as conn:
            for _ in range(625):
                # Few orders per customer, so that calls meet each other, repeat and contradict each other.
                customer = dice.randrange(100)
                order, points = f"{customer}-{dice.randrange(12)}", dice.choice([1, 50, 50, 400])
                call = dice.choice(
                    [
                        ("SELECT loyalty.reserve_points('m1', %(c)s, %(o)s, %(p)s)"),
                        ("SELECT loyalty.capture_points('m1', %(o)s)"),
                        ("SELECT loyalty.release_points('m1', %(o)s)"),
                        ("SELECT loyalty.redeem_points('m1', %(c)s, %(o)s, %(p)s)"),
                        ("SELECT loyalty.update_customer_loyalty_points_atomic(%(c)s, 7, %(p)s, %(o)s)"),
                        ("UPDATE sample_shop.orders SET status = 'cancelled' WHERE merchant_id = 'm1' AND id = %(o)s"),
                        (
                            "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, points_redeemed, "
                            "currency, status, paid_at) VALUES ('m1', %(o)s, %(c)s, 9, %(p)s, 'EUR', 'paid', now()) "
                            "ON CONFLICT (merchant_id, id) DO UPDATE SET status = 'paid', "
                            "points_redeemed = excluded.points_redeemed"
                        ),
                    ]
                )
                try:
                    conn.execute(call.encode(), {"c": f"c{customer}", "o": order, "p": points})
                    answers["done"] += 1
                except psycopg.Error as error:
                    answers[str(error.sqlstate)] += 1
        return answers

    def award() -> int:
        rounds = 0
        while not stop.is_set():
            with shop.engine.begin() as conn:
                sweep.enqueue_differences(conn, "m1")
            assert drain(shop.engine, actor="drainer").failures == {}
            # Time flies; rows that a checkout has locked stay as they are, for it locks them in its own order.
            shop.run(
                "UPDATE loyalty.holds SET expires_at = now() WHERE (merchant_id, order_id) IN (SELECT merchant_id, "
                "order_id FROM loyalty.holds WHERE status = 'open' FOR UPDATE SKIP LOCKED)"
            )
            release_stale_holds(shop.engine)
            rounds += 1
        return rounds

    with ThreadPoolExecutor(max_workers=9) as pool:
        awarding = pool.submit(award)
        try:
            answers = sum(pool.map(operate, range(8)), Counter[str]())
        finally:
            stop.set()
        assert awarding.result() > 0
    assert sum(answers.values()) == 5_000
    assert answers["done"] > 1_000
    assert set(answers) <= {"done", *EXPECTED}, answers
    assert deadlocks(shop) == 0
    assert shop.problems() == []
    # And what it all comes to is right: a last sweep, then nothing is left to do.
    for _ in range(2):
        with shop.engine.begin() as conn:
            sweep.enqueue_differences(conn, "m1")
        assert drain(shop.engine, actor="drainer").failures == {}
    assert shop.rows("SELECT * FROM loyalty.order_differences('m1')") == []
    assert shop.problems() == []


# A shop's process: an order is made, reserves 5 points, is paid or fails, and captures or releases. It prints a line
# when it has begun.
SHOP_PROCESS = """
import random, sys
import psycopg
url, name = sys.argv[1], sys.argv[2]
dice = random.Random(name)
with psycopg.connect(url, autocommit=True) as conn:
    print("begun", flush=True)
    for number in range(100_000):
        order = f"{name}-{number}"
        conn.execute(
            "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, points_redeemed, currency, status) "
            "VALUES ('m1', %s, 'ann', 0, 5, 'EUR', 'pending')", [order])
        conn.execute("SELECT loyalty.reserve_points('m1', 'ann', %s, 5)", [order])
        status = dice.choice(["paid", "failed"])
        conn.execute(
            "UPDATE sample_shop.orders SET status = %s, paid_at = now(), updated_at = now() "
            "WHERE merchant_id = 'm1' AND id = %s", [status, order])
        if status == "paid":
            conn.execute("SELECT loyalty.capture_points('m1', %s)", [order])
        else:
            conn.execute("SELECT loyalty.release_points('m1', %s)", [order])
"""


def test_whenever_a_checkout_is_killed_the_next_sweep_leaves_no_point_lost_or_doubled(shop: Shop) -> None:
    points = 1_000_000_000
    shop.order("first", points)
    shop.award()
    dice, left_open = random.Random(7), 0
    for number in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", SHOP_PROCESS, url_of(shop), f"p{number}"], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            # The kill falls anywhere; what it hit is read off the ledger below.
            time.sleep(dice.uniform(0.05, 0.3))
            os.kill(process.pid, signal.SIGKILL)
        ended = "SELECT count(*) FROM pg_stat_activity WHERE application_name = '' AND datname = current_database()"
        while shop.value(ended):
            pass
        left_open += shop.value("SELECT count(*) FROM loyalty.holds WHERE status = 'open'")
        assert shop.problems() == []
    shop.run("UPDATE loyalty.holds SET expires_at = now() WHERE status = 'open'")
    shop.run("DELETE FROM loyalty.order_inbox")
    release_stale_holds(shop.engine)
    with shop.engine.begin() as conn:
        sweep.enqueue_differences(conn, "m1")
    shop.award()
    paid = shop.value("SELECT count(*) FROM sample_shop.orders WHERE status = 'paid' AND points_redeemed > 0")
    assert (shop.balance(), shop.account().held) == (points - 5 * paid, 0)
    assert left_open > 0, "no kill fell between a reservation and its end: this test has proved nothing"
    assert paid > 12
    assert shop.problems() == []


def test_a_client_that_dies_while_its_call_waits_leaves_it_done_or_undone(shop: Shop) -> None:
    shop.order("first", "100.00")
    shop.award()
    call = (
        "import sys, psycopg\n"
        "conn = psycopg.connect(sys.argv[1], autocommit=True, application_name='dies')\n"
        "conn.execute(\"SELECT loyalty.redeem_points('m1', 'ann', 'o', 60)\")\n"
    )
    with psycopg.connect(url_of(shop)) as blocker:
        blocker.execute("SELECT FROM loyalty.accounts FOR NO KEY UPDATE")
        with subprocess.Popen([sys.executable, "-c", call, url_of(shop)]) as process:
            waits = (
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dies' AND wait_event_type = 'Lock' "
                "AND datname = current_database()"
            )
            while not shop.value(waits):
                pass
            os.kill(process.pid, signal.SIGKILL)
    while shop.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dies'"):
        pass
    assert shop.balance() in {40, 100}
    assert Checkout(shop.engine).redeem("o", 60) == ("o", 60, 100, 40)
    assert shop.entries() == [("earned", 100), ("redeemed", -60)]
    assert shop.problems() == []
