"""An expiry that was wrong is taken back: exactly what the run took, once, and not for one night only."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from loyalty_pipelines.db import expiry_undo, merges
from loyalty_pipelines.db.expiry_undo_run import undo_run
from loyalty_pipelines.domain.expiry_undo import NothingTakenError, RunNotFoundError, Undo, UndoReport
from loyalty_pipelines.domain.merges import Merge
from loyalty_pipelines.domain.repairs import ImpossibleRepairError
from loyalty_pipelines.domain.source_mapping import NoMappingError
from tests.checkout import Checkout
from tests.expiry import EXPIRED, WARNING, Nights, ago
from tests.shop import Shop

LEAD = 14


@pytest.fixture
def nights(shop: Shop) -> Nights:
    """The shop's nights; points of m1 expire after 30 days. Undoing happens now, so the nights are of now, too."""
    shop.program(points_expiration_days=30)
    made = Nights(shop)
    made.run(ago(shop, 60))
    return made


def lead_from_today(shop: Shop, days: int = LEAD) -> datetime:
    return shop.value("SELECT loyalty.local_midnight(now(), :days, 'Europe/Luxembourg')", days=days)


def later(shop: Shop, days: int) -> None:
    """Let so many days pass, for the dates of accounts and for the newest warning of each."""
    shop.run(
        "WITH moved AS (UPDATE loyalty.accounts SET warned_for = expires_at, "
        "expires_at = loyalty.local_midnight(expires_at, -:days, 'Europe/Luxembourg') WHERE warned_for = expires_at "
        "RETURNING account_id, warned_for AS old, expires_at AS new) "
        "UPDATE loyalty.notifications SET dedupe_key = loyalty.warning_key(account_id, new, 'Europe/Luxembourg') "
        "FROM moved WHERE dedupe_key = loyalty.warning_key(account_id, old, 'Europe/Luxembourg')",
        days=days,
    )
    shop.run("UPDATE loyalty.accounts SET warned_for = expires_at WHERE warned_for IS NOT NULL")


def expire(nights: Nights, *customers: str, run_id: str = "wrong", merchant: str = "m1", points: int = 100) -> None:
    """Give customers points of 45 days ago, tell them, and take the points in a run."""
    for customer in customers:
        nights.account(customer, active_at=ago(nights.shop, 45), points=points, merchant=merchant)
    nights.run(ago(nights.shop, 28), merchant=merchant)
    nights.deliver()
    done = nights.run(ago(nights.shop, 1), merchant=merchant, run_id=run_id)
    assert done.accounts_expired >= len(customers)


def undo(shop: Shop, *, is_dry_run: bool = False, page_size: int = 500, **values: Any) -> UndoReport:
    chosen = {"run_id": "wrong", "reason": "a mistake", "actor": "eve", **values}
    report = undo_run(shop.engine, Undo(**chosen), is_dry_run=is_dry_run, page_size=page_size)
    assert report.failures == {}
    return report


def given(report: UndoReport) -> tuple[int, int, int]:
    return report.total("accounts"), report.total("points"), report.total("accounts_before")


# --- what comes back ------------------------------------------------------------------------------------


