"""Orders that break the statement they are in: each ends alone in the queue, everything else is awarded."""

import pytest
from sqlalchemy import text

from loyalty_pipelines.db import sample_shop, sources, sweep
from loyalty_pipelines.db.drain import POISON_LIMIT, drain
from loyalty_pipelines.domain.source_mapping import parse_mapping
from tests.shop import Shop


def map_over(shop: Shop, view: str) -> None:
    """Map the orders of the sample shop over a view that the shop has made of them."""
    yaml = sample_shop.mapping().yaml_text
    yaml = yaml.replace("relation: sample_shop.orders", "relation: sample_shop.shown_orders")
    yaml = yaml.replace("capture: trigger", "capture: poll")
    for line in ("plan_id: plan_id", "discount_amount: discount", "points_discount_amount: points_discount"):
        yaml = yaml.replace(f"    {line}\n", "", 1)
    with shop.engine.begin() as conn:
        conn.execute(text(f"CREATE VIEW sample_shop.shown_orders AS {view}"))
        sources.apply(conn, parse_mapping(yaml))


# A shop that shows its totals in another way: the division raises for one order, the cast for another.
TOTALS = """
SELECT merchant_id, id, customer_id, {total} AS total, points_redeemed, currency, status, paid_at, updated_at
FROM sample_shop.orders
"""


def many_orders(shop: Shop, count: int, *, merchant: str = "m1") -> None:
    """Write `count` paid orders of 10 over 97 customers and note them."""
    shop.run(
        "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at) "
        "SELECT :merchant, n::text, 'c' || n % 97, 10, 'EUR', 'paid', now() FROM generate_series(1, :count) AS n",
        merchant=merchant,
        count=count,
    )
    note_all(shop, merchant)


def note_all(shop: Shop, merchant: str = "m1") -> None:
    shop.run("DELETE FROM loyalty.order_inbox WHERE merchant_id = :merchant", merchant=merchant)
    shop.run(
        "INSERT INTO loyalty.order_inbox (merchant_id, customer_id, order_id, source) "
        "SELECT merchant_id, customer_id, id, 'test' FROM sample_shop.orders WHERE merchant_id = :merchant",
        merchant=merchant,
    )


def points(shop: Shop, merchant: str = "m1") -> int:
    return shop.value(
        "SELECT coalesce(sum(balance), 0) FROM loyalty.accounts WHERE merchant_id = :merchant", merchant=merchant
    )


def test_one_amount_that_is_no_number_among_ten_thousand_waits_in_the_queue_alone(shop: Shop) -> None:
    many_orders(shop, 10_000)
    shop.change("5000", total="NaN")
    report = shop.award()
    assert points(shop) == 99_990
    assert shop.queued() == {"5000": "amount_invalid"}
    assert (report.total("orders_changed"), report.total("orders_queued"), shop.inbox()) == (9_999, 1, 0)
    assert shop.problems() == []


@pytest.mark.parametrize(
    ("total", "message"),
    [
        ("10 * total / CASE WHEN id = '1000' THEN 0 ELSE 10 END", "division by zero"),
        ("CAST(CASE WHEN id = '1000' THEN 'ten' ELSE '10' END AS numeric)", "invalid input syntax"),
        ("CAST(CASE WHEN id = '1000' THEN CAST('NaN' AS numeric) ELSE 10 END AS bigint)", "cannot convert NaN"),
        ("(SELECT t FROM generate_series(10, CASE WHEN id = '1000' THEN 11 ELSE 10 END) AS t)", "more than one row"),
        ("repeat('9', CASE WHEN id = '1000' THEN 200000 ELSE 0 END)::numeric", "overflow"),
    ],
)
def test_one_order_that_raises_among_two_thousand_waits_in_the_queue_with_its_reason(
    shop: Shop, total: str, message: str
) -> None:
    if total.startswith("repeat"):
        total = f"CASE WHEN id = '1000' THEN {total} ELSE 10 END"
    map_over(shop, TOTALS.format(total=total))
    many_orders(shop, 2_000)
    report = shop.drain()
    assert report.failures == {}
    assert points(shop) == 19_990
    assert shop.queued() == {"1000": "database_error"}
    assert message in shop.value("SELECT detail FROM loyalty.reconciliation_queue")
    assert (report.total("orders_changed"), report.total("orders_queued"), shop.inbox()) == (1_999, 1, 0)
    assert shop.value("SELECT sum(rows_claimed) FROM loyalty.award_batches") == 2_000
    assert shop.problems() == []


def test_an_error_raised_by_the_shops_own_function_is_of_one_order_too(shop: Shop) -> None:
    shop.run(
        "CREATE FUNCTION sample_shop.checked(id text, total numeric) RETURNS numeric LANGUAGE plpgsql STABLE AS "
        "$$ BEGIN IF id IN ('7', '8', '900') THEN RAISE 'order % is locked', id; END IF; RETURN total; END $$"
    )
    map_over(shop, TOTALS.format(total="sample_shop.checked(id, total)"))
    many_orders(shop, 1_000)
    assert shop.drain(batch_size=300).failures == {}
    assert points(shop) == 9_970
    assert sorted(shop.queued()) == ["7", "8", "900"]
    assert shop.problems() == []


