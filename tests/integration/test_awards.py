"""Awarding, order by order: what an order deserves, and what the ledger shows for it whatever happens to the order."""

import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db.drain import drain
from loyalty_pipelines.db.engine import connect
from tests.shop import Shop

JUNE = datetime(2025, 6, 1, tzinfo=UTC)
JULY = datetime(2025, 7, 1, tzinfo=UTC)
AUGUST = datetime(2025, 8, 1, tzinfo=UTC)


# --- what an order deserves -----------------------------------------------------------------------------


def test_a_paid_order_earns_its_points_once(shop: Shop) -> None:
    shop.order("1", "19.99")
    report = shop.award()
    assert shop.entries() == [("earned", 19)]
    assert report.total("orders_changed") == 1
    shop.enqueue("1", "1")
    report = shop.award()
    assert shop.entries() == [("earned", 19)]
    assert (report.total("orders_changed"), report.total("orders_unchanged")) == (0, 1)
    assert shop.problems() == []


@pytest.mark.parametrize(
    ("total", "rules", "points"),
    [
        ("19.99", {}, 19),
        ("19.99", {"multiplier": "1.5"}, 28),
        ("19.99", {"multiplier": "1.5", "rounding": "floor"}, 28),
        ("19.99", {"multiplier": "1.5", "rounding": "half_up"}, 29),
        ("19.99", {"multiplier": "1.5", "rounding": "ceil"}, 29),
        ("17", {"multiplier": "1.5", "rounding": "half_up"}, 26),
        ("19", {"multiplier": "1.1", "rounding": "half_up"}, 21),
        ("19", {"multiplier": "1.1", "rounding": "ceil"}, 21),
        ("19", {"multiplier": "1.1", "rounding": "floor"}, 20),
        ("9990", {"unit_amount": 1000}, 9),
        ("9990", {"unit_amount": 1000, "multiplier": 2, "rounding": "ceil"}, 18),
        ("0.29", {"points_per_unit": 100}, 29),
        ("10.999999999999999999999", {}, 10),
        ("100", {"points_per_unit": "0.333"}, 33),
        ("1000000000000", {"points_per_unit": "0.002"}, 2_000_000_000),
    ],
)
def test_each_base_rule_floors_and_the_programmes_rounding_is_applied_once(
    shop: Shop, total: str, rules: dict[str, Any], points: int
) -> None:
    shop.program(**rules)
    shop.order("1", total)
    shop.award()
    assert shop.entries() == [("earned", points)]
    assert shop.problems() == []


@pytest.mark.parametrize(
    ("total", "redeemed", "points"),
    [("50", 1000, 40), ("50", 5000, 0), ("50", 6000, 0), ("19.99", 1, 19), ("20", 1, 19)],
)
def test_what_was_paid_with_points_earns_nothing_and_never_less(
    shop: Shop, total: str, redeemed: int, points: int
) -> None:
    shop.program(point_value_amount="0.01")
    shop.order("1", total, points_redeemed=redeemed)
    shop.award()
    assert shop.balance() == points
    assert shop.tracked("1") == {"ann": (points, points, 0)}
    assert shop.problems() == []


def test_an_order_that_redeems_points_still_earns_on_the_rest(shop: Shop) -> None:
    shop.program(point_value_amount="0.1")
    shop.order("1", "100")
    shop.award()
    shop.spend("ann", 100)
    shop.order("2", "60", points_redeemed=100)
    shop.award()
    assert shop.entries() == [("earned", 100), ("redeemed", -100), ("earned", 50)]
    assert shop.problems() == []


@pytest.mark.parametrize("total", ["0", "0.004", "0.99", "-0.0"])
def test_an_order_worth_no_points_writes_no_entry_but_is_tracked_and_counts_as_activity(shop: Shop, total: str) -> None:
    shop.order("1", total, paid_at=JUNE)
    report = shop.award()
    assert shop.entries() == []
    assert shop.tracked("1") == {"ann": (0, 0, 0)}
    assert shop.account().last_activity_at == JUNE
    assert report.total("orders_queued") == 0
    shop.change("1", total=5)
    shop.award()
    assert shop.entries() == [("earned", 5)]
    assert shop.problems() == []


def test_a_partially_refunded_order_that_was_never_awarded_earns_on_the_rest_only(shop: Shop) -> None:
    shop.order("1", "100", status="partially_refunded")
    shop.refund("1", "30.50")
    shop.award()
    assert shop.entries() == [("earned", 69)]
    assert shop.problems() == []


@pytest.mark.parametrize("status", ["pending", "refunded", "cancelled", "failed"])
def test_an_order_that_is_not_paid_is_skipped_and_leaves_no_trace(shop: Shop, status: str) -> None:
    shop.order("1", "10", status=status)
    report = shop.award()
    assert shop.value("SELECT count(*) FROM loyalty.accounts") == 0
    assert shop.tracked("1") == {}
    assert (report.total("orders_skipped"), shop.inbox()) == (1, 0)
    assert shop.problems() == []


@pytest.mark.parametrize("paid_at", [None, JUNE])
def test_an_unpaid_order_beside_a_paid_one_of_the_same_customer_changes_nothing(
    shop: Shop, paid_at: datetime | None
) -> None:
    shop.order("1", "10", status="pending", paid_at=paid_at)
    shop.order("2", "20")
    shop.order("3", "30", status="cancelled", paid_at=paid_at)
    report = shop.award()
    assert shop.entries() == [("earned", 20)]
    assert shop.tracked("1") == shop.tracked("3") == {}
    assert (report.total("orders_changed"), report.total("orders_skipped")) == (1, 2)
    assert shop.queued() == {}
    assert shop.problems() == []


# --- programmes -----------------------------------------------------------------------------------------


def test_the_version_in_force_when_the_order_was_paid_applies(shop: Shop) -> None:
    shop.program(valid_from=JULY, points_per_unit=2)
    shop.order("june", "10", paid_at=JULY - timedelta(microseconds=1))
    shop.order("july", "10", paid_at=JULY)
    shop.award()
    assert shop.tracked("june") == {"ann": (10, 10, 0)}
    assert shop.tracked("july") == {"ann": (20, 20, 0)}
    assert shop.problems() == []


