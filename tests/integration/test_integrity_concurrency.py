"""Proofs while others write: an honest ledger is never found wrong, and what is wrong is found all the same."""

import multiprocessing
import random
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event

import pytest
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db.drain import DrainOptions, drain
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.domain.expiry import ExpiryOptions
from tests.expiry import NO_LIMITS
from tests.integrity import found, proved
from tests.shop import Shop

WRITERS = 4
ROUNDS = 200
# Of what a writer may be refused: too few points, another customer's order, what is given back already.
REFUSED = ("LP002", "LP003", "LP008", "LP009", "LP010", "LP011")


def write(url: str, number: int, stop: Event) -> None:
    """Pay, cancel, refund, award, reserve, redeem, release and expire until told to stop."""
    engine = connect(url)
    chance = random.Random(number)
    shop = Shop(engine)
    while not stop.is_set():
        merchant, customer = chance.choice(("m1", "m2")), f"c{chance.randrange(8)}"
        order = f"o{chance.randrange(40)}"
        step = chance.randrange(8)
        try:
            if step < 3:
                shop.order(order, chance.choice(("10", "250", "19.99")), customer=customer, merchant=merchant,
                           status=chance.choice(("paid", "paid", "cancelled", "pending")))  # fmt: skip
                drain(engine, options=DrainOptions(batch_size=chance.choice((1, 100))), actor=f"writer {number}")
            elif step == 3:
                shop.refund(order, 5, merchant=merchant)
            elif step == 4:
                shop.run("SELECT loyalty.redeem_points(:m, :c, :o, 3)", m=merchant, c=customer, o=f"r{order}")
            elif step == 5:
                shop.run("SELECT loyalty.reserve_points(:m, :c, :o, 4)", m=merchant, c=customer, o=f"h{order}")
            elif step == 6:
                function = chance.choice(("release_points", "capture_points"))
                shop.run(f"SELECT loyalty.{function}(:m, :o)", m=merchant, o=chance.choice((f"r{order}", f"h{order}")))
            else:
                options = ExpiryOptions(is_warning_required=False, limits=NO_LIMITS)
                list(expire_merchants(engine, [merchant], options=options, actor="night"))
        except DBAPIError as refused:
            if getattr(refused.orig, "sqlstate", None) not in REFUSED:
                raise
    engine.dispose()


@contextmanager
def writers(url: str) -> Iterator[list[BaseProcess]]:
    """Processes that write until the end of the block; each must have lived until then."""
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    running = [spawn.Process(target=write, args=(url, number, stop), daemon=True) for number in range(WRITERS)]
    for one in running:
        one.start()
    try:
        yield list(running)
    finally:
        stop.set()
        for one in running:
            one.join(60)
    assert [one.exitcode for one in running] == [0] * WRITERS


@pytest.fixture
def busy(shop: Shop) -> Shop:
    shop.program(points_expiration_days=30, stamps_per_order=1, stamp_target=3, welcome_bonus_points=2)
    shop.merchant("m2", points_expiration_days=30, clawback="allow_negative")
    return shop


def test_200_proofs_beside_four_writers_find_nothing_and_the_201st_finds_a_lie(busy: Shop, database_url: str) -> None:
    # Nobody writes to this one: an entry on a balance that was lied about would be another lie.
    busy.order("quiet", 10, customer="quiet")
    busy.award()
    entries = set()
    with writers(database_url) as running:
        while busy.value("SELECT count(*) FROM loyalty.ledger_entries") < 50:
            assert all(one.is_alive() for one in running)
        for number in range(ROUNDS):
            proved(busy, is_full=number % 4 == 0)
            assert found(busy, is_closed_too=True) == []
            entries.add(busy.value("SELECT count(*) FROM loyalty.ledger_entries"))
        assert all(one.is_alive() for one in running)
        busy.run("UPDATE loyalty.accounts SET balance = balance + 1 WHERE customer_id = 'quiet'")
        proved(busy)
        assert "balance_differs" in {one.class_name for one in found(busy)}
    # They did write, all the time.
    assert len(entries) > ROUNDS / 4
    assert busy.value("SELECT count(DISTINCT kind) FROM loyalty.ledger_entries") >= 5
    busy.run("UPDATE loyalty.accounts SET balance = balance - 1 WHERE customer_id = 'quiet'")
    assert busy.problems() == []
