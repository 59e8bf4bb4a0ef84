"""A shop whose verification route and webhook race, with faults: after reconciling, its customers have what they paid for.

SUBSCRIPTION_SEED chooses another history.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.fix_plans_run import apply_fixes
from loyalty_pipelines.db.subscriptions_run import check
from tests.shop import Shop
from tests.subscription_shop import SubscriptionShop, open_by_merchant

SEED = int(os.environ.get("SUBSCRIPTION_SEED", "1"))
CUSTOMERS = 200
MERCHANT = "seller"


@dataclass(frozen=True, kw_only=True)
class Buyer:
    """Who buys what: `fate` of the payment; `at`: when, older than any grace period; many at the same second."""

    number: int
    plan: str
    fate: str
    at: datetime

    @property
    def price(self) -> int:
        return {"basic": 30, "pro": 50}[self.plan]


class Crash(Exception):
    """The shop's process is gone."""


LOCK_ORDER = "SELECT 1 FROM sample_shop.orders WHERE merchant_id = 'seller' AND id = :order FOR UPDATE"
PAY_ORDER = """
UPDATE sample_shop.orders SET status = 'paid', paid_at = :at, updated_at = :at
WHERE merchant_id = 'seller' AND id = :order AND status = 'pending'
"""
CAPTURE = """
INSERT INTO sample_shop.payments
    (merchant_id, id, order_id, customer_id, amount, currency, status, captured_at, period_start, period_end, created_at, updated_at)
VALUES ('seller', :payment, :order, :customer, :price, 'EUR', 'captured', :at, :at, :until, :at, :at)
ON CONFLICT DO NOTHING
"""
HAS_SUBSCRIPTION = "SELECT count(*) FROM sample_shop.subscriptions WHERE merchant_id = 'seller' AND order_id = :order"
SUBSCRIBE = """
INSERT INTO sample_shop.subscriptions
    (merchant_id, customer_id, plan_id, order_id, status, price, currency, period_start, period_end, created_at, updated_at)
SELECT 'seller', :customer, :plan, :order, 'active', CAST(:price AS numeric), 'EUR', CAST(:at AS timestamptz),
    CAST(:until AS timestamptz), CAST(:at AS timestamptz), CAST(:at AS timestamptz)
FROM sample_shop.orders WHERE merchant_id = 'seller' AND id = :order AND status = 'paid'
"""
GIVE_BACK = [
    "UPDATE sample_shop.payments SET status = 'refunded', refunded = amount WHERE merchant_id = 'seller' AND id = :payment",
    "UPDATE sample_shop.orders SET status = 'refunded' WHERE merchant_id = 'seller' AND id = :order",
    "UPDATE sample_shop.subscriptions SET status = 'cancelled', cancelled_at = now() "
    "WHERE merchant_id = 'seller' AND order_id = :order",
]


def values(buyer: Buyer) -> dict[str, Any]:
    return {
        "order": f"o{buyer.number}",
        "payment": f"p{buyer.number}",
        "customer": f"c{buyer.number}",
        "plan": buyer.plan,
        "price": buyer.price,
        "at": buyer.at,
        "until": buyer.at + timedelta(days=30),
    }


def deliver(engine: Engine, buyer: Buyer, *, is_careful: bool, crashes: bool, pause: float) -> None:
    """Do what route and webhook both do: note the payment, then make the subscription if the order has none.

    The careful shop locks the order for that; the careless one looks, and then writes.
    """
    bound = values(buyer)
    with engine.begin() as conn:
        conn.execute(text(LOCK_ORDER), bound)
        conn.execute(text(PAY_ORDER), bound)
        conn.execute(text(CAPTURE), bound)
    if crashes:
        raise Crash
    with engine.begin() as conn:
        if is_careful:
            conn.execute(text(LOCK_ORDER), bound)
        if conn.execute(text(HAS_SUBSCRIPTION), bound).scalar_one() == 0:
            time.sleep(pause)
            conn.execute(text(SUBSCRIBE), bound)


def give_back(engine: Engine, buyer: Buyer) -> None:
    with engine.begin() as conn:
        conn.execute(text(LOCK_ORDER), values(buyer))
        for statement in GIVE_BACK:
            conn.execute(text(statement), values(buyer))


