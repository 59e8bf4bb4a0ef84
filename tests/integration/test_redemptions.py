"""What the pipelines do with redeemed points when their order is cancelled, paid again or refunded."""

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from loyalty_pipelines.db import capture, sources, sweep
from loyalty_pipelines.db.sweep_run import late_orders
from tests.checkout import Checkout
from tests.shop import Shop


@pytest.fixture
def checkout(shop: Shop) -> Checkout:
    """A checkout for ann, who has earned 100 points with the order 'first'; a point is worth 0.10."""
    shop.program(point_value_amount=Decimal("0.10"))
    shop.order("first", "100.00")
    shop.award()
    return Checkout(shop.engine)


def sweep_and_award(shop: Shop) -> None:
    """What happens every hour, for a shop whose triggers told nothing."""
    shop.run("DELETE FROM loyalty.order_inbox")
    with shop.engine.begin() as conn:
        sweep.enqueue_differences(conn, "m1")
    shop.award()


def poll_and_award(shop: Shop) -> None:
    """What happens in poll mode."""
    shop.run("DELETE FROM loyalty.order_inbox")
    with shop.engine.begin() as conn:
        capture.poll(conn, overlap=timedelta(minutes=10))
    shop.award()


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
BY_ANY_WAY = pytest.mark.parametrize(
    "award", [Shop.award, sweep_and_award, poll_and_award], ids=["triggers", "sweep", "poll"]
)
Award = Callable[[Shop], object]


def status(shop: Shop, order: str = "o") -> str:
    return shop.value("SELECT status FROM loyalty.holds WHERE order_id = :order", order=order)


def is_right(shop: Shop) -> bool:
    """Whether the ledger needs nothing more, by its invariants, the sweep and a replay."""
    before = shop.value("SELECT count(*) FROM loyalty.ledger_entries")
    assert shop.problems() == []
    assert shop.rows("SELECT * FROM loyalty.order_differences('m1')") == []
    shop.enqueue("o", "o", "first")
    shop.award()
    assert shop.value("SELECT count(*) FROM loyalty.ledger_entries") == before
    return shop.problems() == []


# --- cancelled ---


@BY_ANY_WAY
@pytest.mark.parametrize("undone", ["cancelled", "failed"])
def test_the_redemption_of_an_undone_order_is_given_back_once(
    shop: Shop, checkout: Checkout, award: Award, undone: str
) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50)
    shop.award()
    assert shop.balance() == 75
    shop.set_status("o", undone)
    award(shop)
    assert shop.entries()[1:] == [("redeemed", -50), ("earned", 25), ("restored", 50), ("reversed", -25)]
    assert (shop.balance(), status(shop)) == (100, "restored")
    assert is_right(shop)


@BY_ANY_WAY
def test_the_open_hold_of_an_undone_order_is_released(shop: Shop, checkout: Checkout, award: Award) -> None:
    checkout.reserve("o", 50)
    shop.order("o", "30.00", points_redeemed=50, status="pending")
    shop.award()
    assert shop.account().held == 50
    shop.set_status("o", "failed")
    award(shop)
    assert (shop.account().held, status(shop), shop.balance()) == (0, "released", 100)
    assert is_right(shop)


def test_whatever_says_that_an_order_failed_its_points_come_back_once(shop: Shop, checkout: Checkout) -> None:
    """Cancel, failed payment and the end of the hold, in every order and twice."""
    shop.order("o", "30.00", points_redeemed=50, status="pending")
    ways: dict[str, Callable[[], object]] = {
        "cancel": lambda: (shop.set_status("o", "cancelled"), shop.award()),
        "fail": lambda: (shop.set_status("o", "failed"), shop.award()),
        "release": lambda: checkout.release("o"),
        "sweep": lambda: sweep_and_award(shop),
    }
    for is_captured in (False, True):
        for first in ways:
            for second in ways:
                shop.set_status("o", "pending")
                shop.award()
                checkout.reserve("o", 50)
                if is_captured:
                    checkout.capture("o")
                for way in (first, second, first, "cancel"):
                    ways[way]()
                assert (shop.balance(), shop.account().held) == (100, 0), (is_captured, first, second)
    assert is_right(shop)