def test_of_two_versions_with_one_valid_from_the_newer_applies(shop: Shop) -> None:
    shop.program(valid_from=JULY, points_per_unit=2)
    shop.program(valid_from=JULY, points_per_unit=3)
    shop.order("1", "10", paid_at=JULY)
    shop.order("2", "10", paid_at=AUGUST)
    shop.award()
    assert shop.balance() == 60
    assert shop.value("SELECT min(program_version) FROM loyalty.order_points") == 3
    assert shop.problems() == []


def test_a_retroactive_version_is_picked_up_when_the_order_is_looked_at_again(shop: Shop) -> None:
    shop.program(valid_from=JULY, points_per_unit=1)
    shop.order("june", "10", paid_at=JUNE)
    shop.order("july", "10", paid_at=JULY)
    shop.award()
    shop.program(valid_from=JUNE, points_per_unit=5)
    shop.award()
    assert shop.entries() == [("earned", 10), ("earned", 10)]
    shop.enqueue("june", "july")
    shop.award()
    assert shop.entries() == [("earned", 10), ("earned", 10), ("re-earned", 40)]
    assert shop.tracked("june") == {"ann": (50, 50, 0)}
    assert shop.rows("SELECT program_version FROM loyalty.order_points WHERE order_id = 'june'") == [(3,)]
    assert shop.problems() == []


def test_an_order_from_before_the_first_programme_earns_when_a_retroactive_one_is_made(shop: Shop) -> None:
    shop.run("DELETE FROM loyalty.programs")
    shop.program(valid_from=JULY)
    shop.order("1", "10", paid_at=JUNE)
    assert shop.award().total("orders_skipped") == 1
    shop.program(valid_from=JUNE)
    shop.enqueue("1")
    shop.award()
    assert shop.entries() == [("earned", 10)]
    assert shop.problems() == []


def test_a_merchant_without_a_programme_awards_nothing_and_raises_nothing(shop: Shop) -> None:
    shop.run("DELETE FROM loyalty.programs")
    shop.order("1", "10")
    report = shop.award()
    assert report.total("orders_skipped") == 1
    assert (shop.entries(), shop.queued(), shop.inbox()) == ([], {}, 0)
    assert shop.problems() == []


def test_a_programme_that_was_switched_off_awards_nothing_for_orders_paid_since(shop: Shop) -> None:
    shop.program(valid_from=JULY, is_active=False)
    shop.order("june", "10", paid_at=JUNE)
    shop.order("july", "10", paid_at=JULY)
    report = shop.award()
    assert shop.entries() == [("earned", 10)]
    assert (report.total("orders_changed"), report.total("orders_skipped")) == (1, 1)
    shop.set_status("june", "cancelled")
    shop.award()
    assert shop.balance() == 0
    assert shop.problems() == []


def test_a_programme_switched_off_retroactively_takes_the_points_back_and_on_again_returns_them(
    shop: Shop,
) -> None:
    shop.order("1", "10", paid_at=JULY)
    shop.award()
    shop.program(valid_from=JUNE, is_active=False)
    shop.enqueue("1")
    shop.award()
    shop.program(valid_from=JUNE)
    shop.enqueue("1")
    shop.award()
    assert shop.entries() == [("earned", 10), ("reversed", -10), ("re-earned", 10)]
    assert shop.problems() == []


def test_two_merchants_with_the_same_order_and_customer_never_meet(shop: Shop) -> None:
    shop.merchant("m2", points_per_unit=3)
    shop.order("1", "10")
    shop.order("1", "10", merchant="m2")
    shop.award()
    shop.set_status("1", "cancelled")
    shop.award()
    assert (shop.balance(), shop.balance(merchant="m2")) == (0, 30)
    assert shop.problems() == []


# --- orders that change ---------------------------------------------------------------------------------


def test_paid_then_cancelled_then_paid_again_ends_with_one_award_in_force(shop: Shop) -> None:
    shop.order("1", "10")
    for status in ("cancelled", "paid", "pending", "paid"):
        shop.award()
        shop.set_status("1", status)
    shop.award()
    assert shop.entries() == [
        ("earned", 10),
        ("reversed", -10),
        ("re-earned", 10),
        ("reversed", -10),
        ("re-earned", 10),
    ]
    assert shop.tracked("1") == {"ann": (10, 10, 0)}
    assert shop.problems() == []


def test_changes_that_cancel_each_other_out_before_the_award_leave_no_trace(shop: Shop) -> None:
    shop.order("1", "10")
    shop.set_status("1", "cancelled")
    shop.set_status("1", "paid")
    shop.order("2", "10")
    shop.set_status("2", "refunded")
    report = shop.award()
    assert shop.entries() == [("earned", 10)]
    assert (report.total("rows_claimed"), report.total("rows_repeated")) == (5, 3)
    assert shop.problems() == []


def test_an_amount_that_is_corrected_moves_the_points_by_the_difference(shop: Shop) -> None:
    shop.order("1", "10")
    for total in ("15", "15.99", "12", "0", "7"):
        shop.award()
        shop.change("1", total=total)
    shop.award()
    assert shop.entries() == [
        ("earned", 10),
        ("re-earned", 5),
        ("reversed", -3),
        ("reversed", -12),
        ("re-earned", 7),
    ]
    assert shop.problems() == []


def test_partial_refunds_take_back_what_the_net_amount_no_longer_deserves(shop: Shop) -> None:
    shop.order("1", "100")
    shop.award()
    for amount in ("33.33", "33.33", "33.33"):
        shop.refund("1", amount)
        shop.award()
    assert shop.entries() == [("earned", 100), ("reversed", -34), ("reversed", -33), ("reversed", -33)]
    shop.refund("1", "0.01")
    shop.refund("1", "500")
    shop.set_status("1", "refunded")
    shop.award()
    assert (shop.balance(), len(shop.entries())) == (0, 4)
    assert shop.problems() == []


