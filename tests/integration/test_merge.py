"""Merging one customer's account into another one's: nothing is lost, nothing is doubled, whatever comes after it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import accounts, merges, repairs
from loyalty_pipelines.db.sweep_run import sweep_merchants
from loyalty_pipelines.domain.merges import (
    AlreadyMergedError,
    Merge,
    MergeDoesNotAddUpError,
    MergeReport,
    NothingToMergeError,
)
from loyalty_pipelines.domain.repairs import ImpossibleRepairError
from tests.checkout import Checkout
from tests.integration.test_awards_concurrency import wait_until, waiting_for_a_lock
from tests.integration.test_repairs import adjustment
from tests.shop import Shop


def plan(source: str = "ann", into: str = "bob", *, merchant: str = "m1") -> Merge:
    return Merge(merchant_id=merchant, customer_id=source, into_customer_id=into, reason="one person", actor="eve")


def merge(shop: Shop, source: str = "ann", into: str = "bob", **more: str) -> MergeReport:
    """Merge, and hold what must be so after every merge."""
    with shop.engine.begin() as conn:
        report = merges.merge_accounts(conn, plan(source, into, **more))
    assert shop.problems() == []
    assert shop.balance(source) == 0
    return report


def differences(shop: Shop) -> list[Any]:
    return shop.rows("SELECT order_id, outcome, points_missing FROM loyalty.order_differences('m1')")


def requires_nothing(shop: Shop) -> bool:
    """Whether a full comparison and a look at every order write nothing."""
    before = shop.rows("SELECT merchant_id, account_id, seq FROM loyalty.ledger_entries ORDER BY 1, 2, 3")
    found = differences(shop)
    shop.run(
        "INSERT INTO loyalty.order_inbox (merchant_id, customer_id, order_id, source) "
        "SELECT merchant_id, customer_id, id, 'test' FROM sample_shop.orders"
    )
    shop.award()
    after = shop.rows("SELECT merchant_id, account_id, seq FROM loyalty.ledger_entries ORDER BY 1, 2, 3")
    return not found and before == after and shop.problems() == []


@pytest.fixture
def checkout(shop: Shop) -> Checkout:
    """A checkout; ann has earned 100 with the order 'a1' and 20 with 'a2', bob 50 with 'b1'."""
    shop.order("a1", "100.00")
    shop.order("a2", "20.00")
    shop.order("b1", "50.00", customer="bob")
    shop.award()
    return Checkout(shop.engine)


def test_everything_of_one_customer_is_the_others(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("r1", 30)
    report = merge(shop)
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 140)
    assert shop.entries("ann") == [
        ("earned", 100), ("earned", 20), ("redeemed", -30), ("reversed", -100), ("reversed", -20), ("adjusted", 30),
    ]  # fmt: skip
    assert shop.entries("bob") == [("earned", 50), ("re-earned", 100), ("re-earned", 20), ("adjusted", -30)]
    assert not shop.account("ann").is_active
    assert shop.account("bob").is_active
    assert (report.orders, report.points_of_orders, report.points_besides, report.entries) == (2, 120, -30, 6)
    assert shop.tracked("a1") == {"ann": (0, 0, 0), "bob": (100, 100, 0)}
    reasons = shop.rows(
        "SELECT DISTINCT kind, reason, actor FROM loyalty.ledger_entries WHERE actor = 'eve' ORDER BY 1, 2"
    )
    assert [tuple(row) for row in reasons] == [
        ("adjusted", "merged from ann: one person", "eve"),
        ("adjusted", "merged into bob: one person", "eve"),
        ("re-earned", "merged from ann", "eve"),
        ("reversed", "merged into bob", "eve"),
    ]


def test_what_remains_is_a_pair_of_entries_of_the_merge(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("r1", 30)
    merge(shop)
    rows = shop.rows(
        "SELECT customer_id, reference_id, reference_seq, points FROM loyalty.ledger_entries "
        "JOIN loyalty.accounts USING (merchant_id, account_id) WHERE reference_type = 'merge' ORDER BY reference_seq"
    )
    assert [tuple(row) for row in rows] == [("ann", "ann", 1, 30), ("bob", "ann", 2, -30)]


def test_where_nothing_remains_only_orders_move(shop: Shop, checkout: Checkout) -> None:
    assert merge(shop).entries == 4
    assert shop.rows("SELECT * FROM loyalty.ledger_entries WHERE reference_type = 'merge'") == []


def test_the_orders_arrive_in_the_order_in_which_they_were_earned(shop: Shop) -> None:
    for order in ("z", "m", "a"):
        shop.order(order, "10.00")
        shop.award()
    merge(shop)
    assert shop.rows("SELECT reference_id FROM loyalty.ledger_entries WHERE kind = 're-earned' ORDER BY seq") == [
        ("z",),
        ("m",),
        ("a",),
    ]


def test_after_it_every_order_has_what_it_deserves(shop: Shop, checkout: Checkout) -> None:
    shop.order("free", "0.00")
    shop.order("undone", "10.00")
    shop.award()
    shop.set_status("undone", "cancelled")
    shop.award()
    merge(shop)
    assert requires_nothing(shop)


def test_an_order_that_was_undone_before_it_is_earned_on_the_other_account(shop: Shop, checkout: Checkout) -> None:
    shop.set_status("a1", "cancelled")
    shop.award()
    merge(shop)
    shop.set_status("a1", "paid")
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 170)
    assert shop.entries("bob")[-1] == ("re-earned", 100)
    assert requires_nothing(shop)


def test_a_refund_takes_from_the_one_who_has_the_points(shop: Shop, checkout: Checkout) -> None:
    merge(shop)
    shop.refund("a1", "40.00")
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 130)
    shop.set_status("a1", "cancelled")
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 70)
    assert requires_nothing(shop)


def test_the_shop_giving_the_orders_to_the_other_customer_changes_nothing(shop: Shop, checkout: Checkout) -> None:
    merge(shop)
    for order in ("a1", "a2"):
        shop.change(order, customer_id="bob")
    entries = shop.entries("bob")
    shop.award()
    assert shop.entries("bob") == entries
    assert shop.balance("bob") == 170
    assert requires_nothing(shop)


def test_new_orders_are_the_others(shop: Shop, checkout: Checkout) -> None:
    merge(shop)
    shop.order("a3", "7.00", customer="ann")
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 177)
    assert requires_nothing(shop)


def test_what_the_merged_customer_redeems_is_the_others(shop: Shop, checkout: Checkout) -> None:
    merge(shop)
    assert checkout.spendable("ann") == 170
    checkout.redeem("r1", 160, "ann")
    assert shop.balance("bob") == 10
    checkout.update("r2", 5, 10, "ann", merchant_id="m1")
    assert shop.balance("bob") == 5
    assert shop.problems() == []


def test_an_adjustment_of_the_merged_customer_is_the_others(shop: Shop, checkout: Checkout) -> None:
    with shop.engine.begin() as conn:
        repairs.adjust(conn, adjustment(5, "ann", reference="t7"))
    merge(shop)
    with shop.engine.begin() as conn:
        again = repairs.adjust(conn, adjustment(5, "ann", reference="t7"))
        report = repairs.adjust(conn, adjustment(10, "ann"))
    assert again.is_repeated
    assert (again.account_customer_id, report.customer_id, report.account_customer_id) == ("bob", "ann", "bob")
    assert shop.balance("bob") == 185
    assert shop.problems() == []


def test_of_an_order_whose_points_had_expired_a_refund_takes_nothing(shop: Shop, checkout: Checkout) -> None:
    shop.expire("ann")
    shop.order("a3", "30.00")
    shop.award()
    merge(shop)
    assert shop.balance("bob") == 80
    gone = (
        "SELECT customer_id, gone_points FROM loyalty.order_points "
        "JOIN loyalty.accounts USING (merchant_id, account_id) WHERE order_id = 'a1' ORDER BY 1"
    )
    assert [tuple(row) for row in shop.rows(gone)] == [("ann", 0), ("bob", 100)]
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.balance("bob") == 80
    shop.set_status("a3", "cancelled")
    shop.award()
    assert shop.balance("bob") == 50
    shop.set_status("a1", "paid")
    shop.award()
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.balance("bob") == 50
    assert requires_nothing(shop)


def test_of_an_order_whose_points_had_expired_a_refund_takes_what_it_earned_since(
    shop: Shop, checkout: Checkout
) -> None:
    shop.expire("ann")
    shop.order("a1", "140.00")
    shop.award()
    merge(shop)
    assert shop.balance("bob") == 90
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.balance("bob") == 50
    assert requires_nothing(shop)


def test_the_others_next_expiry_takes_what_came_with_the_merge(shop: Shop, checkout: Checkout) -> None:
    merge(shop)
    shop.expire("bob")
    assert shop.balance("bob") == 0
    shop.order("b2", "5.00", customer="bob")
    shop.award()
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.balance("bob") == 5
    assert requires_nothing(shop)


def test_what_had_expired_stays_gone_through_a_second_merge(shop: Shop, checkout: Checkout) -> None:
    shop.expire("ann")
    merge(shop, "ann", "bob")
    merge(shop, "bob", "cid")
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.balance("cid") == 50
    assert requires_nothing(shop)


def test_points_waived_before_it_are_neither_taken_nor_given(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("r1", 110)
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.tracked("a1") == {"ann": (0, 90, 90)}
    merge(shop)
    assert shop.tracked("a1") == {"ann": (0, 0, 0), "bob": (0, 90, 90)}
    assert shop.balance("bob") == 50
    assert requires_nothing(shop)
    shop.set_status("a1", "paid")
    shop.award()
    assert shop.balance("bob") == 60


def test_an_order_that_both_had_points_of_is_one(shop: Shop, checkout: Checkout) -> None:
    """Ann has spent the points of an order that the shop then gave to bob: hers are waived, his are earned."""
    checkout.redeem("r1", 120)
    shop.change("a1", customer_id="bob")
    shop.award()
    assert shop.tracked("a1") == {"ann": (0, 100, 100), "bob": (100, 100, 0)}
    merge(shop)
    assert shop.tracked("a1") == {"ann": (0, 0, 0), "bob": (100, 200, 100)}
    assert shop.balance("bob") == 150
    assert requires_nothing(shop)
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.balance("bob") == 50
    assert requires_nothing(shop)


def test_what_had_expired_of_an_order_stays_gone_where_the_other_once_had_it(shop: Shop, checkout: Checkout) -> None:
    shop.change("a1", customer_id="cid")
    shop.award()
    shop.expire("cid")
    merge(shop, "cid", "bob")
    assert shop.tracked("a1") == {"ann": (0, 0, 0), "bob": (100, 100, 0), "cid": (0, 0, 0)}
    merge(shop, "ann", "bob")
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.balance("bob") == 70
    assert requires_nothing(shop)


def test_what_had_expired_and_was_waived_stays_gone_when_the_order_is_paid_again(
    shop: Shop, checkout: Checkout
) -> None:
    shop.change("b1", customer_id="ann")
    shop.award()
    shop.expire("ann")
    shop.set_status("b1", "cancelled")
    shop.award()
    shop.order("b2", "70.00", customer="bob")
    shop.award()
    assert shop.tracked("b1") == {"ann": (0, 50, 50), "bob": (0, 0, 0)}
    merge(shop, "ann", "bob")
    for status in ("paid", "cancelled"):
        shop.set_status("b1", status)
        shop.award()
    assert shop.balance("bob") == 70
    assert requires_nothing(shop)


def test_an_order_of_which_both_have_spent_the_points_stays_waived(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("r1", 120)
    shop.change("a1", customer_id="bob")
    shop.award()
    checkout.redeem("r2", 150, "bob")
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.tracked("a1") == {"ann": (0, 100, 100), "bob": (0, 100, 100)}
    merge(shop)
    assert shop.tracked("a1") == {"ann": (0, 0, 0), "bob": (0, 200, 200)}
    assert shop.balance("bob") == 0
    assert requires_nothing(shop)


@pytest.mark.parametrize(("source", "into"), [("ann", "bob"), ("bob", "ann")])
def test_an_order_keeps_the_version_of_the_programme_that_applied_to_it(
    shop: Shop, checkout: Checkout, source: str, into: str
) -> None:
    shop.change("a1", customer_id="bob")
    shop.award()
    shop.program(points_per_unit=2)
    shop.enqueue("a1")
    shop.award()
    merge(shop, source, into)
    version = (
        "SELECT program_version FROM loyalty.order_points JOIN loyalty.accounts USING (merchant_id, account_id) "
        "WHERE order_id = 'a1' AND customer_id = :customer"
    )
    assert shop.value(version, customer=into) == 2


def test_of_an_order_that_both_had_points_of_a_refund_takes_those_that_are_there(
    shop: Shop, checkout: Checkout
) -> None:
    shop.expire("ann")
    shop.change("a1", customer_id="bob")
    shop.award()
    assert shop.tracked("a1") == {"ann": (0, 100, 100), "bob": (100, 100, 0)}
    merge(shop)
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.balance("bob") == 50
    assert requires_nothing(shop)


def test_a_debt_goes_along(shop: Shop, checkout: Checkout) -> None:
    shop.program(clawback="allow_negative")
    checkout.redeem("r1", 120)
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.balance("ann") == -100
    merge(shop)
    assert (shop.balance("bob"), shop.account("bob").is_debt_allowed) == (-50, True)
    shop.order("a3", "60.00")
    shop.award()
    assert shop.balance("bob") == 10
    assert requires_nothing(shop)


def test_stamps_go_along(shop: Shop) -> None:
    shop.program(stamps_per_order=1)
    shop.order("a1", "0.50")
    shop.order("b1", "10.00", customer="bob")
    shop.award()
    report = merge(shop)
    assert (shop.account("ann").stamp_count, shop.account("bob").stamp_count) == (0, 2)
    assert (report.points_of_orders, report.entries) == (0, 2)
    shop.set_status("a1", "cancelled")
    shop.award()
    assert shop.account("bob").stamp_count == 1
    assert requires_nothing(shop)


def test_an_open_hold_is_captured_after_it(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 90)
    report = merge(shop)
    assert report.redemptions == 1
    assert (shop.account("ann").held, shop.account("bob").held) == (0, 90)
    assert checkout.spendable("bob") == 80
    assert checkout.capture("o") == ("o", 90, 170, 80)
    assert shop.problems() == []


def test_a_hold_larger_than_a_balance_in_debt_goes_along(shop: Shop, checkout: Checkout) -> None:
    shop.program(clawback="allow_negative")
    checkout.reserve("o", 100)
    shop.set_status("a1", "cancelled")
    shop.award()
    merge(shop, "ann", "cid")
    account = shop.account("cid")
    assert (account.balance, account.held, account.is_debt_allowed) == (20, 100, True)
    checkout.release("o")
    assert shop.account("cid").is_debt_allowed is False
    assert shop.problems() == []


def test_a_redemption_is_given_back_to_the_one_who_has_the_account(shop: Shop, checkout: Checkout) -> None:
    shop.order("o", "10.00", status="pending")
    checkout.redeem("o", 30)
    merge(shop)
    shop.set_status("o", "cancelled")
    shop.award()
    assert shop.balance("bob") == 170
    assert shop.entries("bob")[-1] == ("restored", 30)
    assert requires_nothing(shop)


def test_a_checkout_that_is_repeated_after_it_gets_its_answer(shop: Shop, checkout: Checkout) -> None:
    first = checkout.update("o", 5, 30, merchant_id="m1")
    merge(shop)
    assert checkout.update("o", 5, 30, merchant_id="m1") == first
    assert checkout.update("o", 5, 30, "bob", merchant_id="m1") == first
    assert shop.problems() == []


def test_expiry_and_activity_are_those_of_who_was_active_later(shop: Shop, checkout: Checkout) -> None:
    set_ = (
        "UPDATE loyalty.accounts SET last_activity_at = CAST(:active AS timestamptz), "
        "expires_at = CAST(:expires AS timestamptz) WHERE customer_id = :customer"
    )
    shop.run(set_, customer="ann", active="2026-03-01T00:00Z", expires="2100-03-01T00:00Z")
    shop.run(set_, customer="bob", active="2026-02-01T00:00Z", expires="2100-02-01T00:00Z")
    merge(shop)
    account = shop.account("bob")
    assert (account.last_activity_at.month, account.expires_at.month) == (3, 3)
    shop.order("c1", "1.00", customer="cid")
    shop.award()
    shop.run(set_, customer="cid", active="2026-01-01T00:00Z", expires=None)
    merge(shop, "cid", "bob")
    account = shop.account("bob")
    assert (account.last_activity_at.month, account.expires_at.month) == (3, 3)
    shop.order("d1", "1.00", customer="dan")
    shop.award()
    shop.run(set_, customer="dan", active="2026-04-01T00:00Z", expires=None)
    merge(shop, "dan", "bob")
    account = shop.account("bob")
    assert (account.last_activity_at.month, account.expires_at) == (4, None)
    shop.run(set_, customer="bob", active="2026-05-01T00:00Z", expires="2100-05-01T00:00Z")
    merge(shop, "bob", "new")
    account = shop.account("new")
    assert (account.last_activity_at.month, account.expires_at.month) == (5, 5)


DATES = (
    "UPDATE loyalty.accounts SET last_activity_at = CAST(:active AS timestamptz), "
    "expires_at = CAST(:expires AS timestamptz), warned_for = CAST(:warned AS timestamptz) "
    "WHERE customer_id = :customer"
)


@pytest.mark.parametrize("later", ["ann", "bob"])
def test_the_warning_goes_along_with_the_date_that_it_named(shop: Shop, checkout: Checkout, later: str) -> None:
    named = {"ann": "2100-03-01T00:00Z", "bob": "2100-02-01T00:00Z"}
    for customer, date in named.items():
        active = "2026-03-01T00:00Z" if customer == later else "2026-02-01T00:00Z"
        shop.run(DATES, customer=customer, active=active, expires=date, warned=date)
        shop.run(
            "INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, status, settled_at) "
            "SELECT 'm1', loyalty.warning_key(account_id, expires_at, 'UTC'), 'loyalty_points_expiring', customer_id, "
            "'sent', now() FROM loyalty.accounts WHERE customer_id = :customer",
            customer=customer,
        )
    merge(shop)
    account = shop.account("bob")
    assert account.expires_at == account.warned_for == datetime.fromisoformat(named["ann"])


@pytest.mark.parametrize("later", ["ann", "bob"])
def test_who_was_active_later_and_is_not_warned_leaves_no_warning(shop: Shop, checkout: Checkout, later: str) -> None:
    for customer in ("ann", "bob"):
        is_later = customer == later
        shop.run(
            DATES,
            customer=customer,
            active="2026-03-01T00:00Z" if is_later else "2026-02-01T00:00Z",
            expires="2100-03-01T00:00Z" if is_later else "2100-02-01T00:00Z",
            warned=None if is_later else "2100-02-01T00:00Z",
        )
    merge(shop)
    account = shop.account("bob")
    assert (account.expires_at.month, account.warned_for) == (3, None)


@pytest.mark.parametrize("later", ["ann", "bob"])
def test_points_that_come_to_an_empty_account_without_a_date_get_that_of_the_later_activity(
    shop: Shop, checkout: Checkout, later: str
) -> None:
    shop.program(points_expiration_days=90)
    other = "bob" if later == "ann" else "ann"
    shop.expire(later)
    date = "2026-05-30T22:00Z"
    shop.run(DATES, customer=later, active="2026-03-01T12:00Z", expires=None, warned=date)
    shop.run(DATES, customer=other, active="2026-02-01T12:00Z", expires="2026-05-02T22:00Z", warned="2026-05-02T22:00Z")
    merge(shop)
    account = shop.account("bob")
    assert account.balance > 0
    assert (account.last_activity_at.month, account.expires_at, account.warned_for) == (
        3, datetime.fromisoformat(date), None,
    )  # fmt: skip


def test_an_account_is_made_where_the_other_customer_has_none(shop: Shop, checkout: Checkout) -> None:
    report = merge(shop, "ann", "new")
    assert (report.is_into_new, report.is_into_listed) == (True, False)
    assert shop.balance("new") == 120
    assert requires_nothing(shop)


def test_the_same_merge_again_writes_nothing(shop: Shop, checkout: Checkout) -> None:
    merge(shop)
    entries = shop.entries("bob")
    again = merge(shop)
    assert again.is_repeated
    assert shop.entries("bob") == entries


def test_merges_follow_each_other_and_nobody_has_to_follow_a_chain(shop: Shop, checkout: Checkout) -> None:
    shop.order("c1", "3.00", customer="cid")
    shop.award()
    merge(shop, "ann", "bob")
    merge(shop, "bob", "cid")
    rows = shop.rows("SELECT customer_id, into_customer_id FROM loyalty.merged_customers ORDER BY 1")
    assert [tuple(row) for row in rows] == [("ann", "cid"), ("bob", "cid")]
    assert shop.balance("cid") == 173
    shop.set_status("a1", "cancelled")
    shop.order("a3", "7.00", customer="ann")
    shop.order("b2", "9.00", customer="bob")
    shop.award()
    assert shop.balance("cid") == 89
    assert requires_nothing(shop)
    assert merge(shop, "ann", "bob").is_repeated
    assert merge(shop, "ann", "cid").is_repeated


@pytest.mark.parametrize(
    ("source", "into", "says"),
    [
        ("ann", "cid", "Customer 'ann' was merged into 'bob' already"),
        ("bob", "ann", "Customer 'ann' was merged into 'bob' already"),
        ("cid", "ann", "Use 'bob' instead"),
    ],
)
def test_who_was_merged_is_not_merged_again(shop: Shop, checkout: Checkout, source: str, into: str, says: str) -> None:
    shop.order("c1", "3.00", customer="cid")
    shop.award()
    merge(shop)
    with shop.engine.begin() as conn, pytest.raises(AlreadyMergedError) as caught:
        merges.merge_accounts(conn, plan(source, into))
    assert says in str(caught.value)


def test_a_customer_without_an_account_has_nothing_to_merge(shop: Shop, checkout: Checkout) -> None:
    with shop.engine.begin() as conn, pytest.raises(NothingToMergeError, match="'amn' has no account at merchant"):
        merges.merge_accounts(conn, plan("amn"))
    shop.run("UPDATE loyalty.accounts SET is_active = false WHERE customer_id = 'ann'")
    with shop.engine.begin() as conn, pytest.raises(NothingToMergeError, match="has an account that is not active"):
        merges.merge_accounts(conn, plan())
    with pytest.raises(ImpossibleRepairError, match="expected another customer"):
        plan("ann", "ann")


def test_the_customers_of_another_merchant_are_left_alone(shop: Shop, checkout: Checkout) -> None:
    shop.merchant("m2")
    for customer, order in (("ann", "a1"), ("bob", "b1")):
        shop.order(order, "10.00", customer=customer, merchant="m2")
    shop.award()
    merge(shop)
    assert (shop.balance("ann", merchant="m2"), shop.balance("bob", merchant="m2")) == (10, 10)
    shop.set_status("a1", "cancelled", merchant="m2")
    shop.award()
    assert (shop.balance("ann", merchant="m2"), shop.balance("bob")) == (0, 170)
    assert shop.problems() == []


def test_a_parked_item_keeps_back_what_is_the_other_customers_after_the_merge(shop: Shop, checkout: Checkout) -> None:
    shop.run(
        "INSERT INTO loyalty.reconciliation_queue (merchant_id, operation, order_id, customer_id, reason, parked_at, "
        "resolved_at, resolution) VALUES ('m1', 'update', 'q1', 'ann', 'other_numbers', now(), NULL, NULL), "
        "('m1', 'update', 'q0', 'ann', 'other_numbers', NULL, now(), 'applied')"
    )
    merge(shop)
    items = shop.rows("SELECT order_id, customer_id FROM loyalty.reconciliation_queue ORDER BY order_id")
    assert items == [("q0", "ann"), ("q1", "bob")]
    with shop.engine.connect() as conn:
        found = accounts.find_account(conn, "m1", "ann")
    assert found is not None
    assert (found.customer_id, (found.parked_reason or "")[-13:]) == ("bob", "other_numbers")


def test_a_merge_that_loses_something_is_refused(shop: Shop, checkout: Checkout) -> None:
    shop.run(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.balance = 170 THEN NEW.balance = 169; END IF; RETURN NEW; END $$"
    )
    shop.run("CREATE TRIGGER lose BEFORE UPDATE ON loyalty.accounts FOR EACH ROW EXECUTE FUNCTION lose()")
    lost = "both accounts had 170 points before it and 169 after it"
    with pytest.raises(MergeDoesNotAddUpError, match=lost), shop.engine.begin() as conn:
        merges.merge_accounts(conn, plan())
    assert (shop.balance("ann"), shop.balance("bob")) == (120, 50)


def test_an_account_of_many_orders_merges_in_a_handful_of_statements(shop: Shop, checkout: Checkout) -> None:
    shop.run(
        "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at) "
        "SELECT 'm1', 'n' || n, 'ann', n % 7, 'EUR', 'paid', now() FROM generate_series(1, 2000) AS n"
    )
    shop.award()
    statements = []
    event.listen(shop.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    with shop.engine.begin() as conn:
        report = merges.merge_accounts(conn, plan())
    assert report.orders == 2002
    assert len(statements) <= 12
    assert shop.problems() == []
    assert requires_nothing(shop)


def undo(shop: Shop, source: str, into: str, points_besides: int) -> None:
    """Undo a merge as docs/accounts.md says it."""
    shop.run("DELETE FROM loyalty.merged_customers WHERE merchant_id = 'm1' AND customer_id = :source", source=source)
    shop.run("UPDATE loyalty.accounts SET is_active = true WHERE merchant_id = 'm1' AND customer_id = :id", id=source)
    for swept in sweep_merchants(shop.engine, ["m1"]):
        assert swept.failure is None
    for customer, points in ((into, -points_besides), (source, points_besides)):
        if points:
            with shop.engine.begin() as conn:
                repairs.adjust(conn, adjustment(points, customer))


def test_a_merge_is_undone_by_hand_and_may_be_made_again(shop: Shop, checkout: Checkout) -> None:
    with shop.engine.begin() as conn:
        repairs.adjust(conn, adjustment(15, "ann"))
    report = merge(shop)
    undo(shop, "ann", "bob", report.points_besides)
    assert (shop.balance("ann"), shop.balance("bob")) == (135, 50)
    assert requires_nothing(shop)
    merge(shop)
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 185)
    assert requires_nothing(shop)


def test_undoing_a_merge_brings_points_back_that_had_expired_and_they_are_taken(shop: Shop, checkout: Checkout) -> None:
    shop.expire("ann")
    merge(shop)
    undo(shop, "ann", "bob", 0)
    assert (shop.balance("ann"), shop.balance("bob")) == (120, 50)
    with shop.engine.begin() as conn:
        repairs.adjust(conn, adjustment(-120, "ann"))
    for order in ("a1", "a2"):
        shop.set_status(order, "cancelled")
    shop.award()
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 50)
    assert requires_nothing(shop)


def test_the_role_of_the_pipelines_is_enough_to_repair(shop: Shop, checkout: Checkout) -> None:
    shop.run("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('m1', 'new')")
    with shop.engine.begin() as conn:
        conn.execute(text("SET LOCAL ROLE loyalty_pipeline"))
        repairs.adjust(conn, adjustment(5, "new"))
        merges.merge_accounts(conn, plan("ann", "new"))
        repairs.adjust(conn, adjustment(-25, "ann"))
    assert shop.balance("new") == 100
    assert shop.problems() == []


# --- at once ---


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run works in threads that start together; raise what one of them raises."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        start.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(run, work) for work in works]]


def test_merging_awarding_and_redeeming_at_once_loses_nothing(shop: Shop, checkout: Checkout) -> None:
    """Every customer is merged into the next one, back and forth over the order of their accounts, under traffic."""
    customers = [f"c{n}" for n in range(12)]
    for n, customer in enumerate(customers):
        shop.order(f"first{n}", "100.00", customer=customer)
    shop.award()
    redeemed = []

    def traffic(worker: int) -> None:
        for n in range(60):
            customer = customers[(7 * n + worker) % len(customers)]
            shop.order(f"w{worker}n{n}", "10.00", customer=customer)
            try:
                checkout.redeem(f"r{worker}n{n}", 5, customer)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != "LP002":
                    raise
                continue
            redeemed.append(5)

    def award() -> None:
        for _ in range(30):
            report = shop.drain()
            assert report.failures == {}

    def merge_all() -> None:
        pairs = [(n, n + 1) if n % 4 == 0 else (n + 1, n) for n in range(0, len(customers), 2)]
        for source, into in pairs:
            with shop.engine.begin() as conn:
                merges.merge_accounts(conn, plan(customers[source], customers[into]))

    at_once(lambda: traffic(1), lambda: traffic(2), award, merge_all)
    shop.award()
    assert shop.problems() == []
    assert differences(shop) == []
    total = shop.value("SELECT sum(balance) FROM loyalty.accounts WHERE customer_id LIKE 'c%'")
    assert total == 100 * len(customers) + 120 * 10 - sum(redeemed)
    assert shop.value("SELECT count(*) FROM loyalty.merged_customers") == 6
    assert shop.value("SELECT count(*) FROM loyalty.accounts WHERE NOT is_active AND balance <> 0") == 0


def test_a_redemption_that_waits_for_a_merge_takes_from_the_other_account(shop: Shop, checkout: Checkout) -> None:
    with shop.engine.connect() as conn, conn.begin() as transaction:
        merges.merge_accounts(conn, plan())
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(checkout.redeem, "r1", 150, "ann")
            wait_until(waiting_for_a_lock(shop, "loyalty"))
            transaction.commit()
            assert waiting.result().balance_after == 20
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 20)
    assert shop.problems() == []


def test_two_merges_into_each_other_at_once_are_one(shop: Shop, checkout: Checkout) -> None:
    def try_(source: str, into: str) -> str:
        try:
            with shop.engine.begin() as conn:
                return "repeated" if merges.merge_accounts(conn, plan(source, into)).is_repeated else "done"
        except AlreadyMergedError:
            return "refused"

    assert sorted(at_once(lambda: try_("ann", "bob"), lambda: try_("bob", "ann"))) == ["done", "refused"]
    assert shop.balance("ann") + shop.balance("bob") == 170
    assert shop.problems() == []
