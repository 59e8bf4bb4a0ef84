"""Warnings, plan and expiry of one merchant: who is told, what goes, what stays, and what a change of terms does."""

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from loyalty_pipelines.db import capture, expiry, merges, repairs, sample_shop, sources
from loyalty_pipelines.db.expiry_checks import expired_unwarned
from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.domain.expiry import (
    FutureRunError,
    Limits,
    Page,
    Step,
)
from loyalty_pipelines.domain.merges import Merge
from loyalty_pipelines.domain.repairs import Adjustment
from loyalty_pipelines.domain.source_mapping import NoMappingError, parse_mapping
from tests.checkout import Checkout
from tests.expiry import EXPIRED, WARNING, Nights, at, midnight, night
from tests.shop import Shop

# 30 days of period, 14 of lead, in Luxembourg.
ACTIVE_AT = "2025-01-01T12:00:00+01:00"
WARNED_ON = date(2025, 1, 18)
GONE_ON = date(2025, 2, 1)
GONE_AT = midnight(GONE_ON)
DUE_AT = night(GONE_ON)


@pytest.fixture
def nights(shop: Shop) -> Nights:
    """The shop's nights; points of m1 expire after 30 days."""
    shop.program(points_expiration_days=30)
    return Nights(shop)


@pytest.fixture
def checkout(shop: Shop) -> Checkout:
    return Checkout(shop.engine)


def warn(nights: Nights, *customers: str, points: int = 100) -> None:
    """Give customers points of ACTIVE_AT, tell them, and deliver the mails."""
    for customer in customers:
        nights.account(customer, active_at=ACTIVE_AT, points=points)
    nights.live(WARNED_ON, 1)


def local_dates(found: list[tuple[str, datetime, str]]) -> list[tuple[str, date, str]]:
    """Warnings by the date at whose beginning the points go, in Luxembourg."""
    return [(customer, (instant + timedelta(hours=3)).date(), status) for customer, instant, status in found]


# --- warned, then gone ----------------------------------------------------------------------------------


def test_points_of_a_customer_who_was_told_and_stayed_away_go(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    done = nights.run(DUE_AT, run_id="r1")
    account = shop.account()
    (entry,) = shop.rows("SELECT * FROM loyalty.ledger_entries WHERE kind = 'expired'")
    assert (entry.seq, entry.points, entry.balance_before, entry.balance_after) == (2, -100, 100, 0)
    assert (entry.occurred_at, entry.actor, entry.run_id) == (GONE_AT, "test", "r1")
    assert (account.balance, account.next_seq, account.last_expiry_seq) == (0, 3, 2)
    assert (account.expires_at, account.warned_for) == (None, None)
    assert account.last_activity_at == at(ACTIVE_AT)
    assert (done.run_id, done.accounts_expired, done.points_expired, done.accounts_warned) == ("r1", 1, 100, 0)
    assert shop.problems() == []


def test_both_mails_name_the_points_and_the_instant_from_which_they_are_gone(nights: Nights) -> None:
    warn(nights, "ann")
    nights.run(DUE_AT)
    payload = {"points": 100, "expires_at": GONE_AT.isoformat()}
    assert nights.mails() == [("ann", WARNING, payload), ("ann", EXPIRED, payload)]


def test_the_mails_are_of_the_transactions_that_cause_them(shop: Shop, nights: Nights) -> None:
    """The row's xmin has 32 bits of the transaction's 64."""
    nights.account(active_at=ACTIVE_AT)
    nights.run(night(WARNED_ON))
    assert shop.value("SELECT n.xmin = a.xmin FROM loyalty.notifications AS n, loyalty.accounts AS a")
    nights.deliver()
    nights.run(DUE_AT)
    assert shop.value(
        "SELECT n.xmin = a.xmin AND n.xmin::text = (e.recorded_xid::text::numeric % 4294967296)::text "
        "FROM loyalty.notifications AS n, loyalty.accounts AS a, loyalty.ledger_entries AS e "
        "WHERE n.template = 'loyalty_points_expired' AND e.kind = 'expired'"
    )


def test_a_second_run_of_a_night_warns_nobody_and_takes_nothing_again(shop: Shop, nights: Nights) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    counted = [nights.run(night(WARNED_ON)).accounts_warned for _ in range(3)]
    nights.deliver()
    taken = [nights.run(DUE_AT).accounts_expired for _ in range(3)]
    assert (counted, taken) == ([1, 0, 0], [1, 0, 0])
    assert [template for _, template, _ in nights.mails()] == [WARNING, EXPIRED]
    assert (shop.entries(), shop.problems()) == ([("earned", 100), ("expired", -100)], [])


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 500])
def test_pages_of_any_size_take_everybody_once(shop: Shop, nights: Nights, chunk_size: int) -> None:
    nights.crowd(4, active_at=ACTIVE_AT, prefix="a")
    nights.crowd(3, active_at="2024-12-31T12:00:00+01:00", prefix="b")
    warned = nights.run(night(WARNED_ON), chunk_size=chunk_size)
    nights.deliver()
    gone = nights.run(DUE_AT, chunk_size=chunk_size)
    assert (warned.accounts_warned, warned.points_warned) == (7, 700)
    assert (gone.accounts_expired, gone.points_expired, gone.accounts_locked) == (7, 700, 0)
    assert set(map(tuple, nights.expired().values())) == {(100,)}
    assert (len(nights.mails(WARNING)), len(nights.mails(EXPIRED)), shop.problems()) == (7, 7, [])


def test_each_merchants_points_go_by_its_own_terms(shop: Shop, nights: Nights) -> None:
    shop.merchant("m10", points_expiration_days=10)
    shop.merchant("m20", points_expiration_days=20)
    for merchant in ("m1", "m10", "m20"):
        nights.account(merchant=merchant, active_at=ACTIVE_AT)
    told = nights.live("2025-01-07", 26)
    assert [(one.merchant, one.night_on.isoformat()) for one in told if one.template == EXPIRED] == [
        ("m10", "2025-01-12"),
        ("m20", "2025-01-22"),
        ("m1", "2025-02-01"),
    ]


def test_the_same_id_at_two_merchants_is_two_accounts(shop: Shop, nights: Nights) -> None:
    shop.merchant("m2", points_expiration_days=30)
    nights.account("ann", active_at="2025-02-01T12:00:00Z", merchant="m2")
    warn(nights, "ann")
    nights.run_all(DUE_AT)
    assert (shop.balance("ann"), shop.balance("ann", merchant="m2")) == (0, 100)


@pytest.mark.parametrize(
    ("steps", "warned", "gone"),
    [({Step.WARN}, 1, 0), ({Step.PLAN}, 0, 0), ({Step.PLAN, Step.EXPIRE}, 0, 1), ({Step.EXPIRE}, 0, 1)],
)
def test_only_the_steps_that_are_asked_for_are_done(nights: Nights, steps: set[Step], warned: int, gone: int) -> None:
    warn(nights, "ann")
    nights.account("bob", active_at="2025-01-10T12:00:00+01:00")
    done = nights.run(DUE_AT, steps=frozenset(steps))
    assert (done.accounts_warned, done.accounts_expired) == (warned, gone)
    assert (done.plan.accounts_due if done.plan else None) == (None if steps == {Step.WARN} else 1)


