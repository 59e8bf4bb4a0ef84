"""Dates of accounts: compared with the rule where points expire, where they never do, and where they were moved."""

import pytest

from loyalty_pipelines.db import merges
from loyalty_pipelines.db.expiry_undo_run import undo_run
from loyalty_pipelines.domain.expiry_undo import Undo
from loyalty_pipelines.domain.merges import Merge
from tests.expiry import Nights, ago
from tests.integrity import found, proved
from tests.shop import Shop

IN_2099 = "UPDATE loyalty.accounts SET expires_at = '2099-01-01' WHERE customer_id = 'ann'"


@pytest.fixture
def nights(shop: Shop) -> Nights:
    return Nights(shop)


def wrong(shop: Shop) -> set[str]:
    """Prove everything; return the classes of what is wrong with ann."""
    proved(shop)
    ann = str(shop.account().account_id)
    return {one.class_name for one in found(shop) if one.object_id == ann}


def merge(shop: Shop, customer: str, into: str = "ann") -> None:
    with shop.engine.begin() as conn:
        merges.merge_accounts(
            conn, Merge(merchant_id="m1", customer_id=customer, into_customer_id=into, reason="same", actor="test")
        )


@pytest.mark.parametrize("days", [None, 0])
def test_a_date_where_points_never_expire_is_too_early(shop: Shop, nights: Nights, days: int | None) -> None:
    shop.program(points_expiration_days=days)
    shop.order("o1", 100)
    shop.award()
    nights.run()
    assert wrong(shop) == set()
    shop.run("UPDATE loyalty.accounts SET expires_at = now() - interval '1 day'")
    assert shop.value("SELECT spendable FROM loyalty.customer_points") == 0
    assert wrong(shop) == {"date_too_early"}
    shop.run("UPDATE loyalty.accounts SET expires_at = NULL")
    assert wrong(shop) == set()


def test_a_missing_date_is_right_once_points_never_expire(shop: Shop, nights: Nights) -> None:
    shop.program(points_expiration_days=30)
    shop.order("o1", 100)
    shop.award()
    nights.run()
    shop.run("UPDATE loyalty.accounts SET expires_at = NULL")
    assert wrong(shop) == {"date_missing"}
    shop.program(points_expiration_days=None)
    # Until the night has computed all dates anew, nobody knows.
    assert wrong(shop) == {"date_missing"}
    nights.run()
    assert wrong(shop) == set()


def test_a_warning_that_nobody_got_is_found_where_points_never_expire(shop: Shop, nights: Nights) -> None:
    shop.order("o1", 100)
    shop.award()
    nights.run()
    shop.run("UPDATE loyalty.accounts SET expires_at = now() - interval '1 day', warned_for = now() - interval '1 day'")
    assert wrong(shop) == {"date_too_early", "mail_missing"}


def test_a_merge_explains_a_later_date_and_not_any_date(shop: Shop, nights: Nights) -> None:
    shop.program(points_expiration_days=30)
    nights.account("ann", active_at=ago(shop, 5))
    nights.account("bob", active_at=ago(shop, 20))
    nights.run()
    # What an undone expiry gave bob lasts longer than the rule says; the merge keeps it.
    shop.run("UPDATE loyalty.accounts SET expires_at = loyalty.local_midnight(now(), 29, 'Europe/Luxembourg') "
             "WHERE customer_id = 'bob'")  # fmt: skip
    merge(shop, "bob")
    assert wrong(shop) == set()
    shop.run(IN_2099)
    assert wrong(shop) == {"date_too_late"}


def test_a_merge_keeps_a_date_that_one_of_both_was_told(shop: Shop, nights: Nights) -> None:
    shop.program(points_expiration_days=60, warning_days=30)
    nights.account("bob", active_at=ago(shop, 40))
    nights.run()
    nights.deliver()
    # The shorter period leaves bob the date that he was told; ann was told nothing, and so is the account of both.
    shop.program(points_expiration_days=10, warning_days=5)
    nights.account("ann", active_at=ago(shop, 0))
    nights.run()
    merge(shop, "bob")
    ann = shop.account()
    assert (ann.warned_for, ann.expires_at > ago(shop, -12)) == (None, True)
    assert wrong(shop) == set()


def test_an_undone_expiry_explains_a_later_date_and_not_any_date(shop: Shop, nights: Nights) -> None:
    shop.program(points_expiration_days=30)
    nights.run(ago(shop, 60))
    nights.account("ann", active_at=ago(shop, 45))
    nights.run(ago(shop, 28))
    nights.deliver()
    assert nights.run(ago(shop, 1), run_id="mistake").accounts_expired == 1
    undo_run(shop.engine, Undo(run_id="mistake", reason="a mistake", actor="eve"))
    nights.run()
    assert shop.account().expires_at > ago(shop, 0)
    assert wrong(shop) == set()
    shop.run(IN_2099)
    assert wrong(shop) == {"date_too_late"}
