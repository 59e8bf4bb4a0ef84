"""The reconciliation queue: what is tried again, what is closed, parked, settled; alone and at once."""

import threading
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import queue, sources, sweep
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.queue_run import drain_queue, is_something_due
from loyalty_pipelines.domain.queue import (
    NothingParkedError,
    QueueItemBlockedError,
    QueueItemNotFoundError,
    QueueItemResolvedError,
    QueuePosition,
    RetryPolicy,
)
from loyalty_pipelines.domain.source_mapping import NoMappingError
from tests.checkout import Checkout
from tests.queued import Queue
from tests.shop import Shop

TOO_MANY = 1_000_000


@pytest.fixture
def checkout(shop: Shop) -> Checkout:
    """A checkout for ann, who has 100 points."""
    shop.order("first", "100.00")
    shop.award()
    return Checkout(shop.engine)


@pytest.fixture
def waiting(shop: Shop, checkout: Checkout) -> Queue:
    """The queue, empty; ann has 100 points."""
    return Queue(shop)


def unpark(shop: Shop, customer: str, merchant: str = "m1") -> int:
    with shop.engine.begin() as conn:
        return queue.unpark(conn, merchant, customer)


def resolve(shop: Shop, number: int) -> None:
    with shop.engine.begin() as conn:
        queue.resolve(conn, number, reason="talked to the customer", actor="bob")


def sweep_and_award(shop: Shop) -> None:
    with shop.engine.begin() as conn:
        sweep.enqueue_differences(conn, "m1")
    shop.award()


def without_triggers(shop: Shop) -> None:
    shop.run("ALTER TABLE sample_shop.orders DISABLE TRIGGER ALL")


# --- applied ---


def test_a_reported_update_is_applied_as_the_call_itself(shop: Shop, waiting: Queue) -> None:
    number = waiting.report("o", 25, 50)
    assert waiting.tried() == {"applied": 1}
    assert shop.entries()[1:] == [("redeemed", -50), ("earned", 25)]
    found = waiting.item(number)
    assert (found.resolution, found.resolved_by, found.tries, found.run_id) == ("applied", None, 1, "test-run")
    assert (shop.balance(), shop.problems()) == (75, [])


def test_the_entry_and_the_item_are_of_one_transaction(shop: Shop, waiting: Queue) -> None:
    waiting.report("o", 25, 0)
    waiting.tried()
    # The row's xmin has 32 bits of the transaction's 64.
    assert shop.value(
        "SELECT q.xmin::text = (e.recorded_xid::text::numeric % 4294967296)::text "
        "FROM loyalty.reconciliation_queue AS q, loyalty.ledger_entries AS e WHERE e.reference_id = 'o'"
    )


@pytest.mark.parametrize("is_killed", [False, True], ids=["rolled back", "killed"])
def test_what_ends_between_applying_and_resolving_leaves_both_undone(
    shop: Shop, waiting: Queue, is_killed: bool
) -> None:
    number = waiting.report("o", 25, 50)
    with shop.engine.connect() as conn:
        as_of = queue.due_merchants(conn)[1]
        assert as_of is not None
        (one,) = queue.lock_page(conn, "m1", after=QueuePosition(), as_of=as_of, page_size=5)
        queue.try_item(conn, "m1", one.queue_id, policy=RetryPolicy(), actor="test", run_id=None)
        assert conn.execute(text("SELECT balance FROM loyalty.accounts")).scalar_one() == 75
        if is_killed:
            shop.run(
                "SELECT pg_terminate_backend(:pid)", pid=conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
            )
            with pytest.raises(DBAPIError):
                conn.execute(text("SELECT 1"))
        conn.rollback()
    assert (shop.balance(), waiting.numbers(), waiting.item(number).tries) == (100, [number], 0)
    assert waiting.tried() == {"applied": 1}
    assert (shop.balance(), shop.problems()) == (75, [])


def test_an_item_whose_effect_is_in_the_ledger_is_only_closed(shop: Shop, checkout: Checkout, waiting: Queue) -> None:
    number = waiting.report("o", 25, 50)
    checkout.update("o", 25, 50, merchant_id="m1")
    assert waiting.tried() == {"found_done": 1}
    assert waiting.item(number).resolution == "its effect was in the ledger already"
    assert (len(shop.entries()), shop.balance()) == (3, 75)