def test_a_capture_that_comes_after_the_cancellation_is_given_back_by_the_sweep(shop: Shop, checkout: Checkout) -> None:
    shop.order("o", "30.00", points_redeemed=50, status="cancelled")
    shop.award()
    checkout.redeem("o", 50)
    sweep_and_award(shop)
    assert (shop.balance(), status(shop)) == (100, "restored")
    assert is_right(shop)


def test_points_are_given_back_before_the_order_s_own_are_taken(shop: Shop, checkout: Checkout) -> None:
    """Under clamp_to_zero nothing has to be waived then."""
    checkout.redeem("o", 100)
    shop.order("o", "40.00", points_redeemed=100)
    shop.award()
    checkout.redeem("all of it", 30)
    shop.set_status("o", "cancelled")
    shop.award()
    assert shop.entries()[-2:] == [("restored", 100), ("reversed", -30)]
    assert shop.tracked("o") == {"ann": (0, 0, 0)}
    assert (shop.balance(), is_right(shop)) == (70, True)


def test_points_that_are_given_back_start_a_new_period(shop: Shop, checkout: Checkout) -> None:
    shop.program(points_expiration_days=30)
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50, status="cancelled")
    shop.run("UPDATE loyalty.accounts SET last_activity_at = '2020-01-01', expires_at = '2020-02-01'")
    shop.award()
    assert shop.value("SELECT expires_at > now() + interval '29 days' FROM loyalty.accounts")


def test_points_that_are_given_back_pay_a_debt(shop: Shop, checkout: Checkout) -> None:
    shop.program(clawback="allow_negative")
    checkout.redeem("o", 60)
    checkout.redeem("o2", 40)
    shop.set_status("first", "refunded")
    shop.award()
    assert shop.balance() == -100
    shop.order("o", "30.00", points_redeemed=60, status="cancelled")
    shop.award()
    assert shop.balance() == -40
    assert checkout.spendable() == 0
    shop.order("next", "50.00")
    shop.award()
    assert (shop.balance(), shop.account().is_debt_allowed) == (10, True)
    assert is_right(shop)


def test_a_hold_is_released_though_the_account_is_in_debt(shop: Shop, checkout: Checkout) -> None:
    shop.program(clawback="allow_negative")
    checkout.reserve("o", 10)
    checkout.redeem("o2", 90)
    shop.set_status("first", "refunded")
    shop.award()
    assert (shop.balance(), shop.account().held) == (-90, 10)
    assert checkout.release("o").status == "released"
    assert (shop.balance(), shop.account().held) == (-90, 0)
    assert is_right(shop)


# --- paid again ---


@BY_ANY_WAY
def test_an_order_that_is_paid_again_pays_its_points_again(shop: Shop, checkout: Checkout, award: Award) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50)
    shop.award()
    shop.set_status("o", "cancelled")
    shop.award()
    shop.set_status("o", "paid")
    award(shop)
    assert shop.entries()[-2:] == [("re-earned", 25), ("redeemed", -50)]
    assert (shop.balance(), status(shop)) == (75, "captured")
    assert is_right(shop)


def test_paid_again_without_points_takes_none(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50, status="cancelled")
    shop.award()
    shop.order("o", "30.00", points_redeemed=0, status="paid")
    shop.award()
    assert (shop.balance(), status(shop)) == (130, "restored")
    assert is_right(shop)


def test_plus_50_minus_50_plus_21_cancelled_is_50(shop: Shop) -> None:
    checkout = Checkout(shop.engine)
    shop.order("first", "50.00")
    shop.award()
    checkout.redeem("o", 50)
    shop.order("o", "21.00", points_redeemed=50)
    shop.award()
    assert shop.balance() == 21
    shop.set_status("o", "cancelled")
    shop.award()
    assert shop.balance() == 50
    assert is_right(shop)


# --- checkouts that ended half-way ---


