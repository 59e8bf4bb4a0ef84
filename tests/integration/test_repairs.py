"""Changing a balance by hand: once, with a reason, and never below what is there."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from loyalty_pipelines.db import repairs
from loyalty_pipelines.domain.programs import MerchantNotFoundError
from loyalty_pipelines.domain.repairs import (
    Adjustment,
    AdjustmentReport,
    CustomerNotFoundError,
    ImpossibleRepairError,
    NotEnoughPointsError,
    ReferenceTakenError,
)
from tests.checkout import Checkout
from tests.shop import Shop


def adjustment(points: int, customer: str = "ann", **more: str) -> Adjustment:
    values = {"merchant_id": "m1", "reason": "ticket 7", "actor": "eve", "reference": str(uuid.uuid4()), **more}
    return Adjustment(customer_id=customer, points=points, **values)  # type: ignore[arg-type]


def adjust(shop: Shop, points: int, customer: str = "ann", **more: str) -> AdjustmentReport:
    with shop.engine.begin() as conn:
        return repairs.adjust(conn, adjustment(points, customer, **more))


def list_customer(shop: Shop, customer: str) -> None:
    shop.run("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('m1', :id)", id=customer)


@pytest.fixture
def checkout(shop: Shop) -> Checkout:
    """A checkout for ann, who has earned 100 points."""
    shop.order("first", "100.00")
    shop.award()
    return Checkout(shop.engine)


def test_an_adjustment_is_one_entry_with_its_reason_and_actor(shop: Shop, checkout: Checkout) -> None:
    report = adjust(shop, 25, reference="t7")
    assert (report.balance_before, report.balance_after, report.seq) == (100, 125, 2)
    (entry,) = shop.rows("SELECT * FROM loyalty.ledger_entries WHERE kind = 'adjusted'")
    assert (entry.points, entry.reference_type, entry.reference_id, entry.reference_seq) == (25, "adjustment", "t7", 1)
    assert (entry.reason, entry.actor, entry.run_id) == ("ticket 7", "eve", None)
    assert shop.balance() == 125
    assert shop.problems() == []


def test_the_same_reference_again_writes_nothing_and_answers_the_same(shop: Shop, checkout: Checkout) -> None:
    first = adjust(shop, 25, reference="t7")
    adjust(shop, 1)
    again = adjust(shop, 25, reference="t7", reason="other words", actor="another")
    assert again.is_repeated and not first.is_repeated
    assert (again.seq, again.balance_before, again.balance_after) == (2, 100, 125)
    assert shop.entries() == [("earned", 100), ("adjusted", 25), ("adjusted", 1)]


@pytest.mark.parametrize(("points", "customer"), [(26, "ann"), (-25, "ann"), (25, "bob")])
def test_a_reference_stands_for_one_adjustment(shop: Shop, checkout: Checkout, points: int, customer: str) -> None:
    list_customer(shop, "bob")
    adjust(shop, 25, reference="t7")
    with pytest.raises(ReferenceTakenError, match=r"'t7' is an adjustment of \+25 points for customer 'ann' already"):
        adjust(shop, points, customer, reference="t7")
    assert shop.balance() == 125
    assert shop.balance("bob") == 0


def test_one_reference_at_two_merchants_is_two_adjustments(shop: Shop, checkout: Checkout) -> None:
    shop.merchant("m2")
    shop.order("1", "10", merchant="m2")
    shop.award()
    adjust(shop, 25, reference="t7")
    adjust(shop, 5, reference="t7", merchant_id="m2")
    assert (shop.balance(), shop.balance(merchant="m2")) == (125, 15)


def test_one_reference_at_once_is_done_once(shop: Shop, checkout: Checkout) -> None:
    start = threading.Barrier(4)

    def repeat() -> bool:
        start.wait()
        return adjust(shop, 25, reference="t7").is_repeated

    with ThreadPoolExecutor(4) as pool:
        repeated = [future.result() for future in [pool.submit(repeat) for _ in range(4)]]
    assert sorted(repeated) == [False, True, True, True]
    assert shop.balance() == 125


def test_one_reference_for_two_customers_at_once_is_refused_to_one(shop: Shop, checkout: Checkout) -> None:
    list_customer(shop, "bob")
    start = threading.Barrier(2)

    def try_(customer: str) -> str:
        start.wait()
        try:
            adjust(shop, 25, customer, reference="t7")
        except ReferenceTakenError:
            return "refused"
        return "done"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(try_, ["ann", "bob"])) == ["done", "refused"]
    assert shop.balance("ann") + shop.balance("bob") == 125


def test_a_debit_takes_what_is_free_and_no_more(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 30)
    with pytest.raises(NotEnoughPointsError) as caught:
        adjust(shop, -71)
    assert str(caught.value).startswith("Available: 70, requested: 71.")
    assert (caught.value.available, caught.value.requested) == (70, 71)
    assert adjust(shop, -70).balance_after == 30
    assert checkout.capture("o").balance_after == 0
    assert shop.problems() == []


def test_a_debit_makes_a_debt_where_the_programme_allows_it(shop: Shop, checkout: Checkout) -> None:
    shop.program(clawback="allow_negative")
    assert adjust(shop, -150).balance_after == -50
    assert shop.account().is_debt_allowed
    shop.order("second", "60.00")
    shop.award()
    assert shop.balance() == 10
    assert shop.problems() == []


def test_an_account_in_debt_is_not_taken_deeper_by_another_programme(shop: Shop, checkout: Checkout) -> None:
    shop.program(clawback="allow_negative")
    adjust(shop, -150)
    shop.program(valid_from="2020-01-01T00:00Z")
    with pytest.raises(NotEnoughPointsError, match="Available: -50, requested: 1"):
        adjust(shop, -1)
    assert adjust(shop, 20).balance_after == -30
    assert shop.problems() == []


def test_an_adjustment_is_activity_and_moves_the_expiry(shop: Shop) -> None:
    shop.program(points_expiration_days=30)
    shop.order("1", "100.00")
    shop.award()
    shop.run("UPDATE loyalty.accounts SET last_activity_at = '2020-01-01', expires_at = '2020-02-01'")
    report = adjust(shop, 10)
    assert report.was_due
    account = shop.account()
    assert (
        report.expires_at
        == account.expires_at
        == shop.value("SELECT loyalty.expiry_instant(now(), 30, 'Europe/Luxembourg')")
    )
    assert shop.value("SELECT last_activity_at > now() - interval '1 minute' FROM loyalty.accounts")
    assert adjust(shop, 10).was_due is False


def test_restored_points_are_spendable_after_an_expiry(shop: Shop, checkout: Checkout) -> None:
    shop.expire("ann")
    assert checkout.spendable() == 0
    adjust(shop, 100)
    assert checkout.spendable() == 100
    assert shop.entries() == [("earned", 100), ("expired", -100), ("adjusted", 100)]
    # What the order earned has expired once: its refund does not take what was restored.
    shop.refund("first", "100.00")
    shop.award()
    assert shop.balance() == 100
    assert shop.problems() == []


def test_a_customer_whom_only_the_shop_knows_gets_an_account(shop: Shop) -> None:
    list_customer(shop, "new")
    report = adjust(shop, 40, "new")
    assert (report.is_account_new, report.seq, report.balance_before, report.balance_after) == (True, 1, 0, 40)
    assert shop.problems() == []


def test_a_debit_of_a_customer_without_an_account_makes_none(shop: Shop) -> None:
    list_customer(shop, "new")
    with pytest.raises(NotEnoughPointsError, match="Available: 0, requested: 1"):
        adjust(shop, -1, "new")
    assert shop.rows("SELECT * FROM loyalty.accounts") == []


def test_a_customer_whom_nobody_knows_gets_none(shop: Shop, checkout: Checkout) -> None:
    with pytest.raises(CustomerNotFoundError, match="'amn' has no account at merchant 'm1', and the shop's customers"):
        adjust(shop, 40, "amn")
    with pytest.raises(MerchantNotFoundError, match="did you mean 'm1'"):
        adjust(shop, 40, merchant_id="m11")
    assert shop.value("SELECT count(*) FROM loyalty.accounts") == 1


def test_what_is_rolled_back_leaves_nothing(shop: Shop) -> None:
    list_customer(shop, "new")
    with shop.engine.connect() as conn:
        assert repairs.adjust(conn, adjustment(40, "new")).balance_after == 40
        conn.rollback()
    assert shop.rows("SELECT * FROM loyalty.accounts") == []


@pytest.mark.parametrize(
    ("points", "more", "says"),
    [
        (0, {}, "The number of points is 0: expected a whole number, not 0"),
        (2_000_000_001, {}, "expected a whole number"),
        (-2_000_000_001, {}, "expected a whole number"),
        (1, {"reason": " "}, "The reason is ' ': expected some words"),
        (1, {"actor": ""}, "The actor is '': expected some words"),
        (1, {"reference": ""}, "The reference is '': expected 1 to 1,000 bytes"),
        (1, {"reference": "x" * 1_001}, "The reference is 'xxx"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_ledger_is_asked(points: int, more: dict, says: str) -> None:
    with pytest.raises(ImpossibleRepairError) as caught:
        adjustment(points, **more)
    assert says in str(caught.value)