def test_poison_is_found_alone_also_when_orders_are_awarded_one_by_one(shop: Shop) -> None:
    map_over(shop, TOTALS.format(total="10 * total / CASE WHEN id = '5' THEN 0 ELSE 10 END"))
    many_orders(shop, 20)
    assert shop.drain(batch_size=1).failures == {}
    assert (points(shop), shop.queued()) == (190, {"5": "database_error"})
    assert shop.problems() == []


def test_a_merchant_whose_poison_not_even_the_queue_takes_fails_and_ends(shop: Shop) -> None:
    shop.merchant("m0")
    shop.run("ALTER TABLE loyalty.reconciliation_queue ADD CONSTRAINT no_fives CHECK (order_id <> '5')")
    map_over(shop, TOTALS.format(total="10 * total / CASE WHEN id = '5' AND merchant_id = 'm1' THEN 0 ELSE 10 END"))
    for merchant in ("m0", "m1"):
        many_orders(shop, 20, merchant=merchant)
    report = shop.drain()
    assert list(report.failures) == ["m1"]
    assert "no_fives" in report.failures["m1"]
    assert (points(shop, "m0"), shop.queued()) == (200, {})
    assert points(shop) + 10 * shop.inbox() == 200
    assert shop.problems() == []


def test_poison_is_awarded_like_any_order_once_its_cause_is_gone(shop: Shop) -> None:
    map_over(shop, TOTALS.format(total="10 * total / CASE WHEN id = '5' THEN 0 ELSE 10 END"))
    many_orders(shop, 10)
    shop.drain()
    note_all(shop)
    shop.drain()
    assert shop.value("SELECT attempts FROM loyalty.reconciliation_queue") == 2
    shop.run("CREATE OR REPLACE VIEW sample_shop.shown_orders AS " + TOTALS.format(total="total"))
    note_all(shop)
    shop.award()
    assert (points(shop), shop.queued()) == (100, {})
    assert shop.problems() == []


def test_a_dry_run_over_poison_goes_on_behind_it_and_writes_nothing(shop: Shop) -> None:
    map_over(shop, TOTALS.format(total="10 * total / CASE WHEN id = '5' THEN 0 ELSE 10 END"))
    many_orders(shop, 50)
    report = shop.drain(is_dry_run=True)
    assert (report.total("orders_changed"), report.total("orders_queued")) == (49, 1)
    assert (report.failures, shop.queued(), shop.inbox(), points(shop)) == ({}, {}, 50, 0)
    assert shop.problems() == []


@pytest.mark.parametrize("status", ["'paid'", "CASE WHEN part = 1 THEN 'paid' ELSE 'pending' END", "'pending'"])
def test_an_order_that_the_shop_shows_twice_waits_in_the_queue(shop: Shop, status: str) -> None:
    shop.order("double", "10")
    shop.order("other", "20", customer="bob")
    map_over(
        shop,
        f"SELECT merchant_id, id, customer_id, total / part AS total, points_redeemed, currency, {status} AS status, "
        "paid_at, updated_at FROM sample_shop.orders, generate_series(1, CASE WHEN id = 'double' THEN 2 ELSE 1 END) "
        "AS part WHERE id = 'double' OR true",
    )
    if status == "'pending'":
        shop.run("DELETE FROM loyalty.order_inbox WHERE order_id = 'other'")
    report = shop.drain()
    assert report.failures == {}
    assert shop.queued() == {"double": "order_ambiguous"}
    assert "shows the order 2 times" in shop.value("SELECT detail FROM loyalty.reconciliation_queue")
    assert shop.entries() == []
    if status == "'paid'":
        assert shop.balance("bob") == 20
    assert shop.inbox() == 0
    assert shop.problems() == []


# The rows of sample_shop.orders, with one more of order 2 for each row of sample_shop.again.
SHOWN_AGAIN = """
SELECT o.merchant_id, o.id, coalesce(a.customer_id, o.customer_id) AS customer_id, coalesce(a.total, o.total) AS total,
    o.points_redeemed, o.currency, o.status, o.paid_at, o.updated_at
FROM sample_shop.orders AS o
LEFT JOIN (
    SELECT NULL::text AS id, NULL::text AS customer_id, NULL::numeric AS total
    UNION ALL SELECT * FROM sample_shop.again
) AS a ON a.id IS NULL OR a.id = o.id
"""


@pytest.mark.parametrize("customer", ["ann", "bob"])
def test_an_awarded_order_that_is_shown_twice_keeps_its_points_until_it_is_shown_once(
    shop: Shop, customer: str
) -> None:
    shop.run("CREATE TABLE sample_shop.again (id text, customer_id text, total numeric)")
    map_over(shop, SHOWN_AGAIN)
    shop.order("1", "3.00")
    shop.order("2", "5.00")
    note_all(shop)
    shop.award()
    shop.run("INSERT INTO sample_shop.again VALUES ('2', :customer, 7)", customer=customer)
    for _ in range(3):
        with shop.engine.begin() as conn:
            sweep.enqueue_differences(conn, "m1")
        assert shop.award().total("orders_queued") == 1
        assert (shop.balance(), shop.entries("bob")) == (8, [])
        assert shop.queued() == {"2": "order_ambiguous"}
    with shop.engine.begin() as conn:
        assert sweep.count_differences(conn, "m1").orders == 0
    shop.run("DELETE FROM sample_shop.again")
    shop.run("UPDATE sample_shop.orders SET total = 6 WHERE id = '2'")
    with shop.engine.begin() as conn:
        assert sweep.enqueue_differences(conn, "m1") == 1
    shop.award()
    assert (shop.balance(), shop.queued()) == (9, {})
    assert shop.problems() == []


