"""Who is new, what they are given, whose card is full, and who is written to about it: once, whatever runs twice."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from loyalty_pipelines.db import merges, repairs
from loyalty_pipelines.db.queue_run import drain_queue
from loyalty_pipelines.domain.merges import Merge
from tests.checkout import Checkout
from tests.integration.test_awards_concurrency import (
    LOCK_ACCOUNT,
    draining,
    finish,
    holding,
    url_of,
    wait_until,
    waiting_for_a_lock,
    worker,
)
from tests.integration.test_awards_poison import TOTALS, many_orders, map_over
from tests.integration.test_repairs import adjustment
from tests.queued import Queue
from tests.shop import Shop

JUNE = datetime(2025, 6, 1, 12, tzinfo=UTC)
JULY = datetime(2025, 7, 1, 12, tzinfo=UTC)
AUGUST = datetime(2025, 8, 1, 12, tzinfo=UTC)


@pytest.fixture
def checkout(shop: Shop) -> Checkout:
    return Checkout(shop.engine)


@pytest.fixture
def generous(shop: Shop) -> Shop:
    """The shop, whose new customers are given 50 points."""
    shop.program(welcome_bonus_points=50)
    return shop


def mails(shop: Shop, customer: str = "ann") -> list[tuple[str, dict[str, Any]]]:
    """The mails of a customer in the order in which they were written, without the common beginning of their names."""
    return [
        (row.template.removeprefix("loyalty_"), row.payload)
        for row in shop.rows(
            "SELECT template, payload FROM loyalty.notifications WHERE customer_id = :customer "
            "ORDER BY merchant_id, notification_id",
            customer=customer,
        )
    ]


def everybodys(shop: Shop) -> Counter[str]:
    """How many mails of each kind were written."""
    rows = shop.rows("SELECT template FROM loyalty.notifications")
    return Counter(row.template.removeprefix("loyalty_") for row in rows)


def days_ago(shop: Shop, days: float) -> datetime:
    return shop.value("SELECT now()") - timedelta(days=days)


ENROLLED: list[tuple[str, dict[str, Any]]] = [("enrollment", {})]
WITH_BONUS: list[tuple[str, dict[str, Any]]] = [*ENROLLED, ("welcome_bonus", {"points": 50})]

# --- enrolment by an award ------------------------------------------------------------------------------


def test_the_first_order_of_a_customer_enrolls_them(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.order("2", "20.00")
    report = shop.award()
    (mail,) = shop.rows("SELECT * FROM loyalty.notifications")
    account_id = shop.account().account_id
    assert (mail.merchant_id, mail.customer_id, mail.template) == ("m1", "ann", "loyalty_enrollment")
    assert (mail.dedupe_key, mail.payload, mail.status, mail.attempts) == (
        f"enrollment/{account_id}", {}, "pending", 0,
    )  # fmt: skip
    assert shop.entries() == [("earned", 10), ("earned", 20)]
    assert (report.total("accounts_enrolled"), report.total("bonus_points")) == (1, 0)
    shop.order("3", "30.00")
    assert shop.award().total("accounts_enrolled") == 0
    assert mails(shop) == ENROLLED
    assert shop.problems() == []


def test_the_welcome_bonus_is_an_entry_before_those_of_the_orders_and_no_part_of_the_batch(generous: Shop) -> None:
    paid_at = days_ago(generous, 2)
    generous.order("1", "10.00", paid_at=paid_at)
    report = generous.award()
    assert generous.entries() == [("bonus", 50), ("earned", 10)]
    assert mails(generous) == WITH_BONUS
    (entry,) = generous.rows("SELECT * FROM loyalty.ledger_entries WHERE kind = 'bonus'")
    assert (entry.seq, entry.balance_before, entry.balance_after, entry.occurred_at) == (1, 0, 50, paid_at)
    assert (entry.reference_type, entry.reference_id, entry.reference_seq) == ("welcome_bonus", "ann", 1)
    assert (entry.actor, entry.run_id, entry.reason) == ("test", "test-run", None)
    assert (report.total("points_changed"), report.total("entries_written")) == (10, 1)
    assert (report.total("accounts_enrolled"), report.total("bonus_points")) == (1, 50)
    assert generous.problems() == []


def test_the_bonus_is_that_of_the_programme_in_force_when_the_first_order_was_paid(shop: Shop) -> None:
    shop.program(welcome_bonus_points=50, valid_from=JULY)
    shop.program(welcome_bonus_points=70, valid_from=AUGUST)
    shop.order("a1", "10.00", customer="ann", paid_at=AUGUST)
    shop.order("a2", "10.00", customer="ann", paid_at=JUNE)
    shop.order("b1", "10.00", customer="bob", paid_at=JULY)
    shop.order("b2", "10.00", customer="bob", paid_at=AUGUST)
    shop.order("c1", "10.00", customer="cid", paid_at=AUGUST)
    report = shop.award()
    assert [shop.balance(one) for one in ("ann", "bob", "cid")] == [20, 70, 80]
    assert report.total("bonus_points") == 120
    assert shop.problems() == []


def test_an_order_that_earned_nothing_was_not_the_first(shop: Shop) -> None:
    shop.program(welcome_bonus_points=50, valid_from=JULY)
    shop.order("1", "10.00", paid_at=JUNE, status="cancelled")
    shop.order("2", "10.00", paid_at=JUNE, currency="USD")
    shop.order("3", "10.00", paid_at=AUGUST)
    shop.award()
    assert shop.entries() == [("bonus", 50), ("earned", 10)]


def test_who_has_an_account_gets_no_bonus_later(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    shop.program(welcome_bonus_points=50)
    shop.order("2", "10.00")
    shop.award()
    assert shop.entries() == [("earned", 10), ("earned", 10)]
    assert mails(shop) == ENROLLED


def test_the_bonus_stays_and_is_not_given_again_whatever_becomes_of_the_order(generous: Shop) -> None:
    generous.order("1", "10.00")
    generous.award()
    for status in ("cancelled", "paid", "refunded"):
        generous.set_status("1", status)
        generous.award()
    generous.enqueue("1", "1")
    generous.award()
    assert [kind for kind, _ in generous.entries()] == ["bonus", "earned", "reversed", "re-earned", "reversed"]
    assert generous.balance() == 50
    assert mails(generous) == WITH_BONUS
    assert generous.problems() == []


def test_an_order_worth_no_points_enrolls_too_and_what_decides_nothing_does_not(generous: Shop) -> None:
    generous.order("1", "0.50", customer="ann")
    generous.order("2", "10.00", customer="bob", status="pending")
    generous.order("3", "10.00", customer=None)
    generous.order("4", "10.00", customer="cid", currency="USD")
    generous.award()
    assert generous.entries() == [("bonus", 50)]
    assert everybodys(generous) == {"enrollment": 1, "welcome_bonus": 1}
    assert generous.value("SELECT count(*) FROM loyalty.accounts") == 1
    assert generous.problems() == []


def test_an_order_that_moves_to_a_new_customer_enrolls_them(generous: Shop) -> None:
    generous.order("1", "10.00")
    generous.award()
    generous.change("1", customer_id="bob")
    generous.award()
    assert generous.entries("bob") == [("bonus", 50), ("re-earned", 10)]
    assert (generous.balance("ann"), mails(generous, "bob")) == (50, WITH_BONUS)
    assert generous.problems() == []


def test_the_bonus_expires_with_what_the_customer_earns(shop: Shop) -> None:
    shop.program(welcome_bonus_points=50, points_expiration_days=90)
    shop.order("1", "10.00", paid_at=JUNE)
    shop.order("2", "10.00", paid_at=JULY)
    shop.order("3", "0.10", customer="bob", paid_at=JULY)
    shop.award()
    for customer in ("ann", "bob"):
        account = shop.account(customer)
        assert account.last_activity_at == JULY
        assert account.expires_at == datetime(2025, 9, 29, 22, tzinfo=UTC)


# --- mails tell news ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "is_told"), [(6.9, True), (7.1, False), (700, False)])
def test_about_an_order_of_more_than_a_week_ago_nobody_is_written_to_but_the_bonus_is_given(
    shop: Shop, days: float, is_told: bool
) -> None:
    shop.program(welcome_bonus_points=50, stamps_per_order=1, stamp_target=1)
    shop.order("1", "10.00", paid_at=days_ago(shop, days))
    shop.award()
    assert shop.entries() == [("bonus", 50), ("earned", 10)]
    assert mails(shop) == ([*WITH_BONUS, ("reward_ready", {"stamps": 1})] if is_told else [])
    assert shop.problems() == []


def test_a_backfill_with_an_order_of_today_writes_nothing_about_an_enrolment_of_years_ago(generous: Shop) -> None:
    generous.order("1", "10.00", paid_at=days_ago(generous, 800))
    generous.order("2", "10.00")
    generous.award()
    assert generous.balance() == 70
    assert mails(generous) == []


def test_news_are_a_week_old_at_most(shop: Shop) -> None:
    is_news = "SELECT loyalty.is_news(now() - CAST(:age AS interval), now())"
    assert shop.value(is_news, age="7 days") is True
    assert shop.value(is_news, age="7 days 1 second") is False


# --- accounts that are not enrolled -----------------------------------------------------------------------


def test_accounts_that_were_adjusted_imported_or_merged_into_are_not_enrolled_nor_later(generous: Shop) -> None:
    generous.run("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('m1', 'adjusted')")
    generous.order("1", "10.00", customer="ann")
    generous.award()
    with generous.engine.begin() as conn:
        repairs.adjust(conn, adjustment(5, customer="adjusted"))
        merges.merge_accounts(
            conn,
            Merge(merchant_id="m1", customer_id="ann", into_customer_id="merged", reason="one person", actor="eve"),
        )
    assert everybodys(generous) == {"enrollment": 1, "welcome_bonus": 1}
    for customer in ("adjusted", "merged"):
        generous.order(f"order of {customer}", "1.00", customer=customer)
    assert generous.award().total("accounts_enrolled") == 0
    assert (generous.balance("adjusted"), generous.balance("merged")) == (6, 61)
    assert everybodys(generous) == {"enrollment": 1, "welcome_bonus": 1}
    assert generous.problems() == []


# --- twice, at once, interrupted -------------------------------------------------------------------------


def test_a_dry_run_says_who_would_be_enrolled_and_writes_nothing(generous: Shop) -> None:
    generous.order("1", "10.00")
    report = generous.award(is_dry_run=True)
    assert (report.total("accounts_enrolled"), report.total("bonus_points")) == (1, 50)
    assert everybodys(generous) == {}
    assert generous.value("SELECT count(*) FROM loyalty.accounts") == 0


def test_a_batch_that_is_rolled_back_at_its_end_has_written_no_mail(shop: Shop) -> None:
    shop.program(welcome_bonus_points=50, stamps_per_order=1, stamp_target=1)
    shop.order("1", "10.00")
    shop.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE undefined_column; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT ON loyalty.award_batches FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    assert set(shop.drain().failures) == {"m1"}
    assert (everybodys(shop), shop.entries()) == ({}, [])
    shop.run("DROP TRIGGER refuse ON loyalty.award_batches")
    shop.award()
    assert everybodys(shop) == {"enrollment": 1, "welcome_bonus": 1, "reward_ready": 1}
    assert shop.entries() == [("bonus", 50), ("earned", 10)]


def test_beside_poison_every_other_new_customer_is_enrolled_once(generous: Shop) -> None:
    map_over(generous, TOTALS.format(total="10 * total / CASE WHEN id = '50' THEN 0 ELSE 10 END"))
    many_orders(generous, 90)
    generous.drain(batch_size=20)
    assert generous.queued() == {"50": "database_error"}
    assert everybodys(generous) == {"enrollment": 89, "welcome_bonus": 89}
    assert generous.value("SELECT sum(balance) FROM loyalty.accounts") == 89 * 60
    assert generous.problems() == []


def test_processes_at_once_and_killed_ones_enroll_everybody_once(shop: Shop) -> None:
    shop.program(welcome_bonus_points=50, stamps_per_order=1, stamp_target=10)
    many_orders(shop, 3_000)
    dice = random.Random(7)
    with ExitStack() as stack:
        processes = [stack.enter_context(worker(shop, f"w{n}", batch_size=30)) for n in range(3)]
        for number in range(3):
            wait_until(lambda: shop.value("SELECT count(*) > 0 FROM loyalty.award_batches") or shop.inbox() == 0)
            time.sleep(dice.random() / 4)
            processes.pop(0).kill()
            processes.append(stack.enter_context(worker(shop, f"w{3 + number}", batch_size=30)))
        wait_until(lambda: shop.inbox() == 0)
        finish(processes)
    # c1 to c90 have 31 orders each, c0 and the last six 30: three full cards all of them, told of at least once.
    assert shop.value("SELECT sum(balance) FROM loyalty.accounts") == 97 * 50 + 30_000
    told = everybodys(shop)
    assert (told["enrollment"], told["welcome_bonus"]) == (97, 97)
    assert shop.value("SELECT count(*) FROM loyalty.notifications WHERE dedupe_key LIKE 'reward/%/10/3'") == 97
    assert shop.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    assert shop.problems() == []


UPDATE = "SELECT loyalty.update_customer_loyalty_points_atomic('ann', 7, 0, 'o', 10, 'm1')"


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("call", [UPDATE, "SELECT loyalty.enroll_customer('m1', 'ann')"])
def test_a_new_customer_at_a_checkout_and_in_a_batch_at_once_is_enrolled_once(
    generous: Shop, call: str, is_kept: bool
) -> None:
    generous.order("1", "10.00")
    with draining(url_of(generous.engine)) as drained:
        with holding(generous, call) as conn:
            wait_until(waiting_for_a_lock(generous, "drainer"))
            if not is_kept:
                conn.get_transaction().rollback()  # type: ignore[union-attr]
        report = drained.result(60)
    assert report.failures == {}
    assert report.total("accounts_enrolled") == (0 if is_kept else 1)
    assert mails(generous) == WITH_BONUS
    assert generous.balance() == 60 + (7 if is_kept and call == UPDATE else 0)
    assert generous.problems() == []


def test_of_20_calls_at_once_for_one_new_customer_one_enrolls(generous: Shop) -> None:
    start = threading.Barrier(20)

    def enroll(_: int) -> object:
        with psycopg.connect(url_of(generous.engine).replace("+psycopg", ""), autocommit=True) as conn:
            start.wait()
            return conn.execute("SELECT * FROM loyalty.enroll_customer('m1', 'ann')").fetchone()

    with ThreadPoolExecutor(max_workers=20) as pool:
        answers = Counter(pool.map(enroll, range(20)))
    assert answers == {("ann", True, 50, 50): 1, ("ann", False, 50, 50): 19}
    assert (generous.entries(), mails(generous)) == ([("bonus", 50)], WITH_BONUS)
    assert generous.problems() == []


# --- enrolment by a call ---------------------------------------------------------------------------------


def test_enrolling_gives_the_bonus_and_says_so_and_again_changes_nothing(shop: Shop, checkout: Checkout) -> None:
    shop.program(welcome_bonus_points=50, points_expiration_days=30)
    assert checkout.enroll() == ("ann", True, 50, 50)
    assert checkout.enroll() == ("ann", False, 50, 50)
    (entry,) = shop.rows("SELECT * FROM loyalty.ledger_entries")
    assert (entry.kind, entry.actor, entry.occurred_at == entry.recorded_at) == ("bonus", "checkout", True)
    account = shop.account()
    assert (account.last_activity_at, account.expires_at > entry.occurred_at + timedelta(days=30)) == (
        entry.occurred_at, True,
    )  # fmt: skip
    checkout.redeem("o", 20)
    assert checkout.enroll() == ("ann", False, 50, 30)
    shop.order("1", "10.00")
    assert shop.award().total("accounts_enrolled") == 0
    assert mails(shop) == WITH_BONUS
    assert shop.problems() == []


def test_without_a_bonus_enrolling_makes_an_empty_account_and_one_mail(shop: Shop, checkout: Checkout) -> None:
    assert checkout.enroll() == ("ann", True, 0, 0)
    account = shop.account()
    assert (account.balance, account.next_seq, account.last_activity_at, account.expires_at) == (0, 1, None, None)
    assert mails(shop) == ENROLLED
    assert checkout.spendable() == 0


def test_an_account_that_is_there_gets_neither_bonus_nor_mail(generous: Shop, checkout: Checkout) -> None:
    generous.run("INSERT INTO loyalty.accounts (merchant_id, customer_id) VALUES ('m1', 'ann')")
    assert checkout.enroll() == ("ann", False, 0, 0)
    assert (mails(generous), generous.entries()) == ([], [])


def test_enrolling_needs_a_programme_in_force_but_an_account_that_is_there_is_told_of(
    generous: Shop, checkout: Checkout
) -> None:
    generous.program(welcome_bonus_points=70, valid_from=generous.value("SELECT now() + interval '1 day'"))
    assert checkout.enroll("bob") == ("bob", True, 50, 50)
    generous.program(is_active=False)
    assert "has no points programme in force" in checkout.refused("LP005", "enroll")
    assert "has no points programme in force" in checkout.refused("LP005", "enroll", merchant="nobody")
    assert checkout.enroll("bob") == ("bob", False, 50, 50)
    assert generous.value("SELECT count(*) FROM loyalty.accounts") == 1


def test_a_programme_that_is_off_gives_no_bonus(generous: Shop) -> None:
    generous.program(is_active=False, welcome_bonus_points=50)
    generous.run("INSERT INTO loyalty.accounts (merchant_id, customer_id) VALUES ('m1', 'ann')")
    (given,) = generous.rows(
        "SELECT e.* FROM loyalty.accounts AS a, "
        "loyalty.enroll_accounts('m1', ARRAY[a.account_id], ARRAY[now()], 'test', NULL) AS e"
    )
    assert tuple(given) == (0, 0)


@pytest.mark.parametrize("customer", [None, "", "x" * 1001])
def test_enrolling_needs_an_id(shop: Shop, checkout: Checkout, customer: str | None) -> None:
    assert "customer_id is" in checkout.refused("LP004", "enroll", customer)
    assert "merchant_id is" in checkout.refused("LP004", "enroll", merchant=customer)


def test_who_was_merged_has_an_account_the_others(generous: Shop, checkout: Checkout) -> None:
    for customer in ("ann", "bob"):
        checkout.enroll(customer)
    with generous.engine.begin() as conn:
        merges.merge_accounts(
            conn, Merge(merchant_id="m1", customer_id="ann", into_customer_id="bob", reason="one person", actor="eve")
        )
    assert checkout.enroll("ann") == ("ann", False, 50, 100)
    assert generous.problems() == []


def test_enrolling_who_is_at_a_checkout_does_not_wait(generous: Shop, checkout: Checkout) -> None:
    checkout.enroll()
    with holding(generous, LOCK_ACCOUNT, customer="ann"), checkout.engine.begin() as conn:
        conn.execute(text("SET LOCAL lock_timeout = '100ms'"))
        assert tuple(conn.execute(text("SELECT * FROM loyalty.enroll_customer('m1', 'ann')")).one())[1] is False


def test_the_one_call_enrolls_before_it_books(generous: Shop, checkout: Checkout) -> None:
    for _ in range(2):
        assert checkout.update("o", 7, 20, merchant_id="m1") == ("m1", 7, 20, 50, 37)
    assert generous.entries() == [("bonus", 50), ("redeemed", -20), ("earned", 7)]
    assert mails(generous) == WITH_BONUS
    assert generous.problems() == []


def test_a_call_that_is_refused_enrolls_nobody(generous: Shop, checkout: Checkout) -> None:
    generous.order("o", "10.00", status="cancelled")
    checkout.refused("LP008", "update", "o", 7, 0)
    checkout.refused("LP002", "update", "p", 7, 51, merchant_id="m1")
    checkout.refused("LP002", "update", "p", 0, 1, merchant_id="m1")
    assert (everybodys(generous), generous.value("SELECT count(*) FROM loyalty.accounts")) == ({}, 0)


def test_a_call_that_the_queue_repeats_enrolls_once(generous: Shop, checkout: Checkout) -> None:
    waiting = Queue(generous)
    waiting.report("o", 7, 0)
    waiting.wait()
    drain_queue(generous.engine, actor="test")
    checkout.update("o", 7, 0)
    assert generous.entries() == [("bonus", 50), ("earned", 7)]
    assert mails(generous) == WITH_BONUS
    assert generous.problems() == []


# --- rewards ---------------------------------------------------------------------------------------------


def rewards(shop: Shop, customer: str = "ann") -> list[str]:
    """Target and round of the cards that the customer was told of."""
    return [
        row.dedupe_key.removeprefix(f"reward/{shop.account(customer).account_id}/")
        for row in shop.rows(
            "SELECT dedupe_key FROM loyalty.notifications "
            "WHERE template = 'loyalty_reward_ready' AND customer_id = :customer ORDER BY notification_id",
            customer=customer,
        )
    ]


@pytest.fixture
def stamped(shop: Shop) -> Shop:
    """The shop with a card of three stamps, one for each order."""
    shop.program(stamps_per_order=1, stamp_target=3)
    return shop


def buy(shop: Shop, *orders: str, customer: str = "ann", **more: Any) -> None:
    """Pay orders and award them in one batch."""
    for order in orders:
        shop.order(order, "1.00", customer=customer, **more)
    shop.award()


def test_a_full_card_is_told_of_once_and_the_next_one_too(stamped: Shop) -> None:
    for order in ("1", "2"):
        buy(stamped, order)
    assert rewards(stamped) == []
    buy(stamped, "3")
    assert rewards(stamped) == ["3/1"]
    assert mails(stamped)[-1] == ("reward_ready", {"stamps": 3})
    buy(stamped, "4", "5")
    stamped.enqueue("3", "5")
    stamped.award()
    assert rewards(stamped) == ["3/1"]
    buy(stamped, "6")
    assert rewards(stamped) == ["3/1", "3/2"]
    assert stamped.problems() == []


def test_a_card_that_is_full_again_after_a_cancellation_is_told_of_once(stamped: Shop) -> None:
    buy(stamped, "1", "2", "3")
    for status in ("cancelled", "paid"):
        stamped.set_status("3", status)
        stamped.award()
    buy(stamped, "4")
    assert (rewards(stamped), stamped.account().stamp_count) == (["3/1"], 4)


def test_of_several_cards_that_one_batch_fills_the_last_is_told_of(stamped: Shop) -> None:
    buy(stamped, *(str(n) for n in range(7)))
    assert rewards(stamped) == ["3/2"]
    buy(stamped, "7", customer="ann")
    assert rewards(stamped) == ["3/2"]


def test_several_stamps_of_one_order_may_step_over_the_end_of_a_card(shop: Shop) -> None:
    shop.program(stamps_per_order=2, stamp_target=3)
    buy(shop, "1")
    assert rewards(shop) == []
    buy(shop, "2")
    assert (rewards(shop), shop.account().stamp_count) == (["3/1"], 4)
    buy(shop, "3")
    assert rewards(shop) == ["3/1", "3/2"]


def test_only_those_whose_card_is_full_are_written_to(stamped: Shop) -> None:
    stamped.merchant("m2", stamps_per_order=1, stamp_target=2)
    for customer, orders in (("ann", 3), ("bob", 2), ("cid", 4)):
        for number in range(orders):
            stamped.order(f"{customer} {number}", "1.00", customer=customer)
    stamped.order("x", "1.00", customer="ann", merchant="m2")
    stamped.award()
    assert [rewards(stamped, one) for one in ("bob", "cid")] == [[], ["3/1"]]
    assert everybodys(stamped)["reward_ready"] == 2


def test_a_stamp_that_is_lost_in_the_same_batch_does_not_fill_a_card(stamped: Shop) -> None:
    buy(stamped, "1", "2")
    stamped.set_status("1", "cancelled")
    buy(stamped, "3")
    assert (rewards(stamped), stamped.account().stamp_count) == ([], 2)


def test_without_a_target_or_with_a_programme_that_is_off_nobody_is_told(shop: Shop) -> None:
    shop.program(stamps_per_order=1)
    buy(shop, "1", "2")
    shop.program(stamps_per_order=1, stamp_target=3)
    shop.order("3", "1.00")
    shop.program(is_active=False, stamp_target=3, valid_from=shop.value("SELECT now()"))
    shop.award()
    assert (shop.account().stamp_count, rewards(shop)) == (3, [])


def test_another_target_tells_of_no_card_that_was_full_already(stamped: Shop) -> None:
    buy(stamped, "1", "2")
    stamped.program(stamps_per_order=1, stamp_target=2)
    buy(stamped, "3")
    assert rewards(stamped) == []
    buy(stamped, "4")
    assert rewards(stamped) == ["2/2"]


def test_of_a_card_that_an_old_order_filled_nobody_is_told_though_a_new_one_comes_with_it(stamped: Shop) -> None:
    old = days_ago(stamped, 30)
    for number in range(3):
        stamped.order(f"old {number}", "1.00", paid_at=old + timedelta(hours=number))
    buy(stamped, "new")
    assert (rewards(stamped), stamped.account().stamp_count) == ([], 4)


def test_a_card_that_stays_full_is_not_told_of_though_stamps_come_and_go(stamped: Shop) -> None:
    buy(stamped, "1", "2", "3", paid_at=days_ago(stamped, 30))
    stamped.set_status("1", "cancelled")
    buy(stamped, "4", "5")
    assert (rewards(stamped), stamped.account().stamp_count) == ([], 4)


def test_a_new_order_that_makes_up_for_a_cancelled_one_fills_the_card(stamped: Shop) -> None:
    buy(stamped, "1", "cancelled")
    stamped.set_status("cancelled", "cancelled")
    stamped.order("new", "1.00", paid_at=days_ago(stamped, 1))
    buy(stamped, "old", paid_at=days_ago(stamped, 30))
    assert (rewards(stamped), stamped.account().stamp_count) == (["3/1"], 3)


def test_an_order_that_waits_in_the_queue_keeps_its_stamp_on_the_card(stamped: Shop) -> None:
    buy(stamped, "1", "2")
    stamped.change("1", currency="USD")
    buy(stamped, "3")
    assert stamped.queued() == {"1": "currency_differs"}
    assert (rewards(stamped), stamped.account().stamp_count) == (["3/1"], 3)


def test_a_card_that_a_new_order_fills_behind_old_ones_is_told_of(stamped: Shop) -> None:
    old = days_ago(stamped, 30)
    for customer, news in (("ann", 1), ("bob", 3)):
        for number in range(2):
            stamped.order(f"old {customer} {number}", "1.00", customer=customer, paid_at=old)
        for number in range(news):
            stamped.order(f"new {customer} {number}", "1.00", customer=customer)
    stamped.award()
    assert (rewards(stamped), rewards(stamped, "bob")) == (["3/1"], ["3/1"])


def test_a_checkout_that_fills_a_card_tells_of_it_and_its_award_not_again(stamped: Shop, checkout: Checkout) -> None:
    buy(stamped, "1", "2")
    checkout.update("3", 1, 0, order_total="1.00", merchant_id="m1")
    assert rewards(stamped) == ["3/1"]
    buy(stamped, "3")
    assert (rewards(stamped), stamped.account().stamp_count) == (["3/1"], 3)
    checkout.update("4", 1, 0, order_total="1.00", merchant_id="m1")
    assert rewards(stamped) == ["3/1"]


def test_a_merge_that_fills_a_card_tells_nobody(stamped: Shop) -> None:
    buy(stamped, "1", "2")
    buy(stamped, "3", customer="bob")
    with stamped.engine.begin() as conn:
        merges.merge_accounts(
            conn, Merge(merchant_id="m1", customer_id="ann", into_customer_id="bob", reason="one person", actor="eve")
        )
    buy(stamped, "4", customer="bob")
    assert (rewards(stamped, "bob"), stamped.account("bob").stamp_count) == ([], 4)