def test_a_partial_refund_then_a_cancellation_never_takes_more_than_was_earned(shop: Shop) -> None:
    shop.program(clawback="allow_negative")
    shop.order("1", "100")
    shop.award()
    shop.refund("1", "40")
    shop.award()
    shop.set_status("1", "cancelled")
    shop.award()
    assert shop.entries() == [("earned", 100), ("reversed", -40), ("reversed", -60)]
    assert shop.problems() == []


def test_a_refund_that_is_taken_back_returns_the_points(shop: Shop) -> None:
    shop.order("1", "100")
    shop.refund("1", "40")
    shop.award()
    shop.run("DELETE FROM sample_shop.refunds")
    shop.award()
    assert shop.entries() == [("earned", 60), ("re-earned", 40)]
    assert shop.problems() == []


# --- points that were spent already ---------------------------------------------------------------------


@pytest.fixture
def spent(shop: Shop) -> Shop:
    """150 points earned with order 1 and 100 of them spent."""
    shop.order("1", "150")
    shop.award()
    shop.spend("ann", 100)
    return shop


def test_under_clamp_to_zero_what_was_spent_is_waived(spent: Shop) -> None:
    spent.set_status("1", "refunded")
    spent.award()
    assert spent.entries()[2:] == [("reversed", -50)]
    assert spent.balance() == 0
    assert spent.tracked("1") == {"ann": (0, 100, 100)}
    spent.enqueue("1")
    spent.award()
    assert len(spent.entries()) == 3
    assert spent.problems() == []


def test_what_was_waived_is_not_taken_from_later_points(spent: Shop) -> None:
    spent.set_status("1", "refunded")
    spent.award()
    spent.order("2", "70")
    spent.enqueue("1")
    spent.award()
    assert (spent.balance(), spent.tracked("1")) == (70, {"ann": (0, 100, 100)})
    assert spent.problems() == []


def test_under_allow_negative_the_account_goes_into_debt_and_the_next_credit_pays_it(spent: Shop) -> None:
    spent.program(clawback="allow_negative")
    spent.set_status("1", "refunded")
    spent.award()
    assert spent.entries()[2:] == [("reversed", -150)]
    assert (spent.balance(), spent.tracked("1")) == (-100, {"ann": (0, 0, 0)})
    spent.order("2", "130")
    spent.award()
    assert spent.balance() == 30
    assert spent.problems() == []


def test_an_account_in_debt_is_not_pushed_deeper_after_the_programme_stops_allowing_debt(spent: Shop) -> None:
    spent.program(clawback="allow_negative")
    spent.order("2", "20")
    spent.award()
    spent.set_status("1", "refunded")
    spent.award()
    spent.program(clawback="clamp_to_zero")
    spent.set_status("2", "refunded")
    spent.award()
    assert (spent.balance(), spent.tracked("2")) == (-80, {"ann": (0, 20, 20)})
    spent.order("3", "200")
    spent.award()
    assert (spent.balance(), spent.account().is_debt_allowed) == (120, False)
    assert spent.problems() == []


def test_spending_between_award_and_cancellation_does_not_earn_points_twice_when_paid_again(
    spent: Shop,
) -> None:
    for _ in range(3):
        spent.set_status("1", "cancelled")
        spent.award()
        spent.set_status("1", "paid")
        spent.award()
    assert spent.balance() == 50
    assert spent.tracked("1") == {"ann": (150, 150, 0)}
    assert spent.problems() == []


def test_waived_points_shrink_first_when_a_part_is_paid_again(spent: Shop) -> None:
    spent.set_status("1", "cancelled")
    spent.award()
    spent.order("1", "60")
    spent.award()
    assert (spent.balance(), spent.tracked("1")) == (0, {"ann": (60, 100, 40)})
    spent.change("1", total=120)
    spent.award()
    assert (spent.balance(), spent.tracked("1")) == (20, {"ann": (120, 120, 0)})
    assert spent.problems() == []


def test_what_was_paid_again_and_cancelled_again_is_taken_from_what_is_there_by_then(spent: Shop) -> None:
    # 60 of the 100 waived points are deserved again in between; only the other 40 stay forgiven.
    spent.set_status("1", "cancelled")
    spent.award()
    spent.order("1", "60")
    spent.award()
    spent.order("2", "500")
    spent.set_status("1", "cancelled")
    spent.award()
    assert (spent.balance(), spent.tracked("1")) == (440, {"ann": (0, 40, 40)})
    assert spent.problems() == []


def test_points_that_an_open_checkout_holds_are_not_taken(spent: Shop) -> None:
    spent.run("SELECT loyalty.reserve_points('m1', 'ann', 'in the cart', 40)")
    spent.set_status("1", "refunded")
    spent.award()
    assert (spent.balance(), spent.tracked("1")) == (40, {"ann": (0, 140, 140)})
    assert spent.problems() == []


def test_under_clamp_the_credits_of_a_batch_come_before_its_debits(spent: Shop) -> None:
    spent.set_status("1", "refunded")
    spent.order("2", "120")
    spent.award()
    assert spent.entries()[2:] == [("earned", 120), ("reversed", -150)]
    assert spent.balance() == 20
    assert spent.problems() == []


# --- points that expired already ------------------------------------------------------------------------


def test_a_refund_after_expiry_takes_nothing_of_what_was_earned_since(shop: Shop) -> None:
    shop.order("old", "100")
    shop.award()
    shop.expire("ann")
    shop.order("new", "30")
    shop.award()
    shop.set_status("old", "refunded")
    shop.award()
    assert shop.entries() == [("earned", 100), ("expired", -100), ("earned", 30)]
    assert shop.tracked("old") == {"ann": (0, 100, 100)}
    shop.set_status("new", "refunded")
    shop.award()
    assert (shop.balance(), shop.tracked("new")) == (0, {"ann": (0, 0, 0)})
    assert shop.problems() == []


def test_a_refund_after_expiry_is_never_turned_into_debt(shop: Shop) -> None:
    shop.program(clawback="allow_negative")
    shop.order("1", "100")
    shop.award()
    shop.expire("ann")
    shop.refund("1", "40")
    shop.award()
    assert (shop.balance(), shop.tracked("1")) == (0, {"ann": (60, 100, 40)})
    shop.set_status("1", "refunded")
    shop.award()
    assert (shop.balance(), shop.tracked("1")) == (0, {"ann": (0, 100, 100)})
    assert shop.problems() == []