def test_points_that_the_sensor_has_awarded_meanwhile_are_not_earned_again(shop: Shop, waiting: Queue) -> None:
    waiting.report("o", 25, 0)
    shop.order("o", "25.00")
    shop.award()
    assert waiting.tried() == {"found_done": 1}
    assert (shop.balance(), shop.problems()) == (125, [])


def test_an_order_that_was_cancelled_meanwhile_makes_its_update_void(shop: Shop, waiting: Queue) -> None:
    shop.order("o", "30.00", status="cancelled")
    shop.award()
    number = waiting.report("o", 25, 50)
    assert waiting.tried() == {"void": 1}
    assert "is cancelled in the shop" in (waiting.item(number).resolution or "")
    assert (shop.balance(), waiting.numbers()) == (100, [])


def test_an_order_that_nobody_sees_yet_is_applied_when_it_can_be_seen(shop: Shop, waiting: Queue) -> None:
    number = waiting.report("o", 25, 0, "carl", merchant_id=None)
    assert waiting.item(number).merchant_id == ""
    assert waiting.tried() == {"failed": 1}
    assert waiting.item(number).reason == "merchant_unknown"
    without_triggers(shop)
    shop.order("o", "25.00", customer="carl")
    waiting.wait()
    assert waiting.tried() == {"applied": 1}
    assert (waiting.item(number).merchant_id, shop.balance("carl"), shop.problems()) == ("m1", 25, [])


def test_items_without_a_merchant_are_one_account_per_transaction(shop: Shop, waiting: Queue) -> None:
    for name in ("bea", "carl", "dan"):
        waiting.report(f"of {name}", 10, 0, name, merchant_id=None)
        shop.order(f"of {name}", "10.00", customer=name, status="pending")
    assert waiting.tried() == {"applied": 3}
    assert shop.value("SELECT count(DISTINCT recorded_xid) FROM loyalty.ledger_entries WHERE points = 10") == 3


def test_a_report_repeated_is_one_item_and_with_other_numbers_two(shop: Shop, waiting: Queue) -> None:
    first = waiting.report("o", 25, 50)
    assert waiting.report("o", 25, 50, error="again") == first
    second = waiting.report("o", 26, 50)
    assert (waiting.numbers(), waiting.item(first).attempts) == ([first, second], 2)
    assert waiting.tried() == {"applied": 1, "failed": 1}
    assert (waiting.item(first).resolution, waiting.item(second).reason) == ("applied", "other_numbers")
    assert shop.balance() == 75


def test_a_report_after_its_item_was_resolved_is_closed_too(shop: Shop, waiting: Queue) -> None:
    first = waiting.report("o", 25, 50)
    waiting.tried()
    assert waiting.report("o", 25, 50) != first
    assert waiting.tried() == {"found_done": 1}
    assert shop.balance() == 75


def test_items_of_a_customer_are_tried_in_the_order_in_which_they_came(shop: Shop, waiting: Queue) -> None:
    waiting.report("z", 0, 100)
    waiting.report("a", 200, 0)
    waiting.report("m", 0, 150)
    assert waiting.tried() == {"applied": 3}
    assert shop.entries()[1:] == [("redeemed", -100), ("earned", 200), ("redeemed", -150)]


@pytest.mark.parametrize("page_size", [1, 7, 50])
def test_pages_of_any_size_try_every_item_once(shop: Shop, waiting: Queue, page_size: int) -> None:
    shop.merchant("m2")
    for number in range(60):
        waiting.report(f"o{number}", 3, 0, f"c{number % 8}", merchant_id=("m1", "m2")[number % 2])
    assert waiting.tried(page_size=page_size) == {"applied": 60}
    assert shop.value("SELECT sum(balance) FROM loyalty.accounts WHERE customer_id LIKE 'c%'") == 180
    assert shop.problems() == []