def test_what_a_run_took_comes_back_as_an_entry_with_its_reason_and_its_actor(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    assert given(undo(shop)) == (1, 100, 0)
    account = shop.account()
    (entry,) = shop.rows("SELECT * FROM loyalty.ledger_entries WHERE kind = 'adjusted'")
    assert (entry.seq, entry.points, entry.balance_before, entry.balance_after) == (3, 100, 0, 100)
    assert (entry.reason, entry.actor, entry.run_id) == ("expiry run wrong undone: a mistake", "eve", "wrong")
    assert (entry.reference_type, entry.reference_id, entry.reference_seq) == (
        "expiry",
        f"{account.account_id}/2",
        2,
    )
    assert (account.balance, account.next_seq, account.last_expiry_seq) == (100, 4, 0)
    assert shop.rows("SELECT accounts_undone, points_undone FROM loyalty.expiry_runs WHERE run_id = 'wrong'") == [
        (1, 100)
    ]
    assert shop.problems() == []


def test_exactly_what_the_run_took_comes_back_from_each(shop: Shop, nights: Nights, checkout: Checkout) -> None:
    nights.account("part", active_at=datetime.now(tz=ZoneInfo("UTC")), points=80)
    checkout.reserve("basket", 30, "part")
    nights.backdate("part", active_at=ago(shop, 45))
    nights.account("bob", active_at=ago(shop, 45), points=7)
    expire(nights, "ann", "part", points=100)
    assert nights.expired() == {"ann": [100], "bob": [7], "part": [150]}
    assert given(undo(shop)) == (3, 257, 0)
    assert [shop.balance(customer) for customer in ("ann", "bob", "part")] == [100, 7, 180]
    assert shop.problems() == []


def test_a_second_undo_gives_nothing_and_says_so(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann", "bob")
    assert [given(undo(shop)) for _ in range(3)] == [(2, 200, 0), (0, 0, 2), (0, 0, 2)]
    assert (shop.balance("ann"), shop.balance("bob"), shop.problems()) == (100, 100, [])


@pytest.mark.parametrize("page_size", [1, 2, 3, 500])
def test_pages_of_any_size_give_everything_back(shop: Shop, nights: Nights, page_size: int) -> None:
    expire(nights, "a", "b", "c", "d", "e")
    assert given(undo(shop, page_size=page_size)) == (5, 500, 0)
    assert shop.problems() == []


def test_one_customer_alone_and_then_the_others(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann", "bob", "cid")
    assert given(undo(shop, customer_id="bob")) == (1, 100, 0)
    assert [shop.balance(customer) for customer in ("ann", "bob", "cid")] == [0, 100, 0]
    assert given(undo(shop)) == (2, 200, 1)


def test_one_merchant_alone_and_then_the_others(shop: Shop, nights: Nights) -> None:
    shop.merchant("m2", points_expiration_days=30)
    nights.run(ago(shop, 60), merchant="m2")
    expire(nights, "ann")
    expire(nights, "ann", merchant="m2")
    assert given(undo(shop, merchant_id="m2")) == (1, 100, 0)
    assert (shop.balance(), shop.balance(merchant="m2")) == (0, 100)
    report = undo(shop)
    assert {one.merchant_id: (one.accounts, one.accounts_before) for one in report.merchants} == {
        "m1": (1, 0),
        "m2": (0, 1),
    }


def test_other_runs_stay(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann", run_id="right")
    expire(nights, "bob", run_id="wrong")
    undo(shop)
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 100)


def test_a_dry_run_counts_and_writes_nothing(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann", "bob")
    undo(shop, customer_id="bob")
    before = nights.tables()
    assert given(undo(shop, is_dry_run=True)) == (1, 100, 1)
    assert nights.tables() == before


def test_an_undo_that_ends_between_two_pages_gives_the_rest_when_it_is_run_again(
    shop: Shop, nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    expire(nights, "a", "b", "c", "d", "e")
    real, pages = expiry_undo.undo_page, []

    def dying(*args: Any) -> Any:
        if len(pages) == 2:
            raise KeyboardInterrupt
        pages.append(args)
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(expiry_undo, "undo_page", dying)
        with pytest.raises(KeyboardInterrupt):
            undo(shop, page_size=2)
    assert shop.value("SELECT sum(balance) FROM loyalty.accounts") == 400
    assert given(undo(shop, page_size=2)) == (1, 100, 4)
    assert shop.rows("SELECT accounts_undone, points_undone FROM loyalty.expiry_runs WHERE run_id = 'wrong'") == [
        (5, 500)
    ]
    assert shop.problems() == []


def test_a_merchant_that_fails_stops_no_other(shop: Shop, nights: Nights) -> None:
    shop.merchant("m2", points_expiration_days=30)
    nights.run(ago(shop, 60), merchant="m2")
    expire(nights, "ann")
    expire(nights, "ann", merchant="m2")
    shop.run("UPDATE loyalty.accounts SET next_seq = 1 WHERE merchant_id = 'm1'")
    chosen = Undo(run_id="wrong", reason="a mistake", actor="eve")
    report = undo_run(shop.engine, chosen)
    assert "ledger_entries_pkey" in report.failures["m1"]
    assert (shop.balance(), shop.balance(merchant="m2")) == (0, 100)


# --- not for one night only -----------------------------------------------------------------------------


def test_points_that_came_back_last_for_the_whole_lead_and_are_warned_of_again(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    undo(shop)
    account = shop.account()
    assert (account.expires_at, account.warned_for) == (lead_from_today(shop), None)
    done = nights.run()
    assert (done.accounts_expired, done.accounts_warned, done.accounts_moved) == (0, 1, 0)
    assert nights.warnings()[-1] == ("ann", lead_from_today(shop), "pending")
    assert nights.run(is_warning_required=False).accounts_expired == 0


def test_a_later_date_that_the_customer_has_by_now_stays(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    nights.account("ann", active_at=ago(shop, 1), points=5)
    date_by_then = shop.account().expires_at
    undo(shop)
    assert shop.account().expires_at == date_by_then > lead_from_today(shop)
    assert shop.balance() == 105


def test_an_earlier_date_that_the_account_has_by_now_moves(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    # Points of an old order, which came late: their date is over.
    nights.account("ann", active_at=ago(shop, 46), points=5)
    assert shop.account().expires_at < ago(shop, 0)
    undo(shop)
    assert (shop.balance(), shop.account().expires_at) == (105, lead_from_today(shop))
    assert nights.run(is_warning_required=False).accounts_expired == 0


def test_without_a_period_any_more_what_came_back_lasts_for_ever(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    shop.program(points_expiration_days=None)
    undo(shop)
    assert (shop.balance(), shop.account().expires_at) == (100, None)


def test_behind_a_programme_that_is_off_points_come_back_too(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    shop.program(points_expiration_days=30, is_active=False)
    undo(shop)
    assert shop.balance() == 100
    assert nights.run(is_warning_required=False).accounts_expired == 0
    shop.program(points_expiration_days=30)
    done = nights.run(is_warning_required=False)
    assert (done.accounts_expired, shop.account().expires_at) == (0, lead_from_today(shop))


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Pacific/Kiritimati", "Moon/Tycho"])
def test_the_date_is_a_midnight_of_the_merchants_zone(shop: Shop, zone: str) -> None:
    shop.merchant("m2", timezone=zone, points_expiration_days=7)
    nights = Nights(shop)
    nights.account(active_at=ago(shop, 12), merchant="m2")
    nights.run(ago(shop, 7), merchant="m2")
    nights.deliver()
    nights.run(ago(shop, 1), merchant="m2", run_id="wrong")
    undo(shop)
    known = "UTC" if zone == "Moon/Tycho" else zone
    assert shop.account(merchant="m2").expires_at == shop.value(
        "SELECT loyalty.local_midnight(now(), 3, :zone)", zone=known
    )


def test_points_that_came_back_can_be_spent(shop: Shop, nights: Nights, checkout: Checkout) -> None:
    expire(nights, "ann")
    undo(shop)
    checkout.redeem("o", 100)
    assert (shop.balance(), shop.problems()) == (0, [])


# --- mails ----------------------------------------------------------------------------------------------


def test_nobody_gets_a_mail_unless_it_is_asked_for(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    nights.deliver()
    before = nights.mails()
    undo(shop)
    assert nights.mails() == before


def test_with_a_mail_the_customer_is_told_of_the_points_and_the_new_date_once(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    undo(shop, is_mailed=True)
    undo(shop, is_mailed=True)
    customer, template, payload = nights.mails()[-1]
    assert (customer, template, payload["points"]) == ("ann", WARNING, 100)
    assert datetime.fromisoformat(payload["expires_at"]) == lead_from_today(shop) == shop.account().warned_for
    nights.deliver()
    # The mail was the warning: none comes in the night.
    assert nights.run().accounts_warned == 0
    assert len(nights.mails(WARNING)) == 2


def test_a_mail_of_the_undo_that_does_not_arrive_keeps_the_points(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    undo(shop, is_mailed=True)
    later(shop, 20)
    done = nights.run()
    assert (done.accounts_expired, done.accounts_moved) == (0, 1)
    assert shop.account().expires_at == lead_from_today(shop)


def test_who_has_a_later_date_by_now_gets_no_mail_and_is_warned_in_time(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    nights.account("ann", active_at=ago(shop, 0), points=5)
    before = nights.warnings()
    undo(shop, is_mailed=True)
    account = shop.account()
    assert (nights.warnings(), account.balance, account.warned_for) == (before, 105, None)
    assert account.expires_at == lead_from_today(shop, 31)


def test_behind_a_programme_that_is_off_nobody_is_told_a_date(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    shop.program(points_expiration_days=30, is_active=False)
    before = nights.warnings()
    assert given(undo(shop, is_mailed=True)) == (1, 100, 0)
    assert (nights.warnings(), shop.account().warned_for) == (before, None)


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_an_expired_mail_that_nobody_has_got_is_void(shop: Shop, nights: Nights, status: str) -> None:
    expire(nights, "ann")
    if status == "failed":
        nights.settle("failed")
    undo(shop)
    assert shop.rows("SELECT status, last_error FROM loyalty.notifications WHERE template = :one", one=EXPIRED) == [
        ("void", "the expiry was undone")
    ]


def test_an_expired_mail_that_was_sent_or_is_being_sent_stays_as_it_is(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann", "bob")
    nights.settle("sent", customer="ann")
    shop.run("UPDATE loyalty.notifications SET leased_until = now() + interval '1 minute' WHERE status = 'pending'")
    undo(shop)
    assert shop.rows(
        "SELECT customer_id, status FROM loyalty.notifications WHERE template = :one ORDER BY 1", one=EXPIRED
    ) == [("ann", "sent"), ("bob", "pending")]


# --- merges, refunds, later expiries --------------------------------------------------------------------


def merge(shop: Shop, source: str, into: str) -> None:
    with shop.engine.begin() as conn:
        merges.merge_accounts(
            conn, Merge(merchant_id="m1", customer_id=source, into_customer_id=into, reason="one person", actor="eve")
        )


def test_after_a_merge_the_customer_who_remains_gets_the_points(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    nights.account("bob", active_at=ago(shop, 1), points=5)
    merge(shop, "ann", "bob")
    assert given(undo(shop)) == (1, 100, 0)
    assert given(undo(shop)) == (0, 0, 1)
    assert (shop.balance("ann"), shop.balance("bob"), shop.account("ann").last_expiry_seq) == (0, 105, 0)
    assert shop.problems() == []


def test_two_accounts_that_are_one_by_now_get_both_back(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann", "bob", points=70)
    merge(shop, "ann", "bob")
    assert given(undo(shop, is_mailed=True)) == (2, 140, 0)
    assert (shop.balance("bob"), shop.problems()) == (140, [])


def test_after_a_later_expiry_only_that_one_counts_as_the_last(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann", run_id="first")
    nights.account("ann", active_at=ago(shop, 44), points=40)
    nights.run(ago(shop, 27))
    nights.deliver()
    later(shop, 13)
    nights.run(run_id="second")
    assert nights.expired() == {"ann": [100, 40]}
    undo(shop, run_id="first")
    assert (shop.balance(), shop.account().last_expiry_seq) == (100, 4)
    undo(shop, run_id="second")
    assert (shop.balance(), shop.account().last_expiry_seq) == (140, 0)
    assert shop.problems() == []


def test_a_refund_after_an_undo_takes_the_orders_points_back(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann", "bob")
    undo(shop, customer_id="ann")
    for customer in ("ann", "bob"):
        (order,) = shop.rows("SELECT id FROM sample_shop.orders WHERE customer_id = :customer", customer=customer)
        shop.set_status(order.id, "cancelled")
    shop.award()
    # What expired and stayed so is not taken a second time.
    assert shop.entries("ann") == [("earned", 100), ("expired", -100), ("adjusted", 100), ("reversed", -100)]
    assert shop.entries("bob") == [("earned", 100), ("expired", -100)]
    assert (shop.balance("ann"), shop.balance("bob"), shop.problems()) == (0, 0, [])


def test_points_that_came_back_to_a_debt_pay_it(shop: Shop, nights: Nights) -> None:
    shop.program(points_expiration_days=30, clawback="allow_negative")
    expire(nights, "ann")
    nights.account("ann", active_at=ago(shop, 0), points=30)
    shop.spend("ann", 30)
    (order,) = shop.rows("SELECT id FROM sample_shop.orders WHERE total = 30")
    shop.set_status(order.id, "cancelled")
    shop.award()
    assert shop.balance() == -30
    undo(shop)
    assert (shop.balance(), shop.account().is_debt_allowed, shop.problems()) == (70, False, [])


# --- refused --------------------------------------------------------------------------------------------


def test_a_run_that_there_is_not_is_refused_with_the_newest_ones(shop: Shop, nights: Nights) -> None:
    with pytest.raises(RunNotFoundError, match="no run has taken points yet"):
        undo(shop)
    expire(nights, "ann", run_id="right")
    with pytest.raises(RunNotFoundError, match="Found no expiry run 'wrong': the newest that took points: right"):
        undo(shop)
    with pytest.raises(RunNotFoundError, match="at merchant 'm2'"):
        undo(shop, run_id="right", merchant_id="m2")


def test_a_run_that_took_nothing_from_the_customer_is_refused(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    with pytest.raises(NothingTakenError, match="took no points from customer 'bob'"):
        undo(shop, customer_id="bob")
    nights.run(ago(shop, 0), run_id="idle")
    with pytest.raises(NothingTakenError, match="took no points from anybody"):
        undo(shop, run_id="idle")


@pytest.mark.parametrize("missing", ["reason", "actor"])
def test_who_says_so_and_why_has_to_be_said(missing: str) -> None:
    with pytest.raises(ImpossibleRepairError):
        Undo(
            run_id="wrong",
            reason="  " if missing == "reason" else "a mistake",
            actor="  " if missing == "actor" else "eve",
        )


def test_without_a_shop_nothing_is_undone(shop: Shop, nights: Nights) -> None:
    expire(nights, "ann")
    shop.run("DELETE FROM loyalty.source_mapping")
    with pytest.raises(NoMappingError):
        undo(shop)


def test_what_a_run_took_is_found_page_by_page_in_the_order_of_the_ledgers_key(shop: Shop, nights: Nights) -> None:
    nights.crowd(3_000, active_at=ago(shop, 45))
    shop.run("ANALYZE loyalty.ledger_entries")
    shop.run("ANALYZE loyalty.accounts")
    values = {
        "merchant_id": "m1",
        "run_id": "wrong",
        "customer_id": None,
        "after_account_id": 1_500,
        "after_seq": 1,
        "page_size": 500,
    }
    with shop.engine.connect() as conn:
        plan = "\n".join(conn.execute(text("EXPLAIN " + expiry_undo.TAKEN_PAGE.text), values).scalars())
    assert "ledger_entries_pkey" in plan
    assert "ROW(account_id, seq) > ROW('1500'::bigint" in plan
    assert "Sort" not in plan


@pytest.fixture
def checkout(shop: Shop) -> Checkout:
    return Checkout(shop.engine)