def test_only_what_an_order_earned_since_the_expiry_can_be_taken_back(shop: Shop) -> None:
    shop.program(clawback="allow_negative")
    shop.order("1", "100")
    shop.order("2", "10")
    shop.award()
    shop.expire("ann")
    shop.change("1", total=120)
    shop.award()
    assert shop.balance() == 20
    shop.spend("ann", 20)
    shop.set_status("1", "refunded")
    shop.set_status("2", "refunded")
    shop.award()
    assert (shop.balance(), shop.tracked("1")) == (-20, {"ann": (0, 100, 100)})
    shop.enqueue("1", "2")
    shop.award()
    assert shop.balance() == -20
    assert shop.problems() == []


def test_what_was_waived_after_the_expiry_does_not_make_the_expired_part_takeable(shop: Shop) -> None:
    shop.order("1", "100")
    shop.award()
    shop.expire("ann")
    shop.change("1", total=120)
    shop.award()
    shop.spend("ann", 20)
    shop.change("1", total=100)
    shop.award()
    assert shop.tracked("1") == {"ann": (100, 120, 20)}
    shop.order("2", "50")
    shop.change("1", total=80)
    shop.award()
    assert (shop.balance(), shop.tracked("1")["ann"]) == (50, (80, 120, 40))
    assert shop.problems() == []


def test_an_order_that_is_paid_again_after_expiry_does_not_bring_expired_points_back(shop: Shop) -> None:
    shop.order("1", "100")
    shop.award()
    shop.expire("ann")
    shop.set_status("1", "cancelled")
    shop.award()
    shop.set_status("1", "paid")
    shop.award()
    assert shop.entries() == [("earned", 100), ("expired", -100)]
    assert shop.tracked("1") == {"ann": (100, 100, 0)}
    assert shop.problems() == []


# --- orders and customers that move ---------------------------------------------------------------------


def test_an_order_moved_to_another_customer_moves_its_points(shop: Shop) -> None:
    shop.order("1", "10")
    shop.award()
    shop.change("1", customer_id="bob")
    report = shop.award()
    assert shop.entries("ann") == [("earned", 10), ("reversed", -10)]
    assert shop.entries("bob") == [("re-earned", 10)]
    assert report.total("orders_changed") == 1
    assert shop.tracked("1") == {"ann": (0, 0, 0), "bob": (10, 10, 0)}
    assert shop.problems() == []


def test_a_moved_order_that_comes_back_and_is_cancelled_leaves_nothing_anywhere(shop: Shop) -> None:
    shop.order("1", "10")
    for customer in ("bob", "cleo", "ann", "bob", "ann"):
        shop.award()
        shop.change("1", customer_id=customer)
    shop.award()
    assert [shop.balance(name) for name in ("ann", "bob", "cleo")] == [10, 0, 0]
    shop.set_status("1", "cancelled")
    shop.award()
    assert [shop.balance(name) for name in ("ann", "bob", "cleo")] == [0, 0, 0]
    shop.set_status("1", "paid")
    shop.award()
    assert [shop.balance(name) for name in ("ann", "bob", "cleo")] == [10, 0, 0]
    shop.enqueue("1")
    assert shop.award().total("orders_changed") == 0
    assert shop.problems() == []


def test_an_order_that_is_moved_and_cancelled_at_once_gives_its_points_back_to_nobody(shop: Shop) -> None:
    shop.order("1", "10")
    shop.award()
    shop.change("1", customer_id="bob", status="cancelled")
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 0)
    shop.set_status("1", "paid")
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 10)
    assert shop.problems() == []


def test_points_already_spent_are_waived_when_their_order_moves(spent: Shop) -> None:
    spent.change("1", customer_id="bob")
    spent.award()
    assert (spent.balance("ann"), spent.balance("bob")) == (0, 150)
    assert spent.tracked("1") == {"ann": (0, 100, 100), "bob": (150, 150, 0)}
    spent.change("1", customer_id="ann")
    spent.award()
    assert (spent.balance("ann"), spent.balance("bob")) == (50, 0)
    assert spent.problems() == []


def test_an_order_worth_no_points_that_moves_and_grows_is_earned_by_the_new_customer(shop: Shop) -> None:
    shop.order("1", "0.50")
    shop.award()
    shop.change("1", customer_id="bob", total=50)
    shop.award()
    assert (shop.entries("ann"), shop.entries("bob")) == ([], [("earned", 50)])
    assert shop.problems() == []


def test_an_order_that_moved_unseen_is_found_also_where_nothing_is_left_on_the_former_account(shop: Shop) -> None:
    shop.order("1", "0.50")
    shop.order("2", "20")
    shop.award()
    shop.set_status("2", "cancelled")
    shop.award()
    shop.run("ALTER TABLE sample_shop.orders DISABLE TRIGGER USER")
    shop.change("1", customer_id="bob", total=50)
    shop.change("2", customer_id="bob", status="paid")
    found = {row.order_id for row in shop.rows("SELECT order_id FROM loyalty.order_differences('m1')")}
    assert found == {"1", "2"}
    shop.enqueue("1", "2")
    shop.award()
    assert shop.balance("bob") == 70
    assert shop.rows("SELECT * FROM loyalty.order_differences('m1')") == []
    assert shop.problems() == []


def test_many_orders_that_move_in_one_batch_beside_others_all_arrive(shop: Shop) -> None:
    for number in range(20):
        shop.order(str(number), 10 + number, customer="ann" if number % 2 else "bob")
    shop.award()
    shop.run("UPDATE sample_shop.orders SET customer_id = CASE customer_id WHEN 'ann' THEN 'bob' ELSE 'cleo' END")
    shop.order("new", "5", customer="ann")
    shop.award()
    evens, odds = sum(10 + n for n in range(0, 20, 2)), sum(10 + n for n in range(1, 20, 2))
    assert [shop.balance(name) for name in ("ann", "bob", "cleo")] == [5, odds, evens]
    assert shop.problems() == []