def test_the_steps_of_one_night_are_one_run(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    nights.account("bob", active_at="2025-01-10T12:00:00+01:00")
    done = [nights.run(DUE_AT, steps=frozenset({step})) for step in Step]
    assert len({one.run_id for one in done}) == 1
    assert (done[-1].accounts_warned, done[-1].accounts_expired) == (1, 1)
    assert shop.value("SELECT count(*) FROM loyalty.expiry_runs WHERE as_of = :as_of", as_of=DUE_AT) == 1


# --- delivery -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_a_warning_that_does_not_arrive_gets_a_later_date_each_night_until_it_does(
    shop: Shop, nights: Nights, status: str
) -> None:
    nights.account(active_at=ACTIVE_AT)
    seen = []
    for number in range(17):
        nights.live(WARNED_ON + timedelta(days=number), 1, is_delivered=False)
        seen += local_dates(nights.warnings())
        if status == "failed":
            nights.settle("failed")
    # Always the whole lead, always the one mail, and it is tried again.
    assert seen == [("ann", WARNED_ON + timedelta(days=number + 14), "pending") for number in range(17)]
    if status == "failed":
        shop.run("UPDATE loyalty.notifications SET status = 'pending', settled_at = NULL")
    nights.deliver()
    promised_on = WARNED_ON + timedelta(days=16 + 14)
    told = nights.live(WARNED_ON + timedelta(days=17), 16)
    assert [(one.night_on, one.template, one.expires_at) for one in told] == [
        (promised_on, EXPIRED, midnight(promised_on))
    ]
    assert [(customer, day) for customer, day, _ in local_dates(nights.warnings())] == [("ann", promised_on)]
    assert shop.problems() == []


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_points_that_are_due_stay_while_their_warning_has_not_arrived(shop: Shop, nights: Nights, status: str) -> None:
    warn(nights, "ann", "bob")
    shop.run(
        "UPDATE loyalty.notifications SET status = :status, "
        "settled_at = CASE WHEN :status = 'failed' THEN now() END WHERE customer_id = 'ann'",
        status=status,
    )
    plan = nights.run(DUE_AT, steps=frozenset({Step.PLAN, Step.EXPIRE})).plan
    assert plan is not None
    assert (plan.accounts_due, plan.accounts_waiting, nights.expired()) == (1, 1, {"bob": [100]})
    done = nights.run(DUE_AT)
    assert (done.accounts_moved, nights.expired()) == (1, {"bob": [100]})
    assert ("ann", midnight("2025-02-15"), "pending") in nights.warnings()