def test_no_item_reads_a_table_of_the_ledger_whole(shop: Shop, waiting: Queue) -> None:
    """A plan that was made while the tables were empty would be kept for all items: each then reads all before it."""
    engine = connect(shop.engine.url.render_as_string(hide_password=False), application_name="the drain")
    with shop.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("VACUUM ANALYZE"))
    for number in range(120):
        waiting.report(f"o{number}", 2, 1)
    report = drain_queue(engine, actor="test")
    assert report.total("applied") == 120
    engine.dispose()
    # A session tells its statistics when it ends.
    gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the drain'"
    while shop.value(gone):
        pass
    found = shop.rows(
        "SELECT relname, seq_tup_read, idx_scan FROM pg_stat_user_tables WHERE relname IN "
        "('accounts', 'checkout_updates', 'holds', 'ledger_entries', 'order_points', 'reconciliation_queue')"
    )
    assert all(row.idx_scan >= 120 for row in found if row.relname != "ledger_entries"), found
    assert {row.relname: row.seq_tup_read for row in found if row.seq_tup_read > 1_000} == {}


# --- failed ---


def test_one_pass_tries_an_item_once_and_ends(shop: Shop, waiting: Queue) -> None:
    numbers = [waiting.report(f"o{n}", 0, TOO_MANY) for n in range(5)]
    report = drain_queue(shop.engine, actor="test")
    assert report.total("failed") == 5
    assert [waiting.item(number).tries for number in numbers] == [1] * 5
    assert drain_queue(shop.engine, actor="test").merchants == {}
    assert not is_something_due(shop.engine)


def test_an_item_that_fails_says_why_and_stays(shop: Shop, waiting: Queue) -> None:
    number = waiting.report("o", 25, TOO_MANY)
    waiting.tried()
    found = waiting.item(number)
    assert found.reason == "insufficient_points"
    assert found.detail == "Insufficient loyalty points. Available: 100, Requested: 1000000"
    assert shop.entries() == [("earned", 100)]


def test_each_wait_is_twice_the_one_before_until_the_longest(waiting: Queue) -> None:
    number = waiting.report("o", 0, TOO_MANY)
    waits = []
    for _ in range(12):
        waiting.wait()
        waiting.tried(max_tries=100)
        waits.append(waiting.wait_before_next_try(number))
    for tries, wait in enumerate(waits):
        least = min(timedelta(minutes=2**tries), timedelta(hours=6))
        assert least <= wait <= least * 1.1, (tries, wait)


def test_after_the_last_try_the_customer_is_parked_and_others_go_on(shop: Shop, waiting: Queue) -> None:
    bad = waiting.report("bad", 0, TOO_MANY)
    for _ in range(2):
        assert waiting.tried(max_tries=3) == {"failed": 1}
        waiting.wait()
    good = waiting.report("good", 10, 0)
    shop.order("first of bea", "10.00", customer="bea")
    shop.award()
    waiting.report("of bea", 5, 0, "bea")
    # The parked one stops the later one of its customer in the very same page.
    assert waiting.tried(max_tries=3) == {"parked": 1, "applied": 1}
    assert (shop.balance("bea"), shop.balance("ann")) == (15, 100)
    assert waiting.item(good).blocked_by == bad
    waiting.wait()
    assert waiting.tried(max_tries=3) == {}
    assert not is_something_due(shop.engine)


def test_what_is_not_due_waits_though_others_of_its_merchant_are_tried(
    shop: Shop, waiting: Queue, undecided: int
) -> None:
    number = waiting.report("bad", 0, TOO_MANY)
    assert waiting.tried() == {"orders": 1, "orders_waiting": 1, "failed": 1}
    waiting.report("of bea", 5, 0, "bea")
    shop.order("other", "NaN", customer="bea")
    shop.enqueue("other")
    shop.award()
    shop.run("UPDATE loyalty.reconciliation_queue SET next_try_at = now() WHERE order_id = 'other'")
    assert waiting.tried() == {"orders": 1, "orders_waiting": 1, "applied": 1}
    assert (waiting.item(number).tries, waiting.item(undecided).tries) == (1, 1)