@pytest.mark.parametrize("nobody", [None, ""])
def test_an_order_without_a_customer_is_skipped(shop: Shop, nobody: str | None) -> None:
    shop.order("1", "10", customer=nobody)
    report = shop.award()
    assert report.total("orders_skipped") == 1
    assert shop.value("SELECT count(*) FROM loyalty.accounts") == 0
    assert (shop.queued(), shop.inbox()) == ({}, 0)
    assert shop.problems() == []


@pytest.mark.parametrize("nobody", [None, ""])
def test_points_stay_when_the_customer_is_removed_from_an_awarded_order(shop: Shop, nobody: str | None) -> None:
    shop.order("1", "10")
    shop.award()
    shop.change("1", customer_id=nobody)
    report = shop.award()
    assert shop.balance() == 10
    assert report.total("orders_skipped") == 1
    shop.set_status("1", "cancelled")
    shop.award()
    assert shop.balance() == 0
    assert shop.problems() == []


def test_an_order_deleted_before_it_was_looked_at_is_counted_as_missing(shop: Shop) -> None:
    shop.order("1", "10")
    shop.order("2", "20")
    shop.delete("1")
    report = shop.award()
    assert (report.total("orders_missing"), report.total("orders_skipped")) == (1, 1)
    assert report.failures == {}
    assert (shop.entries(), shop.queued(), shop.inbox()) == ([("earned", 20)], {}, 0)
    assert shop.problems() == []


def test_points_stay_when_an_awarded_order_is_deleted(shop: Shop) -> None:
    shop.order("1", "10")
    shop.award()
    shop.delete("1")
    shop.enqueue("1")
    report = shop.award()
    assert report.total("orders_skipped") == 1
    assert shop.tracked("1") == {"ann": (10, 10, 0)}
    shop.order("1", "12")
    shop.award()
    assert shop.entries() == [("earned", 10), ("re-earned", 2)]
    assert shop.problems() == []


def test_a_queue_item_is_closed_when_its_order_is_gone_from_the_shop(shop: Shop) -> None:
    shop.order("1", "NaN")
    shop.award()
    shop.delete("1")
    shop.enqueue("1")
    shop.award()
    assert shop.queued() == {}
    assert shop.problems() == []


def test_a_customer_without_an_address_and_one_the_shop_does_not_list_earn_like_others(shop: Shop) -> None:
    shop.run("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('m1', 'ann')")
    shop.order("1", "10")
    shop.order("2", "20", customer="unlisted")
    shop.award()
    assert (shop.balance("ann"), shop.balance("unlisted")) == (10, 20)
    assert shop.problems() == []


# --- orders that somebody must look at ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"status": "on_hold"}, "status_unrecognized"),
        ({"status": None}, "status_unrecognized"),
        ({"status": ""}, "status_unrecognized"),
        ({"paid_at": None}, "paid_at_missing"),
        ({"paid_at": datetime.now(UTC) + timedelta(days=2)}, "paid_at_in_future"),
        ({"currency": "USD"}, "currency_differs"),
        ({"currency": None}, "currency_differs"),
        ({"total": "NaN"}, "amount_invalid"),
        ({"total": "-0.01"}, "amount_invalid"),
        ({"total": None}, "amount_invalid"),
        ({"total": "1000000000000.01"}, "amount_invalid"),
        ({"total": "2000000001"}, "points_out_of_range"),
    ],
)
def test_an_order_that_cannot_be_decided_waits_in_the_queue_and_is_awarded_once_repaired(
    shop: Shop, columns: dict[str, Any], reason: str
) -> None:
    shop.order("1", "10", paid_at=JUNE)
    shop.change("1", **columns)
    report = shop.award()
    assert shop.queued() == {"1": reason}
    assert (report.total("orders_queued"), shop.entries(), shop.inbox()) == (1, [], 0)
    shop.enqueue("1")
    shop.award()
    (item,) = shop.rows("SELECT * FROM loyalty.reconciliation_queue")
    assert (item.attempts, item.customer_id, bool(item.detail), item.run_id) == (2, "ann", True, "test-run")
    shop.change("1", status="paid", paid_at=JUNE, currency="EUR", total=10)
    shop.award()
    assert shop.entries() == [("earned", 10)]
    (item,) = shop.rows("SELECT * FROM loyalty.reconciliation_queue")
    assert item.resolved_at is not None and "earning" in item.resolution
    assert shop.problems() == []


@pytest.mark.parametrize("columns", [{"status": "on_hold"}, {"total": "NaN"}, {"currency": "USD"}, {"paid_at": None}])
def test_an_awarded_order_that_cannot_be_decided_any_more_keeps_its_points(shop: Shop, columns: dict[str, Any]) -> None:
    shop.order("1", "10")
    shop.award()
    shop.change("1", **columns)
    shop.award()
    assert (shop.balance(), list(shop.queued())) == (10, ["1"])
    shop.set_status("1", "cancelled")
    shop.award()
    assert (shop.balance(), shop.queued()) == (0, {})
    assert shop.problems() == []


def test_a_queued_order_gets_the_reason_of_its_latest_attempt_and_a_new_item_after_it_was_closed(
    shop: Shop,
) -> None:
    shop.order("1", "NaN")
    shop.award()
    shop.change("1", currency="USD")
    shop.award()
    assert shop.queued() == {"1": "currency_differs"}
    shop.change("1", status="cancelled")
    shop.award()
    assert shop.queued() == {}
    shop.change("1", status="who knows")
    shop.award()
    assert shop.queued() == {"1": "status_unrecognized"}
    assert shop.value("SELECT count(*) FROM loyalty.reconciliation_queue") == 2
    assert shop.problems() == []


@pytest.mark.parametrize("rounding", ["floor", "half_up", "ceil"])
def test_an_order_paid_within_a_day_of_now_by_a_fast_clock_is_awarded(shop: Shop, rounding: str) -> None:
    shop.program(rounding=rounding)
    shop.order("1", "10", paid_at=datetime.now(UTC) + timedelta(hours=23))
    shop.award()
    assert shop.balance() == 10
    assert shop.problems() == []