def test_a_mail_that_names_more_points_by_now_says_so_when_it_gets_a_later_date(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    # An old order: no activity, but points.
    nights.account(active_at="2024-12-20T12:00:00+01:00", points=20)
    nights.live(WARNED_ON + timedelta(days=1), 1, is_delivered=False)
    assert [payload["points"] for _, _, payload in nights.mails()] == [120]


def test_who_cannot_be_reached_expires_on_time(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    nights.settle("parked")
    told = nights.live(WARNED_ON + timedelta(days=1), 15)
    assert [(one.night_on, one.template) for one in told] == [(GONE_ON, EXPIRED)]
    assert nights.warnings() == [("ann", GONE_AT, "parked")]


def test_a_mail_that_a_sender_is_at_work_on_keeps_its_date(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    shop.run("UPDATE loyalty.notifications SET leased_until = now() + interval '1 minute'")
    done = nights.run(DUE_AT)
    assert (done.accounts_moved, done.accounts_expired) == (0, 0)
    assert nights.warnings() == [("ann", GONE_AT, "pending")]
    # The sender died: its lease ends.
    shop.run("UPDATE loyalty.notifications SET leased_until = now() - interval '1 second'")
    assert nights.run(DUE_AT).accounts_moved == 1
    assert nights.warnings() == [("ann", midnight("2025-02-15"), "pending")]


def test_a_renewed_mail_is_tried_at_once_and_with_all_its_tries(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    shop.run("UPDATE loyalty.notifications SET attempts = 3, next_attempt_at = now() + interval '6 hours'")
    nights.run(night(WARNED_ON + timedelta(days=1)))
    (mail,) = shop.rows("SELECT *, next_attempt_at <= now() AS is_due FROM loyalty.notifications")
    assert (mail.attempts, mail.is_due, mail.dedupe_key.rsplit("/", 1)[1]) == (0, True, "2025-02-02")


def test_a_warning_that_failed_for_an_earlier_date_does_not_keep_later_points_for_ever(
    shop: Shop, nights: Nights
) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    nights.settle("failed")
    nights.account(active_at="2025-01-20T12:00:00+01:00")
    told = nights.live("2025-02-01", 30)
    assert [(one.template, one.points, one.expires_at) for one in told] == [
        (WARNING, 200, midnight("2025-02-20")),
        (EXPIRED, 200, midnight("2025-02-20")),
    ]
    assert nights.warnings() == [("ann", GONE_AT, "void"), ("ann", midnight("2025-02-20"), "sent")]


def test_a_mail_of_an_earlier_date_is_left_to_the_sender_who_is_at_work_on_it(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    nights.account(active_at="2025-01-20T12:00:00+01:00")
    shop.run("UPDATE loyalty.notifications SET leased_until = now() + interval '1 minute'")
    nights.run("2025-01-21T02:00:00Z")
    assert nights.warnings() == [("ann", GONE_AT, "pending")]
    shop.run("UPDATE loyalty.notifications SET leased_until = now() - interval '1 second'")
    nights.run("2025-01-21T02:00:00Z")
    assert nights.warnings() == [("ann", GONE_AT, "void")]


def test_a_date_whose_mail_was_void_is_told_again(shop: Shop, nights: Nights) -> None:
    """The date was another one when the mail's turn came, and is the same again since."""
    nights.account(active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    shop.program(points_expiration_days=60)
    nights.run(night(WARNED_ON))
    nights.settle("void")
    shop.program(points_expiration_days=30)
    nights.run(night(WARNED_ON))
    assert nights.warnings() == [("ann", GONE_AT, "pending")]
    assert nights.run(DUE_AT).accounts_expired == 0


def test_a_date_that_another_mail_of_the_account_has_named_is_left_out_for_a_night(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    shop.run(
        "INSERT INTO loyalty.notifications "
        "(merchant_id, dedupe_key, template, customer_id, payload, status, settled_at) "
        "SELECT merchant_id, 'expiring/' || account_id || '/2025-02-02', :template, customer_id, "
        "jsonb_build_object('points', 1, 'expires_at', CAST(:instant AS timestamptz)), 'sent', now() "
        "FROM loyalty.accounts",
        template=WARNING,
        instant=midnight("2025-02-02"),
    )
    shown = nights.run(night(WARNED_ON + timedelta(days=1)), is_dry_run=True)
    done = nights.run(night(WARNED_ON + timedelta(days=1)))
    assert (shown.accounts_moved, done.accounts_moved, shop.account().expires_at) == (0, 0, GONE_AT)
    assert nights.run(night(WARNED_ON + timedelta(days=2))).accounts_moved == 1
    assert shop.account().expires_at == midnight("2025-02-03")


def test_without_a_required_warning_everything_due_goes_and_no_date_moves(shop: Shop, nights: Nights) -> None:
    nights.account("pending", active_at=ACTIVE_AT)
    nights.account("failed", active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    nights.settle("failed", customer="failed")
    nights.account("never told", active_at="2024-12-01T12:00:00+01:00")
    nights.account("near", active_at="2025-01-05T12:00:00+01:00")
    done = nights.run(DUE_AT, is_warning_required=False)
    assert (done.accounts_expired, done.accounts_moved, done.accounts_warned) == (3, 0, 1)
    assert nights.expired() == {"never told": [100], "pending": [100], "failed": [100]}
    near = shop.account("near")
    assert near.expires_at == near.warned_for == midnight("2025-02-05")
    assert shop.problems() == []


# --- activity -------------------------------------------------------------------------------------------


def test_activity_between_plan_and_expiry_saves_an_account(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann", "bob")
    planned = nights.run(DUE_AT, steps=frozenset({Step.PLAN})).plan
    assert planned is not None
    assert planned.accounts_due == 2
    nights.account("ann", active_at="2025-02-01T01:30:00+01:00", points=1)
    done = nights.run(DUE_AT, steps=frozenset({Step.EXPIRE}))
    assert (done.accounts_expired, nights.expired()) == (1, {"bob": [100]})
    assert (shop.balance(), shop.account().expires_at) == (101, midnight("2025-03-04"))


def test_activity_between_two_pages_saves_an_account(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann", "bob", "cid")
    seen: list[int] = []

    def between(_: str, page: Page) -> None:
        if page.accounts and not seen:
            nights.account("cid", active_at="2025-02-01T01:30:00+01:00", points=1)
        seen.extend([page.accounts] if page.accounts else [])

    done = nights.run(DUE_AT, chunk_size=1, on_page=between)
    assert (done.accounts_expired, done.accounts_locked, seen) == (2, 0, [1, 1])
    assert nights.expired() == {"ann": [100], "bob": [100]}


def test_activity_after_the_date_and_before_the_night_counts_for_the_customer(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    nights.account("ann", active_at=GONE_AT + timedelta(minutes=30), points=1)
    assert (nights.run(DUE_AT).accounts_expired, shop.balance()) == (0, 101)
    assert shop.account().expires_at == midnight("2025-03-04")


def test_points_past_their_date_cannot_be_spent_before_the_night(
    shop: Shop, nights: Nights, checkout: Checkout
) -> None:
    warn(nights, "ann")
    assert (shop.balance(), checkout.spendable()) == (100, 0)
    assert "Available: 0, Requested: 1" in checkout.refused("LP002", "redeem", "o", 1)


# --- orders that nobody has looked at -------------------------------------------------------------------


def test_an_order_that_waits_in_the_inbox_keeps_its_customers_points_until_it_was_looked_at(
    shop: Shop, nights: Nights
) -> None:
    warn(nights, "ann", "bob")
    shop.order("late", 10, customer="ann", paid_at=at("2025-01-31T10:00"))
    done = nights.run(DUE_AT)
    assert done.plan is not None
    assert (done.plan.accounts_due, done.plan.accounts_waiting, done.accounts_expired) == (1, 1, 1)
    assert (nights.expired(), done.is_stopped, done.accounts_locked) == ({"bob": [100]}, False, 0)
    shop.award()
    assert (nights.run(DUE_AT).accounts_expired, shop.balance()) == (0, 110)
    assert shop.account().expires_at == midnight("2025-03-03")


def test_an_order_that_saves_nobody_delays_expiry_by_a_night(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    shop.order("never paid", 10, customer="ann", status="failed")
    shop.enqueue("never paid")
    assert nights.run(DUE_AT).accounts_expired == 0
    shop.award()
    assert nights.run(DUE_AT + timedelta(days=1)).accounts_expired == 1


def test_an_order_of_a_merged_customer_keeps_the_points_of_the_one_who_remains(shop: Shop, nights: Nights) -> None:
    nights.account("old", active_at="2024-12-01T12:00:00+01:00")
    warn(nights, "ann")
    merge(shop, "old", "ann")
    nights.live(WARNED_ON + timedelta(days=1), 1)
    gone_at = shop.account().expires_at
    shop.order("late", 10, customer="old", paid_at=at("2025-01-31T10:00"))
    assert nights.run(gone_at).accounts_expired == 0
    shop.award()
    assert shop.balance() == 210


def test_a_customer_with_an_id_longer_than_the_inbox_keeps_is_found_there(shop: Shop, nights: Nights) -> None:
    name = "x" * 250
    warn(nights, name)
    shop.order("late", 10, customer=name, paid_at=at("2025-01-31T10:00"))
    assert nights.run(DUE_AT).accounts_expired == 0


def test_another_merchants_order_keeps_nobodys_points(shop: Shop, nights: Nights) -> None:
    shop.merchant("m2")
    warn(nights, "ann")
    shop.order("late", 10, customer="ann", merchant="m2", paid_at=at("2025-01-31T10:00"))
    assert nights.run(DUE_AT).accounts_expired == 1


def test_a_night_looks_for_orders_first_where_no_trigger_brings_them(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    polling = sample_shop.mapping().yaml_text.replace("capture: trigger", "capture: poll")
    with shop.engine.begin() as conn:
        sources.apply(conn, parse_mapping(polling))
        capture.poll(conn, overlap=timedelta(0))
    shop.award()
    shop.order("late", 10, customer="ann", paid_at=at("2025-01-31T10:00"))
    assert shop.inbox() == 0
    assert nights.run(DUE_AT, is_dry_run=True).accounts_expired == 1
    assert (nights.run(DUE_AT).accounts_expired, shop.inbox()) == (0, 1)


# --- held, empty, in debt -------------------------------------------------------------------------------


@pytest.mark.parametrize(("held", "gone"), [(30, 70), (100, 0)])
def test_held_points_stay_and_go_once_they_are_released(
    shop: Shop, nights: Nights, checkout: Checkout, held: int, gone: int
) -> None:
    nights.account(active_at=datetime.now(tz=GONE_AT.tzinfo))
    checkout.reserve("basket", held)
    nights.backdate(active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1)
    first = nights.run(DUE_AT)
    again = nights.run(DUE_AT)
    assert (first.points_expired, again.points_expired, shop.balance()) == (gone, 0, held)
    assert (shop.account().held, shop.account().expires_at) == (held, GONE_AT)
    checkout.release("basket")
    assert (shop.balance(), checkout.spendable()) == (held, 0)
    assert nights.run(DUE_AT + timedelta(days=1)).points_expired == held
    assert nights.expired() == {"ann": [gone, held] if gone else [held]}
    assert [payload["points"] for _, _, payload in nights.mails(EXPIRED)] == nights.expired()["ann"]
    assert (shop.balance(), shop.account().expires_at, shop.problems()) == (0, None, [])


def test_held_points_that_are_captured_are_spent_and_what_is_left_lives_on(
    shop: Shop, nights: Nights, checkout: Checkout
) -> None:
    nights.account(active_at=datetime.now(tz=GONE_AT.tzinfo))
    checkout.reserve("basket", 30)
    nights.backdate(active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1)
    checkout.capture("basket")
    assert (nights.run(DUE_AT).accounts_expired, shop.balance()) == (0, 70)
    assert shop.account().expires_at > shop.value("SELECT now() + interval '29 days'")


def test_an_empty_account_past_its_date_has_none_and_is_not_looked_at_again(
    shop: Shop, nights: Nights, checkout: Checkout
) -> None:
    nights.account(active_at=datetime.now(tz=GONE_AT.tzinfo))
    checkout.redeem("o", 100)
    nights.backdate(active_at=ACTIVE_AT)
    nights.run(night(WARNED_ON))
    done = nights.run(DUE_AT)
    assert (done.accounts_expired, shop.account().expires_at) == (0, None)
    assert (nights.mails(WARNING), nights.mails(EXPIRED)) == ([], [])
    assert shop.entries() == [("earned", 100), ("redeemed", -100)]
    with shop.engine.connect() as conn:
        (terms,) = expiry.survey(conn, ["m1"], as_of=DUE_AT)
    assert terms.is_idle


def test_a_debt_does_not_expire(shop: Shop, nights: Nights, checkout: Checkout) -> None:
    shop.program(points_expiration_days=30, clawback="allow_negative")
    shop.order("first", 100)
    shop.award()
    checkout.redeem("o", 60)
    shop.set_status("first", "cancelled")
    shop.award()
    nights.backdate(active_at=ACTIVE_AT)
    nights.run(night(WARNED_ON))
    assert nights.run(DUE_AT).accounts_expired == 0
    assert (shop.balance(), shop.account().expires_at, nights.mails(WARNING)) == (-60, None, [])
    assert shop.problems() == []


def test_late_points_of_an_old_order_have_a_date_and_a_warning_of_their_own(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    nights.run(DUE_AT)
    nights.deliver()
    # Paid before the expiry, and seen after it.
    nights.account(active_at="2024-12-30T12:00:00+01:00", points=7)
    assert (shop.balance(), shop.account().expires_at, shop.account().warned_for) == (7, GONE_AT, None)
    told = nights.live(GONE_ON + timedelta(days=1), 20)
    promised_on = GONE_ON + timedelta(days=15)
    assert [(one.template, one.points, one.expires_at, one.night_on) for one in told] == [
        (WARNING, 7, midnight(promised_on), GONE_ON + timedelta(days=1)),
        (EXPIRED, 7, midnight(promised_on), promised_on),
    ]
    assert shop.problems() == []


def test_points_given_by_hand_after_an_expiry_have_a_date_again(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    nights.run(DUE_AT)
    with shop.engine.begin() as conn:
        repairs.adjust(
            conn, Adjustment(merchant_id="m1", customer_id="ann", points=5, reason="sorry", actor="eve", reference="t1")
        )
    account = shop.account()
    assert account.expires_at > shop.value("SELECT now() + interval '29 days'")
    assert account.warned_for is None


# --- who is left alone ----------------------------------------------------------------------------------


def test_a_merchant_without_a_programme_is_left_out(shop: Shop, nights: Nights) -> None:
    shop.run("INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('m2', 'm2', 'UTC', 'EUR')")
    assert [done.merchant_id for done in nights.run_all(DUE_AT)] == ["m1"]
    assert list(expire_merchants(shop.engine, ["m2", "nobody"], actor="test")) == []
    assert shop.rows("SELECT * FROM loyalty.expiry_runs WHERE merchant_id = 'm2'") == []


def test_an_inactive_account_is_neither_warned_nor_expired(shop: Shop, nights: Nights) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    warn(nights, "bob")
    nights.account("cid", active_at=ACTIVE_AT)
    shop.run("UPDATE loyalty.accounts SET is_active = false WHERE customer_id IN ('bob', 'cid')")
    nights.run(night(WARNED_ON))
    nights.deliver()
    nights.run(DUE_AT)
    assert nights.expired() == {"ann": [100]}
    assert {customer for customer, _, _ in nights.warnings()} == {"ann", "bob"}


def merge(shop: Shop, source: str, into: str) -> None:
    with shop.engine.begin() as conn:
        merges.merge_accounts(
            conn, Merge(merchant_id="m1", customer_id=source, into_customer_id=into, reason="one person", actor="eve")
        )


def test_merged_points_go_with_the_account_that_has_them(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann", "bob")
    merge(shop, "ann", "bob")
    nights.run(DUE_AT)
    assert (nights.expired(), shop.balance("ann"), shop.balance("bob")) == ({"bob": [200]}, 0, 0)
    assert shop.problems() == []


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_a_merge_does_not_pass_on_a_warning_that_has_not_arrived(shop: Shop, nights: Nights, status: str) -> None:
    """The mail goes to a customer who is no more: the one who remains has to be told."""
    nights.account("bob", active_at="2024-12-25T12:00:00+01:00", points=1)
    nights.account("ann", active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    nights.settle("sent", customer="bob")
    if status == "failed":
        nights.settle("failed")
    merge(shop, "ann", "bob")
    done = nights.run(DUE_AT)
    assert (done.accounts_expired, done.accounts_warned) == (0, 1)
    assert ("bob", midnight("2025-02-15"), "pending") in nights.warnings()


def test_a_merge_passes_on_a_warning_that_was_delivered(shop: Shop, nights: Nights) -> None:
    nights.account("bob", active_at="2024-12-25T12:00:00+01:00", points=1)
    warn(nights, "ann")
    merge(shop, "ann", "bob")
    assert nights.run(DUE_AT).accounts_expired == 1
    assert nights.expired() == {"bob": [101]}


@pytest.mark.parametrize("later", ["ann", "bob"])
def test_a_merge_keeps_the_later_of_two_dates_that_were_promised(shop: Shop, nights: Nights, later: str) -> None:
    """An old order that is awarded late is warned of late, and so promised for longer than a newer one."""
    earlier = "bob" if later == "ann" else "ann"
    nights.account(earlier, active_at="2025-01-05T12:00:00+01:00", points=1)
    nights.live("2025-01-22", 3)
    nights.account(later, active_at="2025-01-03T12:00:00+01:00", points=1_000)
    nights.live("2025-01-25", 1)
    merge(shop, "ann", "bob")
    assert shop.account("bob").expires_at == shop.account("bob").warned_for == midnight("2025-02-08")
    assert [nights.run(night(day)).points_expired for day in ("2025-02-05", "2025-02-07", "2025-02-08")] == [
        0,
        0,
        1_001,
    ]


def test_after_a_merge_the_one_who_remains_is_told_what_the_other_one_could_not_be(shop: Shop, nights: Nights) -> None:
    nights.account("bob", active_at="2024-12-01T12:00:00+01:00", points=10)
    nights.live("2024-12-18", 16)
    nights.account("ann", active_at=ACTIVE_AT, points=1_000)
    nights.run(night(WARNED_ON))
    nights.settle("parked", customer="ann")
    merge(shop, "ann", "bob")
    nights.live(WARNED_ON + timedelta(days=1), 1)
    assert ("bob", midnight("2025-02-02"), "sent") in nights.warnings()
    assert nights.run(DUE_AT).accounts_expired == 0
    assert nights.run(night("2025-02-02")).points_expired == 1_000


def test_after_a_merge_points_that_nobody_was_told_of_are_warned_of(shop: Shop, nights: Nights) -> None:
    warn(nights, "bob")
    nights.account("ann", active_at=ACTIVE_AT, points=1_000)
    merge(shop, "ann", "bob")
    assert nights.run(DUE_AT).accounts_expired == 0
    assert [payload["points"] for customer, _, payload in nights.mails(WARNING) if customer == "bob"] == [100, 1_100]


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_a_warning_of_a_customer_who_was_merged_is_void_after_the_next_night(
    shop: Shop, nights: Nights, status: str
) -> None:
    for customer in ("ann", "bob"):
        nights.account(customer, active_at=ACTIVE_AT)
    nights.run(night(WARNED_ON))
    nights.settle("sent", customer="bob")
    if status == "failed":
        nights.settle("failed", customer="ann")
    merge(shop, "ann", "bob")
    assert (shop.account("ann").expires_at, shop.account("ann").warned_for) == (None, None)
    nights.live(WARNED_ON + timedelta(days=1), 1)
    assert ("ann", GONE_AT, "void") in nights.warnings()
    with shop.engine.connect() as conn:
        (terms,) = expiry.survey(conn, ["m1"], as_of=night(WARNED_ON + timedelta(days=2)))
    assert terms.is_idle
    shop.program(points_expiration_days=90)
    nights.run(night(WARNED_ON + timedelta(days=2)))
    assert shop.account("ann").expires_at is None


# --- one programme --------------------------------------------------------------------------------------

INSTANTS = st.integers(min_value=0, max_value=12).map(lambda n: at("2025-01-01") + timedelta(days=n))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=st.lists(st.tuples(INSTANTS, st.booleans()), min_size=1, max_size=8))
def test_at_every_instant_at_most_one_version_of_a_programme_applies(
    shop: Shop, versions: list[tuple[datetime, bool]]
) -> None:
    """The periods of any set of versions cover each instant since the first of them exactly once."""
    shop.run("DELETE FROM loyalty.programs")
    for valid_from, is_active in versions:
        shop.program(valid_from=valid_from, is_active=is_active)
    found = shop.rows(
        "SELECT instant, count(p.version) AS versions "
        "FROM generate_series(CAST('2024-12-31' AS timestamptz), '2025-01-15', interval '6 hours') AS instant "
        "LEFT JOIN loyalty.program_periods AS p ON p.merchant_id = 'm1' AND instant >= p.valid_from "
        "AND (instant < p.valid_until OR p.valid_until IS NULL) GROUP BY instant"
    )
    first = min(valid_from for valid_from, _ in versions)
    assert {row.versions for row in found if row.instant >= first} == {1}
    assert {row.versions for row in found if row.instant < first} == {0}
    newest = max(range(len(versions)), key=lambda n: (versions[n][0], n)) + 1
    assert shop.value("SELECT program_version FROM loyalty.merchant_terms('m1')") == newest
    with shop.engine.connect() as conn:
        (terms,) = expiry.survey(conn, ["m1"], as_of=DUE_AT)
    assert terms.is_program_active is versions[newest - 1][1]


def test_a_number_of_a_version_is_there_once(shop: Shop) -> None:
    with pytest.raises(Exception, match="programs_pkey"):
        shop.run(
            "INSERT INTO loyalty.programs (merchant_id, version, valid_from, points_per_unit, created_by) "
            "SELECT merchant_id, version, now(), 1, 'test' FROM loyalty.programs"
        )


# --- changes of terms -----------------------------------------------------------------------------------


def test_a_longer_period_moves_the_dates_and_the_told_are_told_again_of_the_new_one(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    shop.program(points_expiration_days=60)
    told = nights.live(WARNED_ON + timedelta(days=1), 50)
    assert [(one.template, one.night_on, one.expires_at) for one in told] == [
        (WARNING, date(2025, 2, 17), midnight("2025-03-03")),
        (EXPIRED, date(2025, 3, 3), midnight("2025-03-03")),
    ]


def test_a_shorter_period_gives_nobody_less_than_the_lead_and_keeps_what_was_promised(
    shop: Shop, nights: Nights
) -> None:
    nights.account("told", active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1)
    nights.account("untold", active_at="2025-01-10T12:00:00+01:00")
    nights.account("new", active_at="2025-01-18T12:00:00+01:00")
    shop.program(points_expiration_days=8)
    # Lead 4. The untold one would have gone on 19 January, the new one goes on the 27th.
    done = nights.run(night("2025-01-20"), run_id="shorter")
    assert (done.accounts_rescheduled, done.accounts_warned, done.accounts_expired) == (2, 1, 0)
    assert {name: shop.account(name).expires_at for name in ("told", "untold", "new")} == {
        "told": GONE_AT,
        "untold": midnight("2025-01-24"),
        "new": midnight("2025-01-27"),
    }
    nights.deliver()
    told = nights.live("2025-01-21", 15)
    assert [(one.customer, one.template, one.expires_at) for one in told] == [
        ("new", WARNING, midnight("2025-01-27")),
        ("untold", EXPIRED, midnight("2025-01-24")),
        ("new", EXPIRED, midnight("2025-01-27")),
        ("told", EXPIRED, GONE_AT),
    ]


def test_a_period_that_is_set_for_the_first_time_warns_whoever_has_been_away_for_long(shop: Shop) -> None:
    nights = Nights(shop)
    nights.account("old", active_at="2020-01-01T12:00:00Z")
    nights.account("new", active_at="2025-01-19T12:00:00+01:00")
    nights.live("2025-01-19", 1)
    shop.program(points_expiration_days=365)
    told = nights.live("2025-01-20", 20)
    assert [(one.customer, one.template, one.night_on, one.expires_at) for one in told] == [
        ("old", WARNING, date(2025, 1, 20), midnight("2025-02-03")),
        ("old", EXPIRED, date(2025, 2, 3), midnight("2025-02-03")),
    ]
    assert shop.account("new").expires_at == midnight("2026-01-20")


def test_the_first_night_of_a_period_takes_nothing_even_where_no_warning_is_required(shop: Shop) -> None:
    nights = Nights(shop)
    nights.account(active_at="2020-01-01T12:00:00Z")
    shop.program(points_expiration_days=365)
    first = nights.run(night("2025-01-20"), is_warning_required=False)
    assert (first.accounts_rescheduled, first.accounts_expired) == (1, 0)
    assert nights.run(night("2025-02-02"), is_warning_required=False).accounts_expired == 0
    assert nights.run(night("2025-02-03"), is_warning_required=False).accounts_expired == 1


def test_an_empty_account_past_its_date_gets_none_by_new_terms(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    nights.run(DUE_AT)
    shop.program(points_expiration_days=20)
    assert nights.run(DUE_AT + timedelta(days=1)).accounts_rescheduled == 0
    shop.program(points_expiration_days=60)
    assert nights.run(DUE_AT + timedelta(days=2)).accounts_rescheduled == 1
    assert shop.account().expires_at == midnight("2025-03-03")


def test_without_a_period_any_more_nothing_goes_not_even_what_was_warned_of(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    shop.program(points_expiration_days=None)
    assert nights.live(GONE_ON, 3) == []
    assert (shop.balance(), shop.account().expires_at) == (100, None)
    shop.program(points_expiration_days=30)
    (again, *_) = nights.live("2025-03-01", 20)
    assert (again.template, again.expires_at) == (WARNING, midnight("2025-03-15"))


def test_another_time_zone_keeps_the_dates_on_the_new_clock(shop: Shop, nights: Nights) -> None:
    warn(nights, "told")
    nights.account("untold", active_at="2025-01-20T12:00:00+01:00")
    shop.run("UPDATE sample_shop.merchants SET timezone = 'America/Los_Angeles' WHERE id = 'm1'")
    told = nights.live(WARNED_ON + timedelta(days=1), 40)
    zone = "America/Los_Angeles"
    # The night of the 1st is still the 31st there: told of no other date, and gone one night later.
    assert [(one.customer, one.template, one.night_on.isoformat(), one.expires_at) for one in told] == [
        ("told", EXPIRED, "2025-02-02", midnight("2025-02-01", zone)),
        ("untold", WARNING, "2025-02-07", midnight("2025-02-20", zone)),
        ("untold", EXPIRED, "2025-02-21", midnight("2025-02-20", zone)),
    ]


def test_while_a_programme_is_off_nobody_is_warned_and_nothing_expires(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    nights.account("bob", active_at="2025-01-10T12:00:00+01:00")
    shop.program(points_expiration_days=30, is_active=False)
    assert nights.live("2025-01-25", 30) == []
    assert (shop.balance("ann"), shop.balance("bob")) == (100, 100)


def test_once_a_programme_is_on_again_everybody_past_the_date_is_warned_anew(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    shop.program(points_expiration_days=30, is_active=False)
    nights.live("2025-01-25", 1)
    nights.live("2025-02-10", 1)
    shop.program(points_expiration_days=30)
    told = nights.live("2025-02-11", 20)
    assert [(one.template, one.night_on, one.expires_at) for one in told] == [
        (WARNING, date(2025, 2, 11), midnight("2025-02-25")),
        (EXPIRED, date(2025, 2, 25), midnight("2025-02-25")),
    ]


def test_a_programme_that_was_off_for_a_while_sends_no_second_mail_of_one_date(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    shop.program(points_expiration_days=30, is_active=False)
    nights.live(WARNED_ON + timedelta(days=1), 1)
    shop.program(points_expiration_days=30)
    # A day ahead of the lead no more: the date would move. On the same day it does not.
    nights.run(night(WARNED_ON))
    assert nights.warnings() == [("ann", GONE_AT, "sent")]
    assert nights.run(DUE_AT).accounts_expired == 1


def test_a_version_that_was_taken_back_before_the_night_leaves_no_dates_behind(shop: Shop, nights: Nights) -> None:
    nights.account("ann", active_at=ACTIVE_AT)
    nights.run("2025-01-05T02:00:00Z")
    shop.program(points_expiration_days=365)
    # Awarded by the version that was in force for a moment.
    nights.account("bob", active_at=ACTIVE_AT)
    shop.program(points_expiration_days=30)
    assert shop.account("bob").expires_at == midnight("2026-01-02")
    assert nights.run("2025-01-06T02:00:00Z").accounts_rescheduled == 1
    assert (shop.account("ann").expires_at, shop.account("bob").expires_at) == (GONE_AT, GONE_AT)


def test_a_version_of_the_future_changes_dates_when_its_time_comes(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.run("2025-01-05T02:00:00Z")
    shop.program(points_expiration_days=365, valid_from=shop.value("SELECT now() + interval '1 hour'"))
    assert nights.run("2025-01-06T02:00:00Z").accounts_rescheduled == 0
    shop.run("UPDATE loyalty.programs SET valid_from = now() WHERE valid_from > now()")
    assert nights.run("2025-01-07T02:00:00Z").accounts_rescheduled == 1
    assert shop.account().expires_at == midnight("2026-01-02")


def test_dates_are_computed_in_pages_and_a_run_that_ends_half_way_computes_the_rest(
    shop: Shop, nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loyalty_pipelines.db.expiry_run.RESCHEDULE_PAGE_SIZE", 3)
    nights.crowd(10, active_at=ACTIVE_AT)
    nights.run("2025-01-05T02:00:00Z")
    shop.program(points_expiration_days=60)
    real, pages = expiry.reschedule_page, []

    def dying(*args: Any, **values: Any) -> Page:
        if len(pages) == 2:
            raise KeyboardInterrupt
        pages.append(values["after"])
        return real(*args, **values)

    moved = "SELECT count(*) FROM loyalty.accounts WHERE expires_at = :instant"
    with monkeypatch.context() as patched:
        patched.setattr(expiry, "reschedule_page", dying)
        with pytest.raises(KeyboardInterrupt):
            nights.run("2025-01-06T02:00:00Z")
    assert shop.value(moved, instant=midnight("2025-03-03")) == 6
    done = nights.run("2025-01-06T02:00:00Z")
    assert (done.accounts_rescheduled, shop.value(moved, instant=midnight("2025-03-03"))) == (10, 10)
    assert nights.run("2025-01-07T02:00:00Z").accounts_rescheduled == 0


def test_what_waits_while_a_programme_is_off_is_void_and_told_anew_when_it_is_on(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.run(night(WARNED_ON))
    shop.program(points_expiration_days=30, is_active=False)
    done = nights.run(night(WARNED_ON + timedelta(days=1)))
    assert (done.accounts_warned, nights.warnings(), shop.account().warned_for) == (0, [("ann", GONE_AT, "void")], None)
    shop.program(points_expiration_days=30)
    told = nights.live(WARNED_ON + timedelta(days=2), 15)
    assert [(mail.template, mail.expires_at) for mail in told] == [
        (WARNING, midnight("2025-02-03")), (EXPIRED, midnight("2025-02-03")),
    ]  # fmt: skip
    assert not nights.run(night("2025-02-04")).accounts_expired


def test_a_programme_that_is_switched_off_while_others_have_their_turn_takes_nothing(
    shop: Shop, nights: Nights
) -> None:
    shop.merchant("m2", points_expiration_days=30)
    for merchant in ("m1", "m2"):
        nights.account(active_at=ACTIVE_AT, merchant=merchant)
    nights.live(WARNED_ON, 1)

    def switch_off(merchant: str, _: Page) -> None:
        shop.program("m2" if merchant == "m1" else "m1", points_expiration_days=30, is_active=False)

    done = nights.run_all(DUE_AT, connections=1, on_page=switch_off)
    assert sorted(one.accounts_expired for one in done) == [0, 1]


def test_a_change_of_clocks_that_is_computed_twice_moves_no_date_twice(shop: Shop, nights: Nights) -> None:
    """Two runs at once, or one that was killed before it wrote down that it was done."""
    shop.run("UPDATE sample_shop.merchants SET timezone = 'America/Los_Angeles' WHERE id = 'm1'")
    nights.account(active_at="2024-11-01T12:00:00+01:00")
    nights.run(night(WARNED_ON))
    nights.deliver()
    promised = shop.account().expires_at
    assert promised == midnight(promised.date(), "America/Los_Angeles")
    shop.run("UPDATE sample_shop.merchants SET timezone = 'Europe/Luxembourg' WHERE id = 'm1'")
    terms = shop.rows("SELECT * FROM loyalty.expiry_terms")[0]
    for _ in range(3):
        shop.run(
            "UPDATE loyalty.expiry_terms SET timezone = :timezone, recorded_at = :recorded_at",
            timezone=terms.timezone,
            recorded_at=terms.recorded_at,
        )
        nights.run(night(WARNED_ON + timedelta(days=1)))
        assert shop.account().expires_at == shop.account().warned_for == midnight(promised.date())
    assert len(nights.warnings()) == 1


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_a_mail_that_waits_follows_its_merchants_new_clock(shop: Shop, nights: Nights, status: str) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.run(night(WARNED_ON))
    if status == "failed":
        nights.settle("failed")
    shop.run("UPDATE sample_shop.merchants SET timezone = 'America/Los_Angeles' WHERE id = 'm1'")
    nights.run(night(WARNED_ON))
    moved = midnight(GONE_ON, "America/Los_Angeles")
    assert (shop.account().expires_at, nights.warnings()) == (moved, [("ann", moved, status)])


# --- refused by PostgreSQL ------------------------------------------------------------------------------


def test_an_account_that_is_refused_a_new_date_keeps_no_other_from_it(shop: Shop, nights: Nights) -> None:
    for number in range(20):
        nights.account(f"c{number}", active_at=ACTIVE_AT, points=number + 1)
    nights.run(night("2025-01-02"))
    refuse(shop, "c7")
    shop.program(points_expiration_days=60)
    done = nights.run(night("2025-01-03"))
    assert (done.accounts_rescheduled, list(done.refused)) == (19, ["c7"])
    assert "not this one" in done.refused["c7"]
    shop.run("DROP TRIGGER refuse ON loyalty.accounts")
    healed = nights.run(night("2025-01-04"))
    assert (healed.accounts_rescheduled, healed.refused) == (1, {})
    assert {row.expires_at for row in shop.rows("SELECT expires_at FROM loyalty.accounts")} == {midnight("2025-03-03")}


def refuse(shop: Shop, customer: str) -> None:
    """Let PostgreSQL refuse every change of a customer's account."""
    shop.run(
        f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.customer_id = '{customer}' THEN "
        "RAISE EXCEPTION 'not this one' USING ERRCODE = 'check_violation'; END IF; RETURN NEW; END $$"
    )
    shop.run("CREATE TRIGGER refuse BEFORE UPDATE ON loyalty.accounts FOR EACH ROW EXECUTE FUNCTION refuse()")


def test_a_refused_account_does_not_let_a_programme_that_is_on_again_warn_the_others_every_night(
    shop: Shop, nights: Nights
) -> None:
    for customer in ("ann", "bob"):
        nights.account(customer, active_at=ACTIVE_AT)
    nights.run(night("2025-01-02"))
    shop.program(points_expiration_days=30, is_active=False)
    nights.run(night(WARNED_ON))
    shop.program(points_expiration_days=30)
    refuse(shop, "bob")
    told = nights.live(WARNED_ON + timedelta(days=5), 16)
    assert [(mail.customer, mail.template) for mail in told] == [("ann", WARNING), ("ann", EXPIRED)]
    assert nights.expired() == {"ann": [100]}


def test_clocks_that_are_changed_and_changed_back_while_an_account_is_refused_take_nothing_early(
    shop: Shop, nights: Nights
) -> None:
    shop.run("UPDATE sample_shop.merchants SET timezone = 'America/Los_Angeles'")
    for customer in ("ann", "bob"):
        nights.account(customer, active_at="2024-11-01T12:00:00+01:00")
    nights.run(night(WARNED_ON))
    nights.deliver()
    promised = shop.account().expires_at
    refuse(shop, "bob")
    for zone in ("Europe/Luxembourg", "America/Los_Angeles"):
        shop.run("UPDATE sample_shop.merchants SET timezone = :zone", zone=zone)
        done = nights.run(night(WARNED_ON + timedelta(days=1)))
        # It has the date of the former clocks still, which is right when they are back.
        assert list(done.refused) == (["bob"] if zone == "Europe/Luxembourg" else [])
    shop.run("DROP TRIGGER refuse ON loyalty.accounts")
    nights.run(night(WARNED_ON + timedelta(days=2)))
    assert [shop.account(customer).expires_at for customer in ("ann", "bob")] == [promised, promised]
    assert len(nights.warnings()) == 2


def test_a_warning_that_is_void_since_clocks_changed_has_told_nobody(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=ACTIVE_AT)
    nights.run(night(WARNED_ON))
    nights.settle("failed")
    shop.run("UPDATE sample_shop.merchants SET timezone = 'America/Los_Angeles'")
    refuse(shop, "ann")
    nights.run_all(night(WARNED_ON + timedelta(days=1)))
    shop.run("DROP TRIGGER refuse ON loyalty.accounts")
    nights.live(WARNED_ON + timedelta(days=2), 20)
    sent = [expires_at for _, expires_at, status in nights.warnings() if status == "sent"]
    assert nights.expired() == {"ann": [100]}
    with shop.engine.connect() as conn:
        assert expired_unwarned(conn, days=1) == []
    assert len(sent) == 1


def test_accounts_that_are_locked_and_not_warned_are_reported(shop: Shop, nights: Nights) -> None:
    for customer in ("ann", "bob"):
        nights.account(customer, active_at=ACTIVE_AT)
    nights.run(night("2025-01-02"))
    with shop.engine.begin() as conn:
        conn.execute(text("SELECT FROM loyalty.accounts WHERE customer_id = 'ann' FOR UPDATE"))
        done = nights.run(night(WARNED_ON))
    assert done.accounts_warned == 1
    assert done.warnings == ("1 accounts were locked and not warned: the next run warns them",)
    assert nights.run(night(WARNED_ON)).warnings == ()


def collide(shop: Shop, customer: str) -> None:
    """Break an account's chain, so that no entry can be written."""
    shop.run(
        "UPDATE loyalty.accounts SET next_seq = 1 WHERE merchant_id = 'm1' AND customer_id = :customer",
        customer=customer,
    )


@pytest.mark.parametrize("chunk_size", [1, 4, 500])
def test_an_account_that_postgresql_refuses_is_named_and_all_others_expire(
    shop: Shop, nights: Nights, chunk_size: int
) -> None:
    nights.crowd(20, active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1)
    collide(shop, "c7")
    collide(shop, "c13")
    done = nights.run(DUE_AT, chunk_size=chunk_size)
    assert (done.accounts_expired, done.accounts_locked, sorted(done.refused)) == (18, 0, ["c13", "c7"])
    assert "ledger_entries_pkey" in done.refused["c7"]
    assert sorted(nights.expired()) == sorted({f"c{n}" for n in range(1, 21)} - {"c7", "c13"})
    shop.run("UPDATE loyalty.accounts SET next_seq = 2 WHERE customer_id IN ('c7', 'c13')")
    healed = nights.run(DUE_AT + timedelta(days=1))
    assert (healed.accounts_expired, healed.refused, shop.problems()) == (2, {}, [])


@pytest.mark.parametrize("is_warning_required", [True, False])
def test_an_account_that_cannot_be_warned_is_named_and_all_others_are(
    shop: Shop, nights: Nights, is_warning_required: bool
) -> None:
    nights.run("2024-11-01T02:00:00Z")
    nights.crowd(1, active_at="2024-11-01T12:00:00+01:00", prefix="due ")
    nights.crowd(9, active_at=ACTIVE_AT)
    shop.run("ALTER TABLE loyalty.notifications ADD CONSTRAINT no_c7 CHECK (customer_id <> 'c7')")
    done = nights.run(night(WARNED_ON), is_warning_required=is_warning_required)
    assert (done.accounts_warned, list(done.refused)) == (9 if is_warning_required else 8, ["c7"])
    assert done.accounts_expired == (0 if is_warning_required else 1)
    nights.deliver()
    gone = nights.run(DUE_AT)
    # The one that was due and had not been told was, and went with the others.
    assert (gone.accounts_expired, list(gone.refused)) == (9 if is_warning_required else 8, ["c7"])


def test_an_account_that_is_refused_and_one_that_is_locked_are_told_apart(shop: Shop, nights: Nights) -> None:
    nights.crowd(5, active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1)
    collide(shop, "c4")
    with shop.engine.connect() as conn, conn.begin():
        conn.execute(text("SELECT FROM loyalty.accounts WHERE customer_id = 'c2' FOR UPDATE"))
        done = nights.run(DUE_AT)
    assert (done.accounts_expired, done.accounts_locked, list(done.refused)) == (3, 1, ["c4"])


def test_a_refused_warning_does_not_hide_a_locked_account(shop: Shop, nights: Nights) -> None:
    nights.crowd(2, active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1)
    nights.crowd(1, active_at="2025-01-10T12:00:00+01:00", prefix="poison ")
    shop.run("ALTER TABLE loyalty.notifications ADD CONSTRAINT no_poison CHECK (customer_id <> 'poison 1')")
    with shop.engine.connect() as conn, conn.begin():
        conn.execute(text("SELECT FROM loyalty.accounts WHERE customer_id = 'c2' FOR UPDATE"))
        done = nights.run(DUE_AT)
    assert (done.accounts_expired, done.accounts_locked, list(done.refused)) == (1, 1, ["poison 1"])


def test_a_merchant_that_fails_keeps_no_other_from_its_night(shop: Shop, nights: Nights) -> None:
    shop.merchant("m2", points_expiration_days=30)
    nights.account("ann", active_at=ACTIVE_AT, merchant="m2")
    warn(nights, "ann")
    shop.run("INSERT INTO loyalty.expiry_runs (merchant_id, run_id, as_of, actor) VALUES ('m1', 'x', now(), 'x')")
    shop.run("ALTER TABLE loyalty.expiry_runs ADD CONSTRAINT no_m1 CHECK (merchant_id <> 'm1') NOT VALID")
    done = {one.merchant_id: one for one in nights.run_all(DUE_AT)}
    assert "no_m1" in (done["m1"].failure or "")
    assert (done["m2"].failure, done["m2"].accounts_expired) == (None, 1)


# --- dry runs, past and future --------------------------------------------------------------------------


def test_a_run_of_the_future_is_refused_and_a_dry_one_is_not(shop: Shop, nights: Nights) -> None:
    nights.account(active_at=shop.value("SELECT now()"))
    ahead = shop.value("SELECT now() + interval '40 days'")
    with pytest.raises(FutureRunError, match="expected an instant that has been"):
        nights.run(ahead)
    assert shop.rows("SELECT * FROM loyalty.expiry_runs") == []
    shown = nights.run(ahead, is_dry_run=True)
    assert (shown.run_id, shown.accounts_warned, shown.accounts_moved) == (None, 1, 1)


def test_a_run_without_a_shop_is_refused(shop: Shop) -> None:
    shop.run("DELETE FROM loyalty.source_mapping")
    with pytest.raises(NoMappingError):
        list(expire_merchants(shop.engine, actor="test"))


def everything_at_once(shop: Shop, nights: Nights) -> None:
    """Accounts in every state there is, at DUE_AT."""
    for customer in ("told", "pending", "failed", "parked", "leased", "inactive", "active"):
        nights.account(customer, active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1, is_delivered=False)
    for customer, status in {
        "told": "sent",
        "failed": "failed",
        "parked": "parked",
        "inactive": "sent",
        "active": "sent",
    }.items():
        nights.settle(status, customer=customer)
    shop.run("UPDATE loyalty.notifications SET leased_until = now() + interval '1 hour' WHERE customer_id = 'leased'")
    shop.run("UPDATE loyalty.accounts SET is_active = false WHERE customer_id = 'inactive'")
    nights.account("active", active_at="2025-01-25T12:00:00+01:00")
    nights.account("never told", active_at="2024-10-01T12:00:00+01:00", points=3)
    nights.account("soon", active_at="2025-01-10T12:00:00+01:00", points=5)
    nights.account("late", active_at="2025-01-04T12:00:00+01:00", points=7)
    nights.account("on time", active_at="2025-01-15T12:00:00+01:00", points=13)
    nights.account("empty", active_at="2024-10-01T12:00:00+01:00", points=11)
    shop.run("UPDATE loyalty.accounts SET held = 30 WHERE customer_id = 'told'")


@pytest.mark.parametrize("is_warning_required", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.0])
def test_a_dry_run_says_what_the_run_then_does_and_writes_nothing(
    shop: Shop, nights: Nights, is_warning_required: bool, share: float
) -> None:
    everything_at_once(shop, nights)
    options = {
        "is_warning_required": is_warning_required,
        "limits": Limits(max_share_of_accounts=share, few_accounts=0),
    }
    before = nights.tables()
    shown = nights.run(DUE_AT, is_dry_run=True, **options)
    assert nights.tables() == before
    done = nights.run(DUE_AT, **options)
    counters = (
        "accounts_warned",
        "points_warned",
        "accounts_moved",
        "accounts_expired",
        "points_expired",
        "is_stopped",
    )
    assert [getattr(shown, name) for name in counters] == [getattr(done, name) for name in counters]
    assert shown.plan is not None
    assert done.plan is not None
    # Only that the run has told or renewed some of those that waited when it plans.
    assert replace(shown.plan, accounts_waiting=0) == replace(done.plan, accounts_waiting=0)
    assert done.is_stopped is (share == 0)


def test_a_dry_run_after_a_change_of_terms_says_so_and_writes_nothing(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    shop.program(points_expiration_days=8)
    before = nights.tables()
    shown = nights.run(DUE_AT, is_dry_run=True)
    assert shown.warnings == ("its terms changed: a run computes all expiry dates anew first",)
    assert nights.tables() == before


# --- forecast -------------------------------------------------------------------------------------------


def test_the_forecast_of_each_day_is_what_then_happens_if_nobody_is_active(shop: Shop, nights: Nights) -> None:
    shop.merchant("la", timezone="America/Los_Angeles", points_expiration_days=20)
    shop.merchant("far", timezone="Pacific/Kiritimati", points_expiration_days=7)
    shop.merchant("never")
    shop.merchant("off", points_expiration_days=5, is_active=False)
    start = date(2025, 3, 1)
    for number in range(-3, 22, 2):
        for merchant in ("m1", "la", "far", "never"):
            shop.order(
                f"{merchant} {number}",
                50 + number,
                customer=f"c{number}",
                merchant=merchant,
                paid_at=night(start) - timedelta(days=number),
            )
    shop.award()
    nights.live(start - timedelta(days=1), 1)
    with shop.engine.connect() as conn:
        said = expiry.forecast(conn, ["m1", "la", "far", "never", "off", "nobody"], next_run_at=night(start), days=25)
    zones = {
        "m1": ZoneInfo("Europe/Luxembourg"),
        "la": ZoneInfo("America/Los_Angeles"),
        "far": ZoneInfo("Pacific/Kiritimati"),
    }
    happened: dict[tuple[str, date], list[int]] = {}
    for one in nights.live(start, 26):
        day = night(one.night_on).astimezone(zones[one.merchant]).date()
        counters = happened.setdefault((one.merchant, day), [0, 0, 0, 0])
        place = 0 if one.template == WARNING else 2
        counters[place] += 1
        counters[place + 1] += one.points
    last = start + timedelta(days=25)
    assert {
        (one.merchant_id, one.day_on): [
            one.accounts_warned,
            one.points_warned,
            one.accounts_expired,
            one.points_expired,
        ]
        for one in said
    } == {key: counters for key, counters in happened.items() if key[1] <= last}
    assert said == sorted(said, key=lambda one: (one.day_on, one.merchant_id))


def test_a_run_says_how_many_are_due_a_day_later_and_the_next_one_how_it_was(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann", "bob", "cid")
    before = nights.run(DUE_AT - timedelta(days=1))
    assert shop.rows(
        "SELECT accounts_forecast, points_forecast FROM loyalty.expiry_runs ORDER BY as_of DESC LIMIT 1"
    ) == [(3, 300)]
    nights.account("cid", active_at="2025-01-31T12:00:00+01:00", points=1)
    done = nights.run(DUE_AT)
    assert before.forecast is None
    assert done.forecast is not None
    assert (done.forecast.accounts, done.forecast.points) == (3, 300)
    assert (done.accounts_expired, done.points_expired) == (2, 200)


def test_what_is_due_already_or_in_two_days_is_not_forecast_for_tomorrow(
    shop: Shop, nights: Nights, checkout: Checkout
) -> None:
    nights.account("held", active_at=datetime.now(tz=GONE_AT.tzinfo))
    checkout.reserve("basket", 30, "held")
    nights.backdate("held", active_at=ACTIVE_AT)
    nights.account("tomorrow", active_at="2025-01-02T12:00:00+01:00", points=5)
    nights.account("in two days", active_at="2025-01-03T12:00:00+01:00", points=7)
    nights.live(WARNED_ON, 3)
    checkout.release("basket")
    shop.run(
        "UPDATE loyalty.notifications SET status = 'pending', settled_at = NULL "
        "WHERE customer_id = 'held' AND template = :template",
        template=WARNING,
    )
    # Due and not told: it waits, and the plan shows it.
    done = nights.run(DUE_AT, steps=frozenset({Step.PLAN, Step.EXPIRE}))
    assert done.plan is not None
    assert (done.plan.accounts_due, done.plan.accounts_waiting) == (0, 1)
    assert shop.rows(
        "SELECT accounts_forecast, points_forecast FROM loyalty.expiry_runs WHERE as_of = :as_of", as_of=DUE_AT
    ) == [(1, 5)]


def test_the_night_before_may_have_had_nothing_to_do_and_forecasts_all_the_same(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    nights.run(DUE_AT - timedelta(days=2))
    idle = nights.run(DUE_AT - timedelta(days=1))
    assert (idle.plan, nights.run(DUE_AT).forecast) != (None, None)
    assert nights.run(DUE_AT + timedelta(days=3)).forecast is None


def test_while_a_programme_is_off_nothing_is_forecast(shop: Shop, nights: Nights) -> None:
    warn(nights, "ann")
    shop.program(points_expiration_days=30, is_active=False)
    # In the first of these nights the terms are new, in the others there is nothing to do.
    nights.live(GONE_ON - timedelta(days=1), 3)
    shop.run("UPDATE loyalty.accounts SET expires_at = :instant", instant=midnight("2025-02-04"))
    nights.run("2025-02-03T02:00:00Z")
    assert {
        row.accounts_forecast for row in shop.rows("SELECT * FROM loyalty.expiry_runs WHERE as_of > '2025-01-19'")
    } == {0}


# --- query plans ----------------------------------------------------------------------------------------


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


def page_nodes(shop: Shop, statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of the plan by which a statement reads its page."""
    with shop.engine.connect() as conn:
        found = conn.execute(text("EXPLAIN (FORMAT JSON) " + statement), values).scalar_one()
        conn.rollback()
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    (page,) = [node for node in nodes(plan) if node.get("Subplan Name") == "CTE page"]
    return nodes(page)


def assert_reads_on_from_the_key(found: list[dict[str, Any]]) -> None:
    (scan,) = [node for node in found if node.get("Relation Name") == "accounts"]
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", "accounts_expiring")
    assert "ROW(expires_at, account_id) > ROW(" in scan["Index Cond"]
    assert "merchant_id = 'm1'" in scan["Index Cond"]
    assert "expires_at <= " in scan["Index Cond"]
    assert not [node for node in found if "Sort" in node["Node Type"]]


def test_pages_are_read_from_the_key_on_without_sorting_the_accounts_of_one_instant(shop: Shop, nights: Nights) -> None:
    nights.crowd(20_000, active_at=ACTIVE_AT)
    shop.run("ANALYZE loyalty.accounts")
    middle = shop.value("SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY account_id) FROM loyalty.accounts")
    position = {"merchant_id": "m1", "after_expires_at": GONE_AT, "after_account_id": middle, "page_size": 500}
    warning = {"timezone": "UTC", "warn_until": GONE_AT, "least_expires_at": GONE_AT}
    assert_reads_on_from_the_key(page_nodes(shop, expiry.WARN_PAGE.text, {**position, **warning}))
    nights.run(night(WARNED_ON), chunk_size=20_000)
    nights.deliver()
    shop.run("ANALYZE loyalty.accounts")
    shop.run("ANALYZE loyalty.notifications")
    taking = {"run_id": "r", "as_of": DUE_AT, "is_warning_required": True, "actor": "test"}
    # Few warnings are open when a night begins, and many soon after: a plan that reads all of them is slow by then.
    page = page_nodes(shop, expiry.EXPIRE_PAGE.text, {**position, **taking})
    assert_reads_on_from_the_key(page)
    assert not [node for node in page if "hashed SubPlan" in node.get("Filter", "")]
