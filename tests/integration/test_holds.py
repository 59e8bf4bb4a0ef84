"""Stale holds: released once, for accounts that nobody is at work on; the rest stays as it is."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from loyalty_pipelines.db import holds
from loyalty_pipelines.db.holds_run import is_any_hold_stale, release_stale_holds
from loyalty_pipelines.domain.holds import ReleaseReport
from tests.checkout import Checkout
from tests.shop import Shop


@pytest.fixture
def checkout(shop: Shop) -> Checkout:
    """A checkout for ann, bea and carl, who have 100 points each."""
    for customer in ("ann", "bea", "carl"):
        shop.order(f"first of {customer}", "100.00", customer=customer)
    shop.award()
    return Checkout(shop.engine)


def end(shop: Shop, *orders: str) -> None:
    """Let the time of holds be over."""
    for order in orders:
        shop.run(
            "UPDATE loyalty.holds SET expires_at = now() - interval '1 second' WHERE order_id = :order", order=order
        )


def released(shop: Shop, **options: Any) -> dict[str, tuple[int, int]]:
    """Release what is stale; return holds and points by merchant, failing when something was left over."""
    report = release_stale_holds(shop.engine, **options)
    assert (report.failures, list(report.skipped)) == ({}, [])
    return {name: (one.holds, one.points) for name, one in report.merchants.items()}


def status(shop: Shop, order: str) -> str:
    return shop.value("SELECT status FROM loyalty.holds WHERE order_id = :order", order=order)


@contextmanager
def locked(shop: Shop, customer: str) -> Iterator[Connection]:
    """A checkout at work on an account."""
    with shop.engine.begin() as conn:
        conn.execute(text("SELECT loyalty.lock_account('m1', :customer)"), {"customer": customer})
        yield conn


def test_a_hold_past_its_time_is_released_and_its_points_are_spendable(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    end(shop, "o")
    assert is_any_hold_stale(shop.engine)
    assert released(shop) == {"m1": (1, 60)}
    assert (status(shop, "o"), shop.account().held, checkout.spendable(), shop.problems()) == ("released", 0, 100, [])
    assert not is_any_hold_stale(shop.engine)
    assert released(shop) == {}


def test_holds_in_time_and_captured_ones_stay(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("in time", 20)
    checkout.reserve("stale", 30)
    checkout.reserve("captured", 40)
    checkout.capture("captured")
    end(shop, "stale", "captured")
    assert released(shop) == {"m1": (1, 30)}
    assert [status(shop, one) for one in ("in time", "stale", "captured")] == ["open", "released", "captured"]
    assert (shop.account().held, shop.balance(), shop.problems()) == (20, 60, [])


def test_a_hold_is_stale_at_the_instant_of_its_end(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    with shop.engine.begin() as conn:
        (ends_at,) = conn.execute(text("SELECT expires_at FROM loyalty.holds")).scalars()
        before = holds.stale_holds(conn, after=None, as_of=ends_at - timedelta(microseconds=1), page_size=10)
        at_it = holds.stale_holds(conn, after=None, as_of=ends_at, page_size=10)
    assert ([one.order_id for one in before], [one.order_id for one in at_it]) == ([], ["o"])


@pytest.mark.parametrize("page_size", [1, 7, 500])
def test_pages_of_any_size_release_everything_once(shop: Shop, checkout: Checkout, page_size: int) -> None:
    shop.merchant("m2")
    shop.order("m2", "100.00", merchant="m2")
    shop.award()
    for number in range(30):
        checkout.reserve(f"o{number}", 3, ("ann", "bea", "carl")[number % 3])
    checkout.reserve("of m2", 70, merchant="m2")
    # All at one instant, so that pages end between equal times.
    shop.run("UPDATE loyalty.holds SET expires_at = '2026-01-01'")
    assert released(shop, page_size=page_size) == {"m1": (30, 90), "m2": (1, 70)}
    assert shop.value("SELECT sum(held) FROM loyalty.accounts") == 0
    assert shop.problems() == []


def test_a_capture_after_the_release_takes_what_is_still_there(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    end(shop, "o")
    released(shop)
    assert checkout.capture("o").balance_after == 40
    checkout.reserve("p", 30)
    end(shop, "p")
    released(shop)
    checkout.redeem("q", 20)
    assert checkout.refused("LP002", "capture", "p").startswith("Insufficient loyalty points. Available: 20, Req")
    assert shop.problems() == []


def test_a_released_order_can_reserve_again_and_is_not_released_then(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    end(shop, "o")
    released(shop)
    checkout.reserve("o", 80)
    assert released(shop) == {}
    assert (shop.account().held, shop.problems()) == (80, [])


def test_an_account_that_a_checkout_has_locked_is_skipped_and_reported(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("of ann", 60)
    checkout.reserve("of bea", 50, "bea")
    end(shop, "of ann", "of bea")
    with locked(shop, "ann"):
        report = release_stale_holds(shop.engine)
        assert [one.order_id for one in report.skipped] == ["of ann"]
        assert (report.holds, report.points, report.failures) == (1, 50, {})
    assert released(shop) == {"m1": (1, 60)}
    assert shop.problems() == []


def test_what_was_locked_is_tried_once_more_in_the_same_pass(
    shop: Shop, checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout.reserve("of ann", 60)
    checkout.reserve("of bea", 50, "bea")
    # Ann's is met first.
    shop.run("UPDATE loyalty.holds SET expires_at = CASE order_id WHEN 'of ann' THEN now() - interval '1 minute' "
             "ELSE now() - interval '1 second' END")  # fmt: skip
    is_met, is_free = threading.Event(), threading.Event()
    report: list[ReleaseReport] = []
    pages = holds.stale_holds

    def wait_before_the_second_page(conn: Connection, **options):
        if options["after"] is not None:
            is_met.set()
            assert is_free.wait(60)
        return pages(conn, **options)

    monkeypatch.setattr(holds, "stale_holds", wait_before_the_second_page)
    thread = threading.Thread(target=lambda: report.append(release_stale_holds(shop.engine, page_size=1)))
    with locked(shop, "ann"):
        thread.start()
        assert is_met.wait(60)
    is_free.set()
    thread.join()
    assert (report[0].holds, report[0].points, list(report[0].skipped)) == (2, 110, [])
    assert shop.problems() == []


def test_a_hold_that_is_captured_before_its_account_could_be_locked_stays_captured(
    shop: Shop, checkout: Checkout
) -> None:
    checkout.reserve("o", 60)
    end(shop, "o")
    with shop.engine.begin() as conn:
        as_of = holds.stale_as_of(conn)
        assert as_of is not None
        page = holds.stale_holds(conn, after=None, as_of=as_of, page_size=10)
        checkout.capture("o")
        assert holds.release(conn, page, as_of=as_of) == ([], [])
    assert (status(shop, "o"), shop.balance(), shop.problems()) == ("captured", 40, [])


def test_a_hold_that_was_reserved_again_meanwhile_stays_open(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    end(shop, "o")
    with shop.engine.begin() as conn:
        as_of = holds.stale_as_of(conn)
        assert as_of is not None
        page = holds.stale_holds(conn, after=None, as_of=as_of, page_size=10)
        checkout.release("o")
        checkout.reserve("o", 70)
        assert holds.release(conn, page, as_of=as_of) == ([], [])
    assert (status(shop, "o"), shop.account().held, shop.problems()) == ("open", 70, [])


def test_two_passes_at_once_release_every_hold_once(shop: Shop, checkout: Checkout) -> None:
    for number in range(60):
        checkout.reserve(f"o{number}", 2, ("ann", "bea", "carl")[number % 3])
    shop.run("UPDATE loyalty.holds SET expires_at = '2026-01-01'")
    start = threading.Barrier(2)
    found: list[ReleaseReport] = []

    def release() -> None:
        start.wait()
        found.append(release_stale_holds(shop.engine, page_size=4))

    threads = [threading.Thread(target=release) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # What one pass found locked by the other is released by that one, or by the next pass.
    points = sum(one.points for one in found) + sum(points for _, points in released(shop).values())
    assert ([one.failures for one in found], points) == ([{}, {}], 120)
    assert (shop.value("SELECT sum(held) FROM loyalty.accounts"), shop.problems()) == (0, [])


def test_a_pass_that_ends_half_way_leaves_its_page_as_it_was(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    end(shop, "o")
    with shop.engine.connect() as conn:
        as_of = holds.stale_as_of(conn)
        assert as_of is not None
        page = holds.stale_holds(conn, after=None, as_of=as_of, page_size=10)
        assert holds.release(conn, page, as_of=as_of)[0]
        conn.rollback()
    assert (status(shop, "o"), shop.account().held, shop.problems()) == ("open", 60, [])
    assert released(shop) == {"m1": (1, 60)}


def test_a_hold_that_is_refused_stops_no_other(shop: Shop, checkout: Checkout) -> None:
    shop.merchant("m0")
    shop.order("m0", "100.00", merchant="m0")
    shop.award()
    checkout.reserve("bad", 60, merchant="m0")
    for number in range(5):
        checkout.reserve(f"o{number}", 10)
    shop.run("UPDATE loyalty.holds SET expires_at = '2026-01-01'")
    # Restored without its account, for example.
    shop.run("UPDATE loyalty.accounts SET held = 0 WHERE merchant_id = 'm0'")
    report = release_stale_holds(shop.engine)
    assert (report.holds, report.points) == (5, 50)
    assert list(report.failures) == ["m0"]
    assert report.failures["m0"].startswith('order bad: new row for relation "accounts" violates check constraint')
    assert shop.problems(merchant="m1") == []


def test_a_debt_that_only_the_hold_made_ends_with_it(shop: Shop, checkout: Checkout) -> None:
    """An award that takes back under allow_negative leaves less than is held; without the hold it is no debt."""
    shop.program(clawback="allow_negative")
    checkout.reserve("o", 60)
    shop.refund("first of ann", "80.00")
    shop.award()
    assert (shop.balance(), shop.account().held, shop.account().is_debt_allowed) == (20, 60, True)
    end(shop, "o")
    released(shop)
    assert (shop.balance(), shop.account().held, shop.account().is_debt_allowed) == (20, 0, False)


def test_a_debt_that_is_there_without_the_hold_stays_allowed(shop: Shop, checkout: Checkout) -> None:
    shop.program(clawback="allow_negative")
    checkout.reserve("o", 30)
    checkout.redeem("p", 70)
    shop.refund("first of ann", "100.00")
    shop.award()
    assert shop.balance() == -70
    end(shop, "o")
    released(shop)
    assert (shop.balance(), shop.account().held, shop.problems()) == (-70, 0, [])


def test_stale_holds_are_read_from_the_index_of_open_ones(shop: Shop, checkout: Checkout) -> None:
    shop.run(
        "INSERT INTO loyalty.holds (merchant_id, order_id, account_id, points, status, expires_at) "
        "SELECT 'm1', n, (SELECT min(account_id) FROM loyalty.accounts), 1, 'captured', now() "
        "FROM generate_series(1, 5000) AS n"
    )
    checkout.reserve("o", 60)
    end(shop, "o")
    shop.run("ANALYZE loyalty.holds")
    values = {"as_of": "now", "after_expires_at": "-infinity", "after_merchant_id": "", "after_order_id": ""}
    with shop.engine.connect() as conn:
        plan = "\n".join(
            conn.execute(text("EXPLAIN " + holds.STALE_HOLDS.text), {**values, "page_size": 500}).scalars()
        )
    assert "holds_open_by_expiry" in plan
    assert "Seq Scan" not in plan