def test_nothing_of_a_parked_customer_is_tried_though_others_of_its_merchant_are(
    shop: Shop, waiting: Queue, undecided: int
) -> None:
    waiting.report("bad", 0, TOO_MANY)
    # Updates alone, as if the order had waited.
    shop.run(
        "UPDATE loyalty.reconciliation_queue SET next_try_at = now() + interval '1 hour' WHERE operation = 'award'"
    )
    assert waiting.tried(max_tries=1) == {"parked": 1}
    later = waiting.report("good", 10, 0)
    waiting.report("of bea", 5, 0, "bea")
    waiting.wait()
    assert waiting.tried() == {"applied": 1}
    assert (waiting.item(later).tries, waiting.item(undecided).tries) == (0, 0)


def test_a_customer_of_the_same_id_at_another_merchant_is_another_customer(shop: Shop, waiting: Queue) -> None:
    shop.merchant("m2")
    waiting.report("bad", 0, TOO_MANY)
    waiting.tried(max_tries=1)
    waiting.report("good", 10, 0, merchant_id="m2")
    assert waiting.tried() == {"applied": 1}


def test_an_unparked_customer_is_tried_again_as_often_as_a_new_one(shop: Shop, waiting: Queue) -> None:
    bad = waiting.report("bad", 0, 150)
    waiting.report("good", 60, 0)
    # Both of ann's: the first is parked at its first try, the second never tried.
    assert waiting.tried(max_tries=1) == {"parked": 1}
    assert unpark(shop, "ann") == 1
    assert waiting.item(bad).tries == 0
    assert waiting.tried(max_tries=2) == {"failed": 1, "applied": 1}
    waiting.wait()
    assert waiting.tried(max_tries=2) == {"applied": 1}
    assert shop.balance() == 10
    with pytest.raises(NothingParkedError, match="Nothing of customer 'ann' is parked"):
        unpark(shop, "ann")


def test_a_merchant_that_fails_stops_no_other(shop: Shop, waiting: Queue) -> None:
    for merchant in ("m0", "m2"):
        shop.merchant(merchant)
    for merchant in ("m0", "m1", "m2"):
        waiting.report("o", 10, 0, "bea", merchant_id=merchant)
    shop.run(
        "CREATE FUNCTION break_m1() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.merchant_id = 'm1' THEN RAISE undefined_column; END IF; RETURN NEW; END $$"
    )
    shop.run("CREATE TRIGGER break_m1 BEFORE INSERT ON loyalty.ledger_entries FOR EACH ROW EXECUTE FUNCTION break_m1()")
    report = waiting.drain()
    assert (list(report.failures), report.total("applied")) == (["m1"], 2)
    assert (shop.balance("bea", merchant="m0"), shop.balance("bea", merchant="m2")) == (10, 10)
    assert waiting.only_item().tries == 0, "an error that is not the item's costs it no try"


def test_a_page_that_loses_its_connection_is_done_again_and_once(shop: Shop, waiting: Queue) -> None:
    shop.run("CREATE SEQUENCE tries_of_all")
    shop.run("GRANT ALL ON SEQUENCE tries_of_all TO public")
    shop.run(
        "CREATE FUNCTION break_once() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$ BEGIN IF nextval('tries_of_all') = 3 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; "
        "RETURN NEW; END $$"
    )
    shop.run(
        "CREATE TRIGGER break_once BEFORE INSERT ON loyalty.ledger_entries FOR EACH ROW EXECUTE FUNCTION break_once()"
    )
    for number in range(5):
        waiting.report(f"o{number}", 10, 0)
    assert waiting.tried() == {"applied": 5}
    assert (shop.balance(), shop.problems()) == (150, [])


def test_a_lost_database_is_raised_with_the_pages_before_committed(shop: Shop, waiting: Queue) -> None:
    shop.run(
        "CREATE FUNCTION break_carl() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$ BEGIN IF NEW.reference_id = 'of carl' THEN RAISE admin_shutdown; END IF; RETURN NEW; END $$"
    )
    shop.run(
        "CREATE TRIGGER break_carl BEFORE INSERT ON loyalty.ledger_entries FOR EACH ROW EXECUTE FUNCTION break_carl()"
    )
    waiting.report("of bea", 10, 0, "bea")
    waiting.report("of carl", 10, 0, "carl")
    with pytest.raises(DBAPIError):
        waiting.drain(page_size=1)
    assert (shop.balance("bea"), shop.balance("carl")) == (10, 0)