@BY_ANY_WAY
def test_a_paid_order_pays_what_it_reserved_though_nobody_captured_it(
    shop: Shop, checkout: Checkout, award: Award
) -> None:
    checkout.reserve("o", 50)
    shop.order("o", "30.00", points_redeemed=50)
    award(shop)
    assert (shop.balance(), status(shop), shop.account().held) == (75, "captured", 0)
    assert checkout.capture("o").points == 50
    assert is_right(shop)


def test_a_paid_order_pays_what_was_released_before_it_was_paid(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 50)
    checkout.release("o")
    shop.order("o", "30.00", points_redeemed=50)
    shop.award()
    assert (shop.balance(), status(shop)) == (75, "captured")
    assert is_right(shop)


def test_what_a_paid_order_owes_and_is_spent_waits_in_the_queue(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 50)
    checkout.release("o")
    checkout.redeem("other", 80)
    shop.order("o", "7.00", points_redeemed=50)
    shop.order("innocent", "5.00", customer="bob")
    shop.award()
    assert shop.balance("bob") == 5
    (item,) = shop.rows(
        "SELECT operation, reason, detail, points_redeemed, customer_id FROM loyalty.reconciliation_queue"
    )
    assert item[0:2] == ("redeem", "insufficient_points")
    assert item[2].startswith("Insufficient loyalty points. Available: 22, Requested: 50")
    assert item[3:] == (50, "ann")
    # It waits there: neither the sweep nor the check bring it up again.
    assert is_right(shop)
    shop.order("more", "60.00")
    shop.enqueue("o")
    shop.award()
    assert shop.queued() == {}
    assert (shop.balance(), status(shop)) == (32, "captured")
    assert is_right(shop)


@pytest.mark.parametrize("redeemed", [0, 49, 51])
def test_an_order_that_says_other_points_takes_none(shop: Shop, checkout: Checkout, redeemed: int) -> None:
    checkout.reserve("o", 50)
    shop.order("o", "30.00", points_redeemed=redeemed)
    shop.award()
    assert status(shop) == "open"
    assert shop.account().held == 50
    assert is_right(shop)


def test_a_pending_order_keeps_what_it_redeemed(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50, status="pending")
    sweep_and_award(shop)
    assert (shop.balance(), status(shop)) == (50, "captured")
    assert is_right(shop)


def test_what_was_settled_by_hand_stays(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 50)
    checkout.release("o")
    shop.run("UPDATE loyalty.holds SET status = 'waived'")
    shop.order("o", "30.00", points_redeemed=50)
    shop.award()
    assert shop.balance() == 125
    assert "settled by hand" in checkout.refused("LP003", "capture", "o")
    for action, arguments in [("redeem", ("o", 50)), ("reserve", ("o", 50)), ("update", ("o", 25, 50))]:
        assert "50 points are waived" in checkout.refused("LP003", action, *arguments)
    assert is_right(shop)


# --- refunds ---


def test_a_full_refund_in_money_of_what_money_paid_gives_the_points_back(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50)
    shop.award()
    shop.refund("o", "25.00")
    shop.set_status("o", "refunded")
    shop.award()
    assert shop.entries()[-2:] == [("restored", 50), ("reversed", -25)]
    assert (shop.balance(), is_right(shop)) == (100, True)


def test_a_refund_that_paid_the_points_worth_in_money_gives_no_points_back(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50)
    shop.award()
    shop.refund("o", "30.00")
    shop.set_status("o", "refunded")
    shop.award()
    assert shop.entries()[-1] == ("reversed", -25)
    assert (shop.balance(), status(shop), is_right(shop)) == (50, "captured", True)


def test_partial_refunds_take_back_their_share_and_keep_the_redemption(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50)
    shop.award()
    for amount, balance in [("5.00", 70), ("5.50", 64), ("100.00", 50)]:
        shop.refund("o", amount)
        shop.award()
        assert shop.balance() == balance
    assert sum(points for kind, points in shop.entries() if kind == "reversed") == -25
    assert (status(shop), is_right(shop)) == ("captured", True)


def test_a_refund_pressed_twice_takes_back_once(shop: Shop, checkout: Checkout) -> None:
    shop.order("o", "30.00")
    shop.award()
    for _ in range(2):
        shop.set_status("o", "refunded")
        shop.award()
        shop.enqueue("o")
        shop.award()
    assert (shop.balance(), is_right(shop)) == (100, True)


