"""The demo's subscriptions: what the comparison finds in them, and nothing else."""

from collections import Counter

import pytest
from sqlalchemy import Engine

from loyalty_pipelines.db import demo
from loyalty_pipelines.db.fix_plans_run import apply_fixes
from loyalty_pipelines.domain.subscriptions import BY_CODE
from tests.shop import Shop
from tests.subscription_shop import compared, found


def make_demo(shop: Shop, *, merchants: int, orders: int = 300) -> int:
    """Add subscriptions and orders, as the demo does, and award them; return how many orders are of plans."""
    with shop.engine.begin() as conn:
        demo.prepare(conn, merchants=merchants)
        added = demo.add_subscriptions(conn, merchants=merchants)
        demo.add_orders(conn, orders=orders, merchants=merchants)
    shop.drain()
    return added


@pytest.mark.parametrize("merchants", [1, 20])
def test_the_demo_has_one_mismatch_of_each_of_its_classes_and_no_other(engine: Engine, merchants: int) -> None:
    shop = Shop(engine)
    assert make_demo(shop, merchants=merchants) == 200
    for digit in range(10):
        with engine.begin() as conn:
            demo.late_payments(conn, digit=digit)
    with engine.begin() as conn:
        cancelled, refunded = demo.cancellations_and_refunds(conn)
    assert min(cancelled, refunded) > 0
    shop.drain()
    compared(shop, as_of=None)
    assert Counter(name for name, *_ in found(shop)) == Counter(demo.MISMATCHES)
    assert {name: one.policy for (name, *_), one in found(shop).items()} == {
        name: BY_CODE[name].policy for name in demo.MISMATCHES
    }
    assert all(one.amount_at_risk > 0 for one in found(shop).values())
    assert len({(one.object_type, one.object_id) for one in found(shop).values()}) == 6


def test_a_second_demo_adds_no_subscriptions_and_breaks_nothing_that_was_fixed(engine: Engine) -> None:
    shop = Shop(engine)
    make_demo(shop, merchants=3)
    compared(shop, as_of=None)
    done = list(apply_fixes(engine, None, is_dry_run=False, actor="test"))
    assert sum(one.applied for one in done) == 2
    left = set(found(shop))
    assert len(left) == 4
    assert make_demo(shop, merchants=5) == 0
    compared(shop, as_of=None)
    assert set(found(shop)) == left