def test_behind_a_withdrawn_mapping_nothing_is_tried(shop: Shop, waiting: Queue) -> None:
    number = waiting.report("o", 25, 0)
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    with pytest.raises(NoMappingError):
        waiting.drain()
    assert (waiting.item(number).tries, shop.balance()) == (0, 100)


# --- at once ---


def test_two_drains_at_once_apply_everything_once(shop: Shop, waiting: Queue) -> None:
    shop.merchant("m2")
    for number in range(80):
        waiting.report(f"o{number}", 4, 0, f"c{number % 6}", merchant_id=("m1", "m2", None)[number % 3])
        shop.order(f"o{number}", "4.00", customer=f"c{number % 6}", status="pending", merchant=("m1", "m2")[number % 2])
    start = threading.Barrier(2)
    found: list[Any] = []

    def drain() -> None:
        start.wait()
        found.append(waiting.drain(page_size=5))

    threads = [threading.Thread(target=drain) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.failures for one in found] == [{}, {}]
    assert sum(one.total("applied") for one in found) == 80
    assert shop.value("SELECT sum(balance) FROM loyalty.accounts WHERE customer_id LIKE 'c%'") == 320
    assert (waiting.numbers(), shop.problems()) == ([], [])


def test_an_item_that_somebody_looks_at_is_left_to_the_next_pass(shop: Shop, waiting: Queue) -> None:
    waiting.report("o", 25, 0)
    other = waiting.report("of bea", 10, 0, "bea")
    with shop.engine.begin() as conn:
        conn.execute(text("SELECT 1 FROM loyalty.reconciliation_queue WHERE queue_id = :n FOR UPDATE"), {"n": other})
        assert waiting.tried() == {"applied": 1}
    assert waiting.tried() == {"applied": 1}


# --- redemptions that a paid order owes ---


@pytest.fixture
def owing(shop: Shop, waiting: Queue, checkout: Checkout) -> int:
    """The number of the item of order 'o', which is paid with 50 points that ann has spent elsewhere."""
    checkout.reserve("o", 50)
    checkout.release("o")
    checkout.redeem("other", 90)
    shop.order("o", "30.00", points_redeemed=50)
    shop.award()
    found = waiting.only_item()
    assert (found.operation, found.reason, found.points_redeemed) == ("redeem", "insufficient_points", 50)
    waiting.wait()
    return found.queue_id


def test_an_owed_redemption_is_taken_when_the_points_are_there(shop: Shop, waiting: Queue, owing: int) -> None:
    balance = shop.balance()
    if balance >= 50:
        pytest.fail("the customer has the points already")
    assert waiting.tried() == {"failed": 1}
    shop.order("second", "70.00")
    shop.award()
    waiting.wait()
    assert waiting.tried() == {"applied": 1}
    assert shop.balance() == balance + 70 - 50
    assert (waiting.item(owing).resolution, shop.problems()) == ("applied", [])


def test_a_redemption_that_the_shop_has_corrected_away_is_not_taken(shop: Shop, waiting: Queue, owing: int) -> None:
    without_triggers(shop)
    shop.order("second", "70.00")
    shop.change("o", points_redeemed=0)
    shop.enqueue("second")
    shop.award()
    balance = shop.balance()
    assert waiting.tried() == {"void": 1}
    assert shop.balance() == balance
    assert "does not owe these points any more" in (waiting.item(owing).resolution or "")


def test_a_redemption_of_an_order_that_is_gone_from_the_shop_is_still_owed(
    shop: Shop, waiting: Queue, owing: int
) -> None:
    shop.delete("o")
    assert waiting.tried() == {"failed": 1}
    shop.order("second", "70.00")
    shop.award()
    waiting.wait()
    assert waiting.tried() == {"applied": 1}
    assert shop.problems() == []


def test_a_redemption_resolved_by_hand_is_waived_and_the_sweep_does_not_bring_it_back(
    shop: Shop, waiting: Queue, owing: int
) -> None:
    resolve(shop, owing)
    found = waiting.item(owing)
    assert (found.resolution, found.resolved_by) == ("talked to the customer", "bob")
    shop.order("second", "70.00")
    shop.award()
    balance = shop.balance()
    sweep_and_award(shop)
    shop.enqueue("o")
    shop.award()
    assert (waiting.numbers(), shop.balance(), shop.problems()) == ([], balance, [])
    assert shop.value("SELECT status FROM loyalty.holds WHERE order_id = 'o'") == "waived"


