"""Orders that no trigger brought: the sweep and polling find them."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from loyalty_pipelines.db import capture, sample_shop, sources, sweep, sweep_run
from loyalty_pipelines.domain.source_mapping import parse_mapping
from tests.integration.test_awards_hostile import LONG
from tests.shop import Shop

OVERLAP = timedelta(minutes=10)


def without_triggers(shop: Shop) -> None:
    """Switch the capture triggers off, as a bulk load or a careless migration does."""
    shop.run("ALTER TABLE sample_shop.orders DISABLE TRIGGER ALL")
    shop.run("ALTER TABLE sample_shop.refunds DISABLE TRIGGER ALL")


def swept(
    engine: Engine, merchant_id: str = "m1", *, paid_from: datetime | None = None, paid_to: datetime | None = None
) -> int:
    """Run the sweep of one merchant and return how many orders it enqueued."""
    with engine.begin() as conn:
        return sweep.enqueue_differences(conn, merchant_id, paid_from=paid_from, paid_to=paid_to)


def polled(engine: Engine) -> int:
    """Poll once and return how many orders were enqueued."""
    with engine.begin() as conn:
        return capture.poll(conn, overlap=OVERLAP)


def test_the_sweep_finds_orders_that_no_trigger_saw(shop: Shop) -> None:
    without_triggers(shop)
    shop.order("1", "10.00")
    shop.order("2", "5.00", customer="bob")
    shop.order("3", "5.00", status="pending")
    shop.order("4", "5.00", customer=None)
    assert swept(shop.engine) == 2
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob")) == (10, 5)
    assert shop.problems() == []


def test_the_sweep_finds_nothing_once_everything_is_awarded(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.order("2", "NaN")
    shop.award()
    assert swept(shop.engine) == 0


def test_the_sweep_finds_a_cancellation_that_no_trigger_saw(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    without_triggers(shop)
    shop.set_status("1", "cancelled")
    assert swept(shop.engine) == 1
    shop.award()
    assert shop.entries() == [("earned", 10), ("reversed", -10)]


def test_the_sweep_finds_a_refund_that_no_trigger_saw(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    without_triggers(shop)
    shop.refund("1", "4.00")
    assert swept(shop.engine) == 1
    shop.award()
    assert shop.balance() == 6


def test_the_sweep_finds_an_order_that_moved_to_another_customer(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    without_triggers(shop)
    shop.order("1", "10.00", customer="bob")
    assert swept(shop.engine) == 1
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 10)
    assert swept(shop.engine) == 0


def test_the_sweep_finds_orders_older_than_the_installation_and_a_new_programme_for_them(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    shop.program(points_per_unit=2)
    assert swept(shop.engine) == 1
    shop.award()
    assert shop.entries() == [("earned", 10), ("re-earned", 10)]


def test_the_sweep_of_a_period_leaves_other_orders_alone(shop: Shop) -> None:
    without_triggers(shop)
    shop.order("1", "10.00", paid_at="2025-01-31 23:59:59+00")
    shop.order("2", "20.00", paid_at="2025-02-01 00:00:00+00")
    shop.order("3", "40.00", paid_at="2025-03-01 00:00:00+00")
    from_february, to_march = datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)
    assert swept(shop.engine, paid_from=from_february, paid_to=to_march) == 1
    shop.award()
    assert shop.balance() == 20


def test_the_sweep_of_one_merchant_leaves_the_others_alone(shop: Shop) -> None:
    shop.merchant("m2")
    without_triggers(shop)
    shop.order("1", "10.00")
    shop.order("1", "20.00", merchant="m2")
    assert swept(shop.engine, "m2") == 1
    shop.award()
    assert (shop.balance(), shop.balance(merchant="m2")) == (0, 20)


def test_differences_tell_what_a_sweep_would_do_without_doing_it(shop: Shop) -> None:
    without_triggers(shop)
    shop.order("1", "10.00")
    with shop.engine.connect() as conn:
        found = sweep.count_differences(conn, "m1")
    assert (found.orders_paid, found.points_paid, found.examples) == (1, 10, ("1",))
    assert shop.value("SELECT count(*) FROM loyalty.order_inbox") == 0


def test_an_order_that_was_paid_a_moment_ago_is_not_counted_as_late(shop: Shop) -> None:
    without_triggers(shop)
    shop.order("1", "10.00")
    with shop.engine.connect() as conn:
        late = sweep.count_differences(conn, "m1", untouched_for=timedelta(minutes=15))
        all_of_them = sweep.count_differences(conn, "m1", untouched_for=timedelta(minutes=-1))
    assert (late.orders, all_of_them.orders, all_of_them.points_paid) == (0, 1, 10)


@pytest.fixture
def polling(shop: Shop) -> Shop:
    """The shop in poll mode: no triggers."""
    with shop.engine.begin() as conn:
        yaml_text = sample_shop.mapping().yaml_text
        sources.apply(conn, parse_mapping(yaml_text.replace("capture: trigger", "capture: poll")))
    return shop


def test_polling_brings_each_change_once(polling: Shop) -> None:
    polling.order("1", "10.00")
    polling.order("2", "10.00", status="pending")
    assert polled(polling.engine) == 1
    assert polled(polling.engine) == 0, "it waits in the inbox already"
    polling.award()
    assert polled(polling.engine) == 0, "it has its points"
    polling.set_status("2", "paid")
    assert polled(polling.engine) == 1
    polling.award()
    assert polling.balance() == 20


def test_polling_brings_an_order_whose_customers_id_no_index_takes(polling: Shop) -> None:
    polling.order("1", "10.00")
    polling.order("2", "10.00", customer=LONG)
    polling.order("3", "10.00", status="pending")
    assert polled(polling.engine) == 2
    assert polled(polling.engine) == 0, "both wait in the inbox already"
    polling.drain()
    assert polling.balance() == 10
    assert polling.queued() == {"2": "database_error"}


def test_polling_brings_the_order_of_a_refund_once(polling: Shop) -> None:
    polling.order("1", "10.00")
    polled(polling.engine)
    polling.award()
    polling.refund("1", "2.50")
    assert polled(polling.engine) == 1
    polling.award()
    assert polling.balance() == 7
    assert polled(polling.engine) == 0


def test_polling_does_not_bring_a_queued_order_again_until_its_reason_changes(polling: Shop) -> None:
    polling.order("1", "NaN")
    assert polled(polling.engine) == 1
    polling.award()
    assert polled(polling.engine) == 0
    polling.order("1", "10.00")
    assert polled(polling.engine) == 1
    polling.award()
    assert (polling.balance(), polling.queued()) == (10, {})


def test_polling_finds_a_row_that_commits_after_a_later_stamped_row_was_processed(polling: Shop) -> None:
    with polling.engine.connect() as slow:
        slow.exec_driver_sql(
            "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at) "
            "VALUES ('m1', 'slow', 'ann', 100, 'EUR', 'paid', now())"
        )
        polling.order("fast", "10.00")
        polled(polling.engine)
        polling.award()
        assert polling.balance() == 10
        slow.commit()
    assert polled(polling.engine) == 1
    polling.award()
    assert polling.balance() == 110


def test_a_row_that_commits_after_the_overlap_is_found_by_the_sweep(polling: Shop) -> None:
    polled(polling.engine)
    polling.order("late", "10.00")
    polling.run("UPDATE sample_shop.orders SET updated_at = now() - interval '2 hours'")
    assert polled(polling.engine) == 0
    assert swept(polling.engine) == 1
    polling.award()
    assert polling.balance() == 10


def test_polling_brings_an_order_that_raises_once_and_again_when_it_changes(shop_with_a_raising_row: Shop) -> None:
    shop = shop_with_a_raising_row
    polled(shop.engine)
    shop.drain()
    assert polled(shop.engine) == 0, "it is in the queue, the others have their points"
    shop.change("3", total="20.00")
    assert polled(shop.engine) == 1
    shop.refund("bad", "1.00")
    assert polled(shop.engine) == 10, "where one raises, all are brought"
    shop.drain()
    assert polled(shop.engine) == 0
    assert swept(shop.engine) == 10, "the sweep looks at all, so that its cause may go unnoticed by the shop"
    assert (shop.balance(), shop.queued()) == (100, {"bad": "database_error"})


@pytest.fixture
def shop_with_a_raising_row(shop: Shop) -> Shop:
    """The shop in poll mode over a view that raises for the order 'bad', and nine good orders beside it."""
    shop.run(
        "CREATE VIEW sample_shop.order_view AS SELECT merchant_id, id, customer_id, currency, status, paid_at, "
        "points_redeemed, updated_at, plan_id, discount, points_discount, "
        "total / CASE WHEN id = 'bad' THEN 0 ELSE 1 END AS total FROM sample_shop.orders"
    )
    yaml_text = sample_shop.mapping().yaml_text.replace("capture: trigger", "capture: poll")
    with shop.engine.begin() as conn:
        sources.apply(conn, parse_mapping(yaml_text.replace("sample_shop.orders", "sample_shop.order_view")))
    for number in range(9):
        shop.order(str(number), "10.00")
    shop.order("bad", "10.00")
    return shop


@pytest.mark.parametrize("look", [swept, polled])
def test_an_order_that_raises_keeps_no_other_from_being_found(shop_with_a_raising_row: Shop, look) -> None:
    shop = shop_with_a_raising_row
    assert look(shop.engine) == 10
    assert shop.drain().failures == {}
    assert shop.balance() == 90
    assert shop.queued() == {"bad": "database_error"}
    assert shop.problems() == []


def test_an_order_that_moves_while_it_is_cancelled_is_found_by_polling(polling: Shop) -> None:
    polling.order("1", "10.00")
    polled(polling.engine)
    polling.award()
    polling.set_status("1", "cancelled")
    polled(polling.engine)
    polling.award()
    polling.order("1", "10.00", customer="bob")
    assert polled(polling.engine) == 1
    polling.award()
    assert (polling.balance("ann"), polling.balance("bob")) == (0, 10)
    assert polled(polling.engine) == 0


def test_the_queue_item_of_an_order_that_the_shop_deleted_is_closed_by_the_sweep(shop: Shop) -> None:
    shop.order("1", "NaN")
    shop.award()
    assert shop.queued() == {"1": "amount_invalid"}
    shop.run("DELETE FROM sample_shop.orders")
    assert swept(shop.engine) == 0
    shop.award()
    assert shop.queued() == {}
    assert shop.value("SELECT resolution FROM loyalty.reconciliation_queue") == "the order is gone from the shop"


def test_a_refund_of_a_moment_ago_is_not_counted_as_late(shop: Shop) -> None:
    shop.order("1", "10.00", paid_at="2025-01-15 12:00:00+00")
    shop.run("UPDATE sample_shop.orders SET updated_at = paid_at")
    shop.award()
    without_triggers(shop)
    shop.refund("1", "4.00")
    with shop.engine.connect() as conn:
        late = sweep.count_differences(conn, "m1", untouched_for=timedelta(minutes=15))
    assert late.orders == 0


@pytest.fixture
def shop_that_hides_a_merchant(shop: Shop) -> Shop:
    """The shop over a view that refuses everything of m1 for a reason that is in no order, and an order of m2."""
    shop.merchant("m2")
    for merchant in ("m1", "m2"):
        shop.order("1", "10.00", merchant=merchant, paid_at="2025-01-15 12:00:00+00")
    shop.run("UPDATE sample_shop.orders SET updated_at = paid_at")
    shop.run("DELETE FROM loyalty.order_inbox")
    shop.run(
        "CREATE FUNCTION sample_shop.shown(merchant text, total numeric) RETURNS numeric LANGUAGE plpgsql STABLE AS "
        "$$ BEGIN IF merchant = 'm1' THEN RAISE 'no right to m1' USING ERRCODE = '42501'; END IF; RETURN total; END $$"
    )
    shop.run(
        "CREATE VIEW sample_shop.order_view AS SELECT merchant_id, id, customer_id, currency, status, paid_at, "
        "points_redeemed, updated_at, plan_id, discount, points_discount, "
        "sample_shop.shown(merchant_id, total) AS total FROM sample_shop.orders"
    )
    yaml_text = sample_shop.mapping().yaml_text.replace("capture: trigger", "capture: poll")
    with shop.engine.begin() as conn:
        sources.apply(conn, parse_mapping(yaml_text.replace("sample_shop.orders", "sample_shop.order_view")))
    return shop


def test_a_merchant_that_cannot_be_compared_hides_no_other(shop_that_hides_a_merchant: Shop) -> None:
    shop, merchants = shop_that_hides_a_merchant, ["m1", "m2"]
    late, unreadable = sweep_run.late_orders(shop.engine, untouched_for=timedelta(minutes=15))
    assert ([one.merchant_id for one in late], unreadable) == (["m2"], {"m1": "no right to m1"})
    planned = {one.merchant_id: one for one in sweep_run.sweep_merchants(shop.engine, merchants, is_dry_run=True)}
    assert (planned["m1"].failure, planned["m1"].found) == ("no right to m1", None)
    assert planned["m2"].found and planned["m2"].found.orders_paid == 1
    noted = [(one.merchant_id, one.orders, one.failure) for one in sweep_run.note_differences(shop.engine, merchants)]
    assert noted == [("m1", 0, "no right to m1"), ("m2", 1, None)]
    swept = {one.merchant_id: one.failure for one in sweep_run.sweep_merchants(shop.engine, merchants)}
    assert swept == {"m1": "no right to m1", "m2": None}
    assert (shop.balance(merchant="m2"), shop.entries()) == (10, [])