def test_orders_of_a_merchant_that_the_shop_does_not_list_wait_in_the_queue(shop: Shop) -> None:
    shop.program("ghost")
    shop.order("1", "10", merchant="ghost")
    shop.order("2", "20")
    shop.award()
    assert shop.queued(merchant="ghost") == {"1": "merchant_unknown"}
    assert shop.balance() == 20
    shop.merchant("ghost")
    shop.enqueue("1", merchant="ghost")
    shop.award()
    assert (shop.balance(merchant="ghost"), shop.queued(merchant="ghost")) == (10, {})
    assert shop.problems() == []


@pytest.mark.parametrize(
    "timezone",
    [
        "Mars/Olympus",
        "",
        "Europe",
        "../../etc/passwd",
        "UTC+3",
        "x" * 5000,
        "right/Europe/Paris",
        "localtime",
        "posixrules",
        "Factory",
        "zone.tab",
        "'; DROP TABLE loyalty.accounts --",
        "\U0001f600",
    ],
)
def test_a_merchant_with_an_unknown_time_zone_is_warned_about_and_reckoned_in_utc(shop: Shop, timezone: str) -> None:
    shop.merchant("m2", timezone=timezone, points_expiration_days=10)
    shop.order("1", "10", merchant="m2", paid_at=datetime(2025, 6, 1, 23, 30, tzinfo=UTC))
    report = shop.award()
    assert shop.account(merchant="m2").expires_at == datetime(2025, 6, 12, tzinfo=UTC)
    if timezone not in ("Factory", "posixrules"):
        assert any("time zone" in warning for warning in report.merchants["m2"].warnings)
    assert shop.queued(merchant="m2") == {}
    assert shop.problems() == []


# --- stamps ---------------------------------------------------------------------------------------------


def test_stamps_are_given_with_the_order_and_taken_back_with_it(shop: Shop) -> None:
    shop.program(stamps_per_order=2)
    shop.order("1", "10")
    shop.award()
    assert shop.account().stamp_count == 2
    shop.set_status("1", "cancelled")
    shop.award()
    assert shop.account().stamp_count == 0
    shop.set_status("1", "paid")
    shop.award()
    assert shop.rows("SELECT kind, points, stamps FROM loyalty.ledger_entries ORDER BY seq") == [
        ("earned", 10, 2),
        ("reversed", -10, -2),
        ("re-earned", 10, 2),
    ]
    assert shop.problems() == []


def test_an_order_worth_no_points_can_earn_a_stamp_and_gives_it_back(shop: Shop) -> None:
    shop.program(stamps_per_order=1)
    shop.order("1", "0.50")
    shop.order("free", "0")
    shop.award()
    shop.set_status("1", "cancelled")
    shop.award()
    assert shop.rows("SELECT kind, points, stamps, reference_id FROM loyalty.ledger_entries ORDER BY seq") == [
        ("earned", 0, 1, "1"),
        ("reversed", 0, -1, "1"),
    ]
    assert shop.problems() == []


def test_stamps_need_the_minimum_amount_after_refunds(shop: Shop) -> None:
    shop.program(stamps_per_order=1, stamp_min_amount=20)
    shop.order("below", "19.99")
    shop.order("exact", "20")
    shop.award()
    assert (shop.account().stamp_count, shop.balance()) == (1, 39)
    shop.refund("exact", "0.01")
    shop.award()
    assert (shop.account().stamp_count, shop.balance()) == (0, 38)
    assert shop.problems() == []


def test_stamps_are_taken_back_also_where_the_points_are_gone(shop: Shop) -> None:
    shop.program(stamps_per_order=1)
    for number in range(4):
        shop.order(str(number), "10")
    shop.award()
    shop.spend("ann", 25)
    shop.run("UPDATE sample_shop.orders SET status = 'cancelled'")
    shop.award()
    assert (shop.balance(), shop.account().stamp_count) == (0, 0)
    assert shop.problems() == []


# --- activity and expiry --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timezone", "paid_at", "days", "expires_on"),
    [
        # Local dates, so a paid_at late in the evening UTC is the next day in Luxembourg and the same in Los Angeles.
        ("Europe/Luxembourg", datetime(2025, 3, 1, 23, 30, tzinfo=UTC), 365, date(2026, 3, 3)),
        ("America/Los_Angeles", datetime(2025, 3, 2, 7, 30, tzinfo=UTC), 365, date(2026, 3, 2)),
        # Over both changes of the clock, onto the days of the changes, and the days after them.
        ("Europe/Luxembourg", datetime(2025, 3, 20, 12, tzinfo=UTC), 9, date(2025, 3, 30)),
        ("Europe/Luxembourg", datetime(2025, 3, 20, 12, tzinfo=UTC), 10, date(2025, 3, 31)),
        ("Europe/Luxembourg", datetime(2025, 10, 20, 12, tzinfo=UTC), 6, date(2025, 10, 27)),
        ("America/Los_Angeles", datetime(2025, 11, 1, 12, tzinfo=UTC), 1, date(2025, 11, 3)),
        ("Europe/Luxembourg", datetime(2024, 2, 28, 12, tzinfo=UTC), 1, date(2024, 3, 1)),
        # Midnight does not exist in Santiago on the day summer time begins; the day starts at one.
        ("America/Santiago", datetime(2025, 9, 5, 15, tzinfo=UTC), 1, date(2025, 9, 7)),
        ("Pacific/Kiritimati", datetime(2025, 12, 31, 10, tzinfo=UTC), 1, date(2026, 1, 3)),
    ],
)
def test_points_expire_at_local_midnight_after_the_last_valid_day(
    shop: Shop, timezone: str, paid_at: datetime, days: int, expires_on: date
) -> None:
    shop.merchant("m2", timezone=timezone, points_expiration_days=days)
    shop.order("1", "10", merchant="m2", paid_at=paid_at)
    shop.award()
    midnight = datetime.combine(expires_on, datetime.min.time(), ZoneInfo(timezone))
    assert shop.account(merchant="m2").expires_at == midnight.astimezone(UTC)
    assert shop.problems() == []