def test_what_is_reserved_again_is_given_back_when_the_item_is_resolved_by_hand(
    shop: Shop, waiting: Queue, owing: int, checkout: Checkout
) -> None:
    shop.order("second", "70.00")
    shop.award()
    checkout.reserve("o", 50)
    assert shop.account().held == 50
    resolve(shop, owing)
    assert (shop.account().held, shop.problems()) == (0, [])
    assert shop.value("SELECT status FROM loyalty.holds WHERE order_id = 'o'") == "waived"


def test_what_was_taken_meanwhile_stays_taken_when_the_item_is_resolved_by_hand(
    shop: Shop, waiting: Queue, owing: int, checkout: Checkout
) -> None:
    shop.order("second", "70.00")
    shop.award()
    checkout.redeem("o", 50)
    resolve(shop, owing)
    assert shop.value("SELECT status FROM loyalty.holds WHERE order_id = 'o'") == "captured"
    assert shop.problems() == []


# --- orders that could not be decided ---


@pytest.fixture
def undecided(shop: Shop, waiting: Queue) -> int:
    """The number of the item of order 'bad', whose amount is not a number; no trigger tells of its correction."""
    shop.order("bad", "NaN")
    shop.award()
    without_triggers(shop)
    number = waiting.only_item().queue_id
    waiting.wait()
    return number


def test_an_undecided_order_is_looked_at_again_and_awarded_once_it_is_right(
    shop: Shop, waiting: Queue, undecided: int
) -> None:
    assert waiting.tried() == {"orders": 1, "orders_waiting": 1}
    assert (waiting.item(undecided).tries, waiting.item(undecided).reason) == (1, "amount_invalid")
    shop.change("bad", total=Decimal(20))
    assert waiting.tried() == {}, "its next try is in a minute"
    waiting.wait()
    assert waiting.tried() == {"orders": 1}
    assert (shop.balance(), waiting.numbers(), shop.inbox(), shop.problems()) == (120, [], 0, [])


def test_an_undecided_order_is_parked_after_the_last_try(shop: Shop, waiting: Queue, undecided: int) -> None:
    assert waiting.tried(max_tries=2) == {"orders": 1, "orders_waiting": 1}
    waiting.wait()
    assert waiting.tried(max_tries=2) == {"orders": 1, "orders_waiting": 1, "orders_parked": 1}
    waiting.wait()
    assert waiting.tried(max_tries=2) == {}
    assert not is_something_due(shop.engine)


def test_a_parked_order_that_is_corrected_is_closed_by_the_sweep(shop: Shop, waiting: Queue, undecided: int) -> None:
    waiting.tried(max_tries=1)
    shop.change("bad", total=Decimal(20))
    sweep_and_award(shop)
    assert (waiting.numbers(), shop.balance()) == ([], 120)


def test_an_undecided_order_resolved_by_hand_stays_away_until_the_shop_changes_it(
    shop: Shop, waiting: Queue, undecided: int
) -> None:
    resolve(shop, undecided)
    sweep_and_award(shop)
    shop.enqueue("bad")
    shop.award()
    assert waiting.numbers() == []
    shop.change("bad", total=Decimal("Infinity"))
    sweep_and_award(shop)
    assert waiting.only_item().reason == "amount_invalid"


def test_orders_are_awarded_before_updates_are_tried(shop: Shop, waiting: Queue, undecided: int) -> None:
    """Their points may be what a redemption waits for."""
    shop.change("bad", total=Decimal(60))
    waiting.report("o", 0, 150)
    assert waiting.tried() == {"orders": 1, "applied": 1}
    assert shop.balance() == 10


def test_an_order_without_a_customer_is_tried_too(shop: Shop, waiting: Queue) -> None:
    shop.order("guest", "10.00", customer=None, status="strange")
    shop.award()
    assert waiting.only_item().customer_id is None
    waiting.wait()
    assert waiting.tried() == {"orders": 1, "orders_waiting": 1}