@pytest.mark.parametrize(("policy", "balance", "waived"), [("clamp_to_zero", 0, 100), ("allow_negative", -100, 0)])
def test_150_earned_100_spent_refunded_is_what_the_policy_says(
    shop: Shop, policy: str, balance: int, waived: int
) -> None:
    shop.program(clawback=policy)
    checkout = Checkout(shop.engine)
    shop.order("o", "150.00")
    shop.award()
    checkout.redeem("spent", 100)
    shop.set_status("o", "refunded")
    shop.award()
    assert (shop.balance(), shop.tracked("o")["ann"][2]) == (balance, waived)
    shop.order("next", "120.00")
    shop.award()
    assert shop.balance() == 120 + balance
    assert is_right(shop)


def test_a_refund_after_expiry_takes_nothing_and_makes_no_debt(shop: Shop) -> None:
    shop.program(clawback="allow_negative")
    checkout = Checkout(shop.engine)
    shop.order("o", "150.00")
    shop.award()
    checkout.redeem("spent", 100)
    shop.expire("ann")
    shop.set_status("o", "refunded")
    shop.award()
    assert (shop.balance(), shop.tracked("o")) == (0, {"ann": (0, 150, 150)})
    assert is_right(shop)


# --- what the checks and dry runs see ---


def test_the_check_names_orders_whose_points_were_not_given_back(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50, status="cancelled")
    shop.run("DELETE FROM loyalty.order_inbox")
    late, failures = late_orders(shop.engine, untouched_for=timedelta(0))
    assert (failures, [found.orders for found in late]) == ({}, [1])


def test_a_dry_run_gives_nothing_back(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50, status="cancelled")
    shop.drain(is_dry_run=True)
    assert (shop.balance(), status(shop)) == (50, "captured")


def test_a_checkout_that_earns_while_a_batch_is_at_work_does_not_split_it(shop: Shop, checkout: Checkout) -> None:
    """The batch has read the order as new; the checkout earns it before the batch writes."""
    for number in range(20):
        shop.order(f"n{number}", "10.00", customer=f"c{number}")
    shop.order("o", "30.00", customer="ann")
    with shop.engine.connect() as other:
        other.execute(text("SELECT loyalty.update_customer_loyalty_points_atomic('ann', 30, 0, 'o')"))
        worker = threading.Thread(target=shop.drain, kwargs={"batch_size": 21})
        worker.start()
        while not shop.value(WAITING):
            pass
        other.commit()
        worker.join()
    assert shop.balance() == 130
    assert shop.value("SELECT count(*) FROM loyalty.award_batches WHERE recorded_at > now() - interval '1 hour'") == 2
    assert shop.queued() == {}
    assert is_right(shop)


# --- what came back may go again ---


def test_the_one_call_redeems_again_what_was_given_back(shop: Shop, checkout: Checkout) -> None:
    shop.order("o", "30.00", status="pending")
    checkout.update("o", 25, 50)
    checkout.release("o")
    assert shop.balance() == 125
    assert checkout.update("o", 25, 50) == ("m1", 25, 50, 125, 75)
    assert checkout.update("o", 25, 50) == ("m1", 25, 50, 125, 75)
    checkout.release("o")
    assert checkout.update("o", 25, 30) == ("m1", 25, 30, 125, 95)
    assert "earned 25, redeemed 30" in checkout.refused("LP003", "update", "o", 25, 50)
    assert shop.problems() == []


def test_a_released_order_that_two_customers_want_at_once_is_one_s(shop: Shop, checkout: Checkout) -> None:
    shop.order("bobs", "100.00", customer="bob")
    shop.award()
    checkout.reserve("o", 50)
    checkout.release("o")
    with shop.engine.connect() as conn, conn.begin():
        conn.execute(text("SELECT loyalty.capture_points('m1', 'o')"))
        results: list[str] = []
        worker = threading.Thread(
            target=lambda: results.append(checkout.refused("LP003", "reserve", "o", 50, "bob")), daemon=True
        )
        worker.start()
        while not shop.value(WAITING):
            pass
    worker.join()
    assert "50 points are captured" in results[0]
    assert (shop.balance("ann"), shop.account("bob").held) == (50, 0)
    assert shop.problems() == []