@pytest.mark.parametrize("days", [None, 0, -1])
def test_points_never_expire_without_a_number_of_days(shop: Shop, days: int | None) -> None:
    shop.program(points_expiration_days=days)
    shop.order("1", "10", paid_at=JUNE)
    shop.award()
    assert (shop.account().last_activity_at, shop.account().expires_at) == (JUNE, None)
    assert shop.problems() == []


def test_the_last_activity_never_moves_back(shop: Shop) -> None:
    shop.program(points_expiration_days=10)
    shop.order("july", "10", paid_at=JULY)
    shop.award()
    expires_at = shop.account().expires_at
    shop.order("june", "10", paid_at=JUNE)
    shop.award()
    assert (shop.account().last_activity_at, shop.account().expires_at) == (JULY, expires_at)
    shop.order("august", "10", paid_at=AUGUST)
    shop.order("more", "10", paid_at=JUNE)
    shop.award()
    assert shop.account().last_activity_at == AUGUST
    assert shop.problems() == []


# What the expiry engine leaves of an account whose empty balance passed its date.
PASSED = "UPDATE loyalty.accounts SET expires_at = NULL, warned_for = :at"


@pytest.mark.parametrize("paid_at", [JUNE, JULY, JULY + timedelta(hours=1)])
def test_what_comes_late_to_an_account_whose_date_has_passed_has_a_date_again_and_no_warning(
    shop: Shop, paid_at: datetime
) -> None:
    shop.program(points_expiration_days=10)
    shop.order("july", "10", paid_at=JULY)
    shop.award()
    expires_at = shop.account().expires_at
    shop.expire("ann")
    shop.run(PASSED, at=expires_at)
    shop.order("late", "7", paid_at=paid_at)
    shop.award()
    account = shop.account()
    # All of them within one day of the merchant, so the date is the one that the customer was warned of.
    assert (account.balance, account.expires_at, account.warned_for) == (7, expires_at, None)
    assert shop.problems() == []


def test_what_comes_late_before_the_date_keeps_the_warning(shop: Shop) -> None:
    shop.program(points_expiration_days=10)
    shop.order("july", "10", paid_at=JULY)
    shop.award()
    shop.run("UPDATE loyalty.accounts SET expires_at = :at, warned_for = :at", at=AUGUST)
    shop.order("june", "10", paid_at=JUNE)
    shop.award()
    assert (shop.account().expires_at, shop.account().warned_for) == (AUGUST, AUGUST)


def test_what_comes_late_never_expires_where_nothing_does(shop: Shop) -> None:
    shop.order("july", "10", paid_at=JULY)
    shop.award()
    shop.order("june", "10", paid_at=JUNE)
    shop.award()
    assert shop.account().expires_at is None


def test_giving_points_back_is_no_activity(shop: Shop) -> None:
    shop.program(points_expiration_days=10)
    shop.order("1", "10", paid_at=JUNE)
    shop.award()
    before = shop.account()
    shop.refund("1", "5")
    shop.award()
    shop.set_status("1", "cancelled")
    shop.award()
    assert (shop.account().last_activity_at, shop.account().expires_at) == (JUNE, before.expires_at)
    assert shop.problems() == []


def test_giving_points_back_leaves_an_expiry_date_without_activity_alone(shop: Shop) -> None:
    shop.order("1", "10", paid_at=JUNE)
    shop.award()
    shop.run("UPDATE loyalty.accounts SET last_activity_at = NULL, expires_at = :at", at=AUGUST)
    shop.set_status("1", "cancelled")
    shop.award()
    assert shop.account().expires_at == AUGUST
    assert shop.problems() == []


# --- what a batch writes --------------------------------------------------------------------------------


def test_an_order_that_is_in_a_batch_several_times_is_awarded_once(shop: Shop) -> None:
    shop.order("1", "10")
    shop.enqueue(*["1"] * 9)
    report = shop.award()
    assert shop.entries() == [("earned", 10)]
    assert (report.total("rows_claimed"), report.total("rows_repeated")) == (10, 9)
    shop.enqueue(*["1"] * 9)
    assert shop.award(batch_size=2).total("orders_changed") == 0
    assert shop.problems() == []


def test_credits_and_debits_of_one_account_in_one_batch_chain_without_gaps(spent: Shop) -> None:
    spent.program(stamps_per_order=1, valid_from=JULY)
    for number in range(2, 8):
        spent.order(str(number), 10 * number)
    spent.award()
    # Of 320 points 250 are spent. 150, 20, 30 and 50 go, 40 grows by 1, 70 stays, and 8 is new and worth nothing.
    spent.spend("ann", 250)
    spent.set_status("1", "refunded")
    spent.set_status("2", "cancelled")
    spent.set_status("3", "cancelled")
    spent.change("4", total=41)
    spent.change("5", total=0)
    spent.enqueue("7")
    spent.order("8", "0")
    spent.award()
    rows = spent.rows("SELECT seq, points, balance_before, balance_after FROM loyalty.ledger_entries ORDER BY seq")
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1].balance_after == spent.balance() == 0
    taken = [row.points for row in rows if row.seq > 9]
    assert (taken[0], sum(taken)) == (1, -70)
    waived = spent.value("SELECT sum(waived_points) FROM loyalty.order_points")
    assert waived == 150 + 20 + 30 + 50 - 71
    assert spent.problems() == []