def test_an_order_whose_id_was_shortened_is_left_to_the_sweep(shop: Shop, waiting: Queue) -> None:
    # As quarantine_order.sql writes it; the shop's own key takes no such order.
    waiting.report("beginning ... (md5 d41d8cd98f00b204e9800998ecf8427e)", 1, 0)
    shop.run("UPDATE loyalty.reconciliation_queue SET operation = 'award', reason = 'database_error', fingerprint = ''")
    found = waiting.only_item()
    assert found.is_shortened
    waiting.wait()
    assert not is_something_due(shop.engine)
    waiting.report("o", 10, 0)
    assert waiting.tried() == {"applied": 1}
    with shop.engine.begin() as conn, pytest.raises(QueueItemBlockedError, match="loyalty award --sweep --merchant m1"):
        queue.make_item_due(conn, found.queue_id)


def test_a_customer_whose_id_is_too_long_for_an_index_can_be_parked(shop: Shop, waiting: Queue) -> None:
    customer = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(3000))
    shop.order("bad", "NaN", customer=customer)
    shop.award()
    waiting.wait()
    assert waiting.tried(max_tries=1) == {"orders": 1, "orders_waiting": 1, "orders_parked": 1}


# --- by hand ---


def test_an_update_resolved_by_hand_is_not_tried_any_more(shop: Shop, waiting: Queue) -> None:
    number = waiting.report("o", 25, 0)
    resolve(shop, number)
    assert (waiting.tried(), shop.balance()) == ({}, 100)
    with pytest.raises(
        QueueItemResolvedError, match=f"Item {number} was resolved at .* by bob: talked to the customer"
    ):
        resolve(shop, number)
    with pytest.raises(QueueItemNotFoundError, match="The queue has no item 999"):
        resolve(shop, 999)


def test_resolving_the_parked_item_lets_the_customer_go_on(shop: Shop, waiting: Queue) -> None:
    bad = waiting.report("bad", 0, TOO_MANY)
    waiting.tried(max_tries=1)
    waiting.report("good", 10, 0)
    assert waiting.tried() == {}
    resolve(shop, bad)
    assert waiting.tried() == {"applied": 1}


def test_resolving_waits_for_an_award_that_is_at_work_and_deadlocks_with_none(
    shop: Shop, waiting: Queue, owing: int
) -> None:
    """An award locks the account and then closes the item; resolving the other way round would deadlock."""
    done = threading.Event()

    def resolve_then_tell() -> None:
        resolve(shop, owing)
        done.set()

    shop.order("second", "70.00")
    with shop.engine.begin() as conn:
        conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('loyalty.award.m1', 0))"))
        thread = threading.Thread(target=resolve_then_tell)
        thread.start()
        while not shop.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' "
                             "AND datname = current_database()"):  # fmt: skip
            assert thread.is_alive()
        conn.execute(text("SELECT loyalty.lock_account('m1', 'ann')"))
        conn.execute(text("UPDATE loyalty.reconciliation_queue SET attempts = attempts + 1"))
        assert not done.is_set()
    thread.join()
    assert done.is_set()


def test_retrying_one_item_makes_it_due_and_keeps_its_tries(shop: Shop, waiting: Queue) -> None:
    number = waiting.report("o", 0, 150)
    waiting.tried(max_tries=1)
    with shop.engine.begin() as conn:
        queue.make_item_due(conn, number)
    assert waiting.tried(max_tries=1) == {"parked": 1}, "one more try, and it is where it was"
    assert waiting.item(number).tries == 2
    shop.order("second", "50.00")
    shop.award()
    with shop.engine.begin() as conn:
        queue.make_item_due(conn, number)
    assert waiting.tried(max_tries=1) == {"applied": 1}


def test_an_item_behind_a_parked_one_can_not_be_retried_alone(shop: Shop, waiting: Queue) -> None:
    bad = waiting.report("bad", 0, TOO_MANY)
    waiting.tried(max_tries=1)
    good = waiting.report("good", 10, 0)
    with shop.engine.begin() as conn, pytest.raises(QueueItemBlockedError, match=f"while item {bad} of customer 'ann'"):
        queue.make_item_due(conn, good)