def test_a_capture_waits_for_the_customer_who_takes_the_released_order_over(shop: Shop, checkout: Checkout) -> None:
    shop.order("bobs", "100.00", customer="bob")
    shop.award()
    checkout.reserve("o", 50)
    checkout.release("o")
    with shop.engine.connect() as conn, conn.begin():
        conn.execute(text("SELECT loyalty.reserve_points('m1', 'bob', 'o', 40)"))
        results: list[object] = []
        worker = threading.Thread(target=lambda: results.append(checkout.capture("o")), daemon=True)
        worker.start()
        while not shop.value(WAITING):
            pass
    worker.join()
    assert results == [("o", 40, 100, 60)]
    assert (shop.balance("ann"), shop.balance("bob"), shop.account("bob").held) == (100, 60, 0)
    assert shop.problems() == []


def test_two_customers_who_update_one_order_at_once_are_told_so(shop: Shop, checkout: Checkout) -> None:
    shop.order("bobs", "100.00", customer="bob")
    shop.award()
    with shop.engine.connect() as conn, conn.begin():
        conn.execute(text("SELECT loyalty.update_customer_loyalty_points_atomic('ann', 5, 0, 'o', NULL, 'm1')"))
        results: list[str] = []
        worker = threading.Thread(
            target=lambda: results.append(checkout.refused("LP003", "update", "o", 5, 0, "bob", merchant_id="m1")),
            daemon=True,
        )
        worker.start()
        while not shop.value(WAITING):
            pass
    worker.join()
    assert "Order o has another request already" in results[0]
    assert (shop.balance("ann"), shop.balance("bob")) == (105, 100)


def test_a_reservation_past_its_time_is_renewed_by_the_same_call(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 50)
    shop.run("UPDATE loyalty.holds SET expires_at = now() - interval '1 minute'")
    assert checkout.reserve("o", 50).expires_at > shop.value("SELECT now() + interval '14 minutes'")
    assert shop.account().held == 50


def test_money_that_is_refunded_after_the_points_came_back_takes_them_again(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50)
    shop.award()
    shop.set_status("o", "refunded")
    shop.award()
    assert (shop.balance(), status(shop)) == (100, "restored")
    shop.refund("o", "30.00")
    shop.award()
    assert (shop.balance(), status(shop)) == (50, "captured")
    assert is_right(shop)


def test_an_order_that_owes_nothing_any_more_leaves_the_queue(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 50)
    checkout.release("o")
    checkout.redeem("other", 100)
    shop.order("o", "0.00", points_redeemed=50)
    shop.award()
    assert shop.queued() == {"o": "insufficient_points"}
    shop.set_status("o", "cancelled")
    shop.award()
    assert shop.queued() == {}
    assert is_right(shop)


def test_an_order_cancelled_while_its_batch_waits_fails_no_merchant(shop: Shop, checkout: Checkout) -> None:
    shop.order("o", "0.00", points_redeemed=50)
    checkout.redeem("o", 50)
    shop.set_status("o", "cancelled")
    shop.award()
    shop.set_status("o", "paid")
    reports = []
    with shop.engine.connect() as conn, conn.begin():
        conn.execute(text("SELECT FROM loyalty.accounts WHERE customer_id = 'ann' FOR NO KEY UPDATE"))
        worker = threading.Thread(target=lambda: reports.append(shop.drain()), daemon=True)
        worker.start()
        while not shop.value(WAITING):
            pass
        shop.set_status("o", "cancelled")
    worker.join()
    assert reports[0].failures == {}
    shop.award()
    assert (shop.balance(), status(shop)) == (100, "restored")
    assert is_right(shop)


def test_a_paid_order_keeps_its_redemption_while_the_shop_can_t_be_read(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 50)
    shop.order("o", "30.00", points_redeemed=50)
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    assert "The shop can't be read now" in checkout.refused("55000", "release", "o")
    assert shop.balance() == 50