def buyers(rng: random.Random, now: datetime) -> list[Buyer]:
    seconds = [now.replace(microsecond=0) - timedelta(minutes=rng.randint(20, 50)) for _ in range(10)]
    fates = ["paid"] * 8 + ["given back", "failed"]
    return [
        Buyer(number=number, plan=rng.choice(["basic", "pro"]), fate=rng.choice(fates), at=rng.choice(seconds))
        for number in range(CUSTOMERS)
    ]


def open_shop(shop: Shop, everybody: list[Buyer]) -> None:
    s = SubscriptionShop(shop, MERCHANT)
    s.merchant()
    s.plan()
    s.plan("pro", 50)
    s.settings(max_fixes=10_000, max_money=1_000_000)
    with shop.engine.begin() as conn:
        for buyer in everybody:
            conn.execute(
                text("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('seller', :customer)"), values(buyer)
            )
            conn.execute(
                text(
                    "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, plan_id, "
                    "created_at, updated_at) VALUES ('seller', :order, :customer, :price, 'EUR', :status, :plan, :at, :at)"
                ),
                {**values(buyer), "status": "failed" if buyer.fate == "failed" else "pending"},
            )
            if buyer.fate == "failed":
                conn.execute(text(CAPTURE.replace("'captured'", "'failed'")), values(buyer))


def deliveries(rng: random.Random, everybody: list[Buyer], *, has_faults: bool) -> list[tuple[Buyer, bool]]:
    """Return who is delivered in which order, and whether the shop crashes on the way: route and webhook of each."""
    planned: list[tuple[float, Buyer, bool]] = []
    for buyer in everybody:
        if buyer.fate == "failed":
            continue
        fault = rng.choice(["none", "lost", "both lost", "twice", "late", "crash", "both crash"]) if has_faults else "none"
        when = rng.random()
        for attempt in range({"lost": 1, "both lost": 1, "twice": 4}.get(fault, 2)):
            # The payment itself is always known: that is what a provider's list of payments is for.
            crashes = fault in ("both lost", "both crash") or (fault == "crash" and attempt == 0)
            delay = rng.random() if fault == "late" and attempt else 0.001 * attempt
            planned.append((when + delay, buyer, crashes))
    return [(buyer, crashes) for _, buyer, crashes in sorted(planned, key=lambda one: (one[0], one[1].number))]


