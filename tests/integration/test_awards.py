"""Awarding, order by order."""

import pytest

from tests.shop import Shop


def test_a_paid_order_earns_its_points_once(shop: Shop) -> None:
    shop.order("1", "19.99")
    report = shop.award()
    assert shop.entries() == [("earned", 19)]
    assert report.total("orders_changed") == 1
    shop.order("1", "19.99")
    shop.award()
    assert shop.entries() == [("earned", 19)]
    assert shop.problems() == []