def test_an_order_that_moved_between_customers_is_not_taken_for_one_that_is_shown_twice(shop: Shop) -> None:
    shop.order("1", "5.00")
    shop.award()
    shop.change("1", customer_id="bob")
    shop.award()
    shop.enqueue("1")
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob"), shop.queued()) == (0, 5, {})
    assert shop.problems() == []


def test_one_order_that_waits_many_times_is_one_poisoned_order(shop: Shop) -> None:
    map_over(shop, TOTALS.format(total="10 * total / CASE WHEN id = '5' THEN 0 ELSE 10 END"))
    many_orders(shop, 20)
    for _ in range(POISON_LIMIT + 20):
        shop.enqueue("5")
    assert shop.drain().failures == {}
    assert (points(shop), shop.queued(), shop.inbox()) == (190, {"5": "database_error"}, 0)


def test_a_cause_that_all_orders_share_stops_only_its_merchant_and_keeps_the_rest_in_the_inbox(shop: Shop) -> None:
    shop.merchant("m0")
    shop.merchant("m2")
    map_over(shop, TOTALS.format(total="total / CASE WHEN merchant_id = 'm1' THEN 0 ELSE 1 END"))
    for merchant in ("m0", "m1", "m2"):
        many_orders(shop, 500, merchant=merchant)
    report = shop.drain(batch_size=100)
    assert list(report.failures) == ["m1"]
    for part in ("orders failed with a database error", "division by zero", "reconciliation_queue", "'m1'"):
        assert part in report.failures["m1"]
    assert (points(shop, "m0"), points(shop), points(shop, "m2")) == (5_000, 0, 5_000)
    assert len(shop.queued()) == POISON_LIMIT + 1
    assert shop.inbox() == 500 - (POISON_LIMIT + 1)
    assert report.merchants["m1"].orders_queued == POISON_LIMIT + 1
    assert shop.problems() == []


@pytest.mark.parametrize(
    "body", ["RETURN (SELECT total FROM sample_shop.gone)", "RAISE insufficient_privilege", "PERFORM 1 / 0; RETURN 1"]
)
def test_a_merchant_whose_source_is_broken_does_not_hide_the_others(shop: Shop, body: str) -> None:
    shop.merchant("m0")
    shop.run(
        "CREATE FUNCTION sample_shop.total_of(merchant text, total numeric) RETURNS numeric LANGUAGE plpgsql AS "
        f"$$ BEGIN IF merchant = 'm1' THEN {body}; END IF; RETURN total; END $$"
    )
    map_over(shop, TOTALS.format(total="sample_shop.total_of(merchant_id, total)"))
    for merchant in ("m0", "m1"):
        many_orders(shop, 200, merchant=merchant)
    report = shop.drain()
    assert list(report.failures) == ["m1"]
    assert "SELECT" not in report.failures["m1"]
    assert points(shop, "m0") == 2_000
    is_about_orders = "1 / 0" in body
    assert shop.inbox() == (200 - POISON_LIMIT - 1 if is_about_orders else 200)
    assert (shop.queued() != {}) is is_about_orders
    assert shop.problems() == []


def test_an_error_in_the_merchants_own_row_blames_no_order(shop: Shop) -> None:
    shop.merchant("m0")
    shop.run("ALTER TABLE sample_shop.merchants RENAME TO real_merchants")
    shop.run(
        "CREATE VIEW sample_shop.merchants AS SELECT id, name, timezone, locale, is_active, "
        "CASE WHEN 1 / (CASE WHEN id = 'm1' THEN 0 ELSE 1 END) = 1 THEN currency END AS currency "
        "FROM sample_shop.real_merchants"
    )
    with shop.engine.begin() as conn:
        sources.apply(conn, sample_shop.mapping())
    shop.order("1", "10")
    shop.order("1", "10", merchant="m0")
    report = shop.drain()
    assert report.failures == {"m1": "division by zero"}
    assert (shop.inbox(), shop.queued(), shop.balance(merchant="m0")) == (1, {}, 10)
    assert shop.problems() == []


def test_a_failure_of_one_merchant_is_told_without_the_statement_and_its_parameters(shop: Shop) -> None:
    shop.order("1", "10", customer="ann@example.org")
    shop.run("ALTER TABLE loyalty.order_points RENAME TO moved_away")
    report = drain(shop.engine, actor="test")
    assert list(report.failures) == ["m1"]
    assert "order_points" in report.failures["m1"]
    assert "ann@example.org" not in report.failures["m1"]