def test_every_size_of_batch_gives_the_same_balances(shop: Shop) -> None:
    for size in (1, 2, 7, 1000):
        merchant = f"size {size}"
        shop.merchant(merchant)
        for number in range(15):
            shop.order(str(number), number * 3, customer=f"c{number % 4}", merchant=merchant)
        report = shop.award(batch_size=size)
        assert report.merchants[merchant].batches == -(-15 // size) + (15 % size == 0)
        assert [shop.balance(f"c{n}", merchant=merchant) for n in range(4)] == [72, 84, 96, 63]
    assert shop.problems() == []


def test_a_dry_run_reports_and_writes_nothing(shop: Shop) -> None:
    shop.order("1", "10")
    shop.order("2", "20", customer="bob")
    shop.order("3", "NaN")
    before = dump(shop)
    for size in (1, 2, 100):
        report = shop.award(is_dry_run=True, batch_size=size)
        assert report.is_dry_run
        assert (report.total("orders_changed"), report.total("orders_queued")) == (2, 1)
        assert report.total("points_changed") == 30
        assert dump(shop) == before
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob"), shop.inbox()) == (10, 20, 0)
    assert shop.problems() == []


def dump(shop: Shop) -> dict[str, list[Any]]:
    """Return every row of every table of ours."""
    names = [row.tablename for row in shop.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'loyalty'")]
    return {name: shop.rows(f"SELECT t::text FROM loyalty.{name} AS t ORDER BY 1") for name in names}


def test_entries_say_who_wrote_them_in_which_run_and_when_it_happened(shop: Shop) -> None:
    shop.order("1", "10", paid_at=JUNE)
    drain(shop.engine, actor="sensor", run_id="run-1")
    shop.set_status("1", "cancelled")
    drain(shop.engine, actor="operator", run_id=None)
    first, second = shop.rows("SELECT * FROM loyalty.ledger_entries ORDER BY seq")
    assert (first.actor, first.run_id, first.occurred_at) == ("sensor", "run-1", JUNE)
    changed_at = shop.value("SELECT updated_at FROM sample_shop.orders")
    assert (second.actor, second.run_id, second.occurred_at) == ("operator", None, changed_at)
    assert (first.reference_type, first.reference_id, first.reference_seq) == ("order", "1", 1)
    assert second.reference_seq == 2
    assert shop.rows("SELECT actor, run_id FROM loyalty.award_batches ORDER BY batch_id") == [
        ("sensor", "run-1"),
        ("operator", None),
    ]
    assert shop.problems() == []


def test_points_given_back_for_a_refund_happened_when_it_was_refunded(shop: Shop) -> None:
    shop.run(
        "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at, updated_at) "
        "VALUES ('m1', '1', 'ann', 10, 'EUR', 'paid', :at, :at)",
        at=JUNE,
    )
    shop.award()
    shop.run(
        "INSERT INTO sample_shop.refunds (merchant_id, id, order_id, amount, refunded_at) "
        "VALUES ('m1', '1', '1', 5, :at)",
        at=JULY,
    )
    shop.award()
    assert shop.rows("SELECT occurred_at FROM loyalty.ledger_entries ORDER BY seq") == [(JUNE,), (JULY,)]
    assert shop.problems() == []


def test_a_change_stamped_in_the_future_happened_at_the_latest_now(shop: Shop) -> None:
    shop.order("1", "10")
    shop.award()
    shop.run("UPDATE sample_shop.orders SET status = 'cancelled', updated_at = 'infinity'")
    shop.award()
    assert shop.value("SELECT occurred_at = recorded_at FROM loyalty.ledger_entries WHERE seq = 2")
    assert shop.problems() == []


def test_award_batches_tie_up_with_what_was_claimed_and_written(shop: Shop) -> None:
    shop.order("changed", "10")
    shop.order("unpaid", "10", status="pending")
    shop.order("queued", "NaN")
    shop.order("missing", "10")
    shop.delete("missing")
    shop.enqueue("changed")
    shop.award()
    shop.enqueue("changed")
    shop.award()
    shop.award()
    first, second = shop.rows("SELECT * FROM loyalty.award_batches ORDER BY batch_id")
    assert (first.rows_claimed, first.rows_repeated, first.orders_changed, first.orders_queued) == (5, 1, 1, 1)
    assert (first.orders_skipped, first.orders_missing, first.orders_unchanged) == (2, 1, 0)
    assert (first.entries_written, first.points_changed) == (1, 10)
    assert (second.rows_claimed, second.orders_unchanged, second.entries_written) == (1, 1, 0)
    assert shop.problems() == []


# --- history stays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [None, "loyalty_owner"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE loyalty.ledger_entries SET points = 1, balance_after = balance_before + 1",
        "UPDATE loyalty.ledger_entries SET reason = 'x' WHERE false",
        "DELETE FROM loyalty.ledger_entries",
        "TRUNCATE loyalty.ledger_entries",
        "TRUNCATE loyalty.accounts CASCADE",
        "MERGE INTO loyalty.ledger_entries AS e USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
    ],
)
def test_nobody_changes_or_removes_an_entry_not_even_the_owner(shop: Shop, role: str | None, statement: str) -> None:
    shop.order("1", "10")
    shop.award()
    with shop.engine.connect() as conn:
        if role:
            conn.execute(text(f"SET ROLE {role}"))
        with pytest.raises(DBAPIError) as caught:
            conn.execute(text(statement))
        assert caught.value.orig.sqlstate == "LP001"  # type: ignore[union-attr]
    assert shop.entries() == [("earned", 10)]
    assert shop.problems() == []


@pytest.mark.parametrize(
    "statement", ["UPDATE loyalty.ledger_entries SET reason = 'x'", "DELETE FROM loyalty.ledger_entries"]
)
def test_the_pipeline_has_no_right_to_try(shop: Shop, statement: str) -> None:
    with shop.engine.connect() as conn:
        conn.execute(text("SET ROLE loyalty_pipeline"))
        with pytest.raises(DBAPIError, match="permission denied"):
            conn.execute(text(statement))


def test_the_pipelines_rights_are_enough_to_award(shop: Shop) -> None:
    shop.order("1", "10")
    shop.order("2", "NaN")
    shop.award()
    shop.change("1", customer_id="bob")
    # Roles belong to the server, and databases of other tests are on it.
    name = f"worker_{uuid.uuid4().hex}"
    shop.run(f"CREATE ROLE {name} LOGIN IN ROLE loyalty_pipeline")
    worker = connect(shop.engine.url.set(username=name).render_as_string(hide_password=False))
    report = drain(worker, actor="worker")
    worker.dispose()
    assert report.failures == {}
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 10)
    assert shop.problems() == []