def test_only_the_named_item_is_tried(shop: Shop, waiting: Queue, undecided: int) -> None:
    first = waiting.report("a", 1, 0)
    second = waiting.report("b", 1, 0, "bea")
    assert waiting.tried(only=second) == {"applied": 1}
    assert waiting.numbers() == [undecided, first]
    assert waiting.tried(only=undecided) == {"orders": 1, "orders_waiting": 1}
    assert waiting.numbers() == [undecided, first]


# --- what waits ---


def test_the_summary_says_per_merchant_what_is_at_stake(shop: Shop, waiting: Queue, undecided: int) -> None:
    shop.merchant("m2")
    waiting.report("o", 25, 50)
    waiting.report("bad", 0, TOO_MANY, merchant_id="m2")
    waiting.tried(max_tries=1, merchants=["m2"])
    with shop.engine.connect() as conn:
        found = {one.merchant_id: one for one in queue.queue_summary(conn)}
    assert {name: (one.items, one.points_at_stake, one.parked) for name, one in found.items()} == {
        "m1": (2, 75, 0),
        "m2": (1, TOO_MANY, 1),
    }


def test_a_page_is_read_from_its_key_on_and_not_from_the_beginning(shop: Shop, waiting: Queue) -> None:
    shop.run(
        "INSERT INTO loyalty.reconciliation_queue (merchant_id, operation, order_id, customer_id, reason, "
        "points_earned, points_redeemed, next_try_at) "
        "SELECT 'm1', 'update', n, 'c' || n, 'reported_by_shop', 1, 0, now() FROM generate_series(1, 5000) AS n"
    )
    shop.run("ANALYZE loyalty.reconciliation_queue")
    with shop.engine.connect() as conn:
        plan = "\n".join(
            conn.execute(
                text("EXPLAIN " + queue.LOCK_PAGE.text),
                {
                    "merchant_id": "m1",
                    "after_customer_id": "c3",
                    "after_queue_id": 5,
                    "as_of": "now",
                    "page_size": 50,
                    "only_queue_id": None,
                },
            ).scalars()
        )
    assert "Index Scan using reconciliation_queue_by_customer" in plan
    assert "Index Cond: ((merchant_id = 'm1'::text) AND (ROW(customer_id, queue_id) > ROW('c3'::text, " in plan
    assert "Sort" not in plan


# --- nothing that is owed is forgotten ---


def test_what_a_paid_order_owes_is_never_parked(shop: Shop, waiting: Queue, checkout: Checkout) -> None:
    checkout.reserve("o", 50)
    checkout.release("o")
    checkout.redeem("other", 100)
    shop.order("o", "0.00", points_redeemed=50)
    shop.award()
    for _ in range(3):
        waiting.wait()
        waiting.drain(max_tries=1)
    assert shop.value("SELECT count(*) FROM loyalty.reconciliation_queue WHERE parked_at IS NOT NULL") == 0
    shop.order("more", "60.00")
    shop.award()
    waiting.wait()
    waiting.drain(max_tries=1)
    assert (shop.balance(), shop.queued()) == (10, {})


def test_an_update_that_was_void_is_owed_when_the_order_is_paid_again(shop: Shop, waiting: Queue) -> None:
    shop.order("o", "25.00", points_redeemed=50)
    shop.set_status("o", "cancelled")
    shop.award()
    waiting.report("o", 25, 50)
    waiting.drain()
    assert (shop.balance(), shop.queued()) == (100, {})
    shop.set_status("o", "paid")
    shop.award()
    assert shop.balance() == 75
    assert shop.problems() == []


def test_a_report_is_kept_though_the_shop_cannot_be_read(shop: Shop, waiting: Queue) -> None:
    shop.run("DROP FUNCTION loyalty_source.order_by_id CASCADE")
    number = waiting.report("o", 5, 0, merchant_id=None)
    kept = shop.rows("SELECT merchant_id FROM loyalty.reconciliation_queue WHERE queue_id = :n", n=number)
    assert kept == [("",)]


def test_a_report_with_an_impossible_merchant_is_refused(shop: Shop, waiting: Queue) -> None:
    with pytest.raises(DBAPIError, match="merchant_id is 3000 bytes long"):
        waiting.report("o", 5, 0, merchant_id="m" * 3000)