def run_shop(engine: Engine, rng: random.Random, everybody: list[Buyer], *, is_careful: bool, has_faults: bool) -> None:
    """Let the shop handle everything in eight threads."""

    def handle(one: tuple[Buyer, bool]) -> None:
        buyer, crashes = one
        with suppress(Crash):
            deliver(engine, buyer, is_careful=is_careful, crashes=crashes, pause=0 if is_careful else 0.002)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(handle, deliveries(rng, everybody, has_faults=has_faults)))
        returned = [one for one in everybody if one.fate == "given back"]
        list(pool.map(lambda one: give_back(engine, one), returned))
        # A webhook that comes once more, after all is over.
        again = rng.sample(returned, len(returned) // 2) if has_faults else []
        list(pool.map(handle, [(one, False) for one in again]))


def reconcile(engine: Engine, *, is_full: bool) -> None:
    for one in check(engine, [MERCHANT], is_full=is_full):
        assert one.failure is None
    # Fixes of one customer go one after the other, each after asking again.
    for _ in range(5):
        applied = 0
        for done in apply_fixes(engine, [MERCHANT], is_dry_run=False, actor="test"):
            assert done.failure is None, done.failure
            applied += done.applied
        if not applied:
            break


def live(shop: Shop) -> dict[str, tuple[Any, ...]]:
    """Return what each customer has: live subscriptions with plan, status and period."""
    rows = shop.rows(
        "SELECT customer_id, count(*), min(plan_id), max(plan_id), min(status), min(period_start), max(period_end) "
        "FROM sample_shop.subscriptions WHERE merchant_id = 'seller' AND status = 'active' GROUP BY customer_id"
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def without_faults(everybody: list[Buyer]) -> dict[str, tuple[Any, ...]]:
    return {
        f"c{one.number}": (1, one.plan, one.plan, "active", one.at, one.at + timedelta(days=30))
        for one in everybody
        if one.fate == "paid"
    }


@pytest.fixture
def busy_engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url, pool_size=14)
    yield engine
    engine.dispose()


def started(shop: Shop, seed: int) -> tuple[random.Random, list[Buyer]]:
    rng = random.Random(seed)
    everybody = buyers(rng, shop.value("SELECT now()"))
    open_shop(shop, everybody)
    for _ in check(shop.engine, is_full=True):
        pass
    return rng, everybody


def test_a_shop_without_faults_needs_no_repair(shop: Shop, busy_engine: Engine):
    rng, everybody = started(shop, SEED)
    run_shop(busy_engine, rng, everybody, is_careful=True, has_faults=False)
    assert live(shop) == without_faults(everybody)
    before = shop.rows("SELECT * FROM sample_shop.subscriptions ORDER BY id")
    reconcile(busy_engine, is_full=False)
    assert shop.rows("SELECT * FROM sample_shop.subscriptions ORDER BY id") == before
    assert open_by_merchant(shop) == {}
    assert shop.value("SELECT count(*) FROM loyalty.fix_plans") == 0


@pytest.mark.parametrize("is_careful", [True, False], ids=["careful", "careless"])
def test_after_reconciling_everybody_has_what_a_shop_without_faults_would_have_given(
    shop: Shop, busy_engine: Engine, is_careful: bool
):
    rng, everybody = started(shop, SEED)
    run_shop(busy_engine, rng, everybody, is_careful=is_careful, has_faults=True)
    assert live(shop) != without_faults(everybody), f"seed {SEED}: no fault did anything"
    reconcile(busy_engine, is_full=False)
    assert live(shop) == without_faults(everybody), f"seed {SEED}"
    for _ in check(busy_engine, is_full=True):
        pass
    assert open_by_merchant(shop) == {}, f"seed {SEED}"
    # A second time there is nothing to do.
    before = shop.rows("SELECT * FROM sample_shop.subscriptions ORDER BY id")
    reconcile(busy_engine, is_full=True)
    assert shop.rows("SELECT * FROM sample_shop.subscriptions ORDER BY id") == before


def at_work(work: Callable[[], None], reconciling: Callable[[], None]) -> None:
    """Reconcile again and again while the shop works; what either raises fails the test."""
    is_over = threading.Event()
    errors: list[BaseException] = []

    def again_and_again() -> None:
        try:
            while not is_over.is_set():
                reconciling()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=again_and_again)
    thread.start()
    try:
        work()
    finally:
        is_over.set()
        thread.join()
    assert errors == []


@pytest.mark.parametrize("is_careful", [True, False], ids=["careful", "careless"])
def test_reconciling_while_the_shop_is_at_work_makes_no_second_subscription(
    shop: Shop, busy_engine: Engine, is_careful: bool
):
    rng, everybody = started(shop, SEED + 1)
    at_work(
        lambda: run_shop(busy_engine, rng, everybody, is_careful=is_careful, has_faults=True),
        lambda: reconcile(busy_engine, is_full=False),
    )
    if is_careful:
        twice = shop.rows(
            "SELECT order_id FROM sample_shop.subscriptions WHERE merchant_id = 'seller' GROUP BY 1 HAVING count(*) > 1"
        )
        assert twice == [], f"seed {SEED + 1}"
    reconcile(busy_engine, is_full=True)
    assert live(shop) == without_faults(everybody), f"seed {SEED + 1}"
    for _ in check(busy_engine, is_full=True):
        pass
    assert open_by_merchant(shop) == {}, f"seed {SEED + 1}"


def test_two_reconciliations_at_once_do_what_one_does(shop: Shop, busy_engine: Engine):
    rng, everybody = started(shop, SEED + 2)
    run_shop(busy_engine, rng, everybody, is_careful=False, has_faults=True)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: reconcile(busy_engine, is_full=False), range(3)))
    assert live(shop) == without_faults(everybody), f"seed {SEED + 2}"


