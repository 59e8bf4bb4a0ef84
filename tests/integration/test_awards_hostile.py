"""Values that no shop should have: they end as data or in the queue, and an innocent order beside them is awarded."""

import contextlib
import string
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from loyalty_pipelines.db import sweep
from tests.shop import Shop

TEXTS = {
    "quote": 'O\'Brien "x" `y` \\ %s :name {0} $1',
    "injection": "'; DROP TABLE loyalty.accounts; --",
    "template": "{{7*7}}${7*7}<%= 7*7 %>",
    "four bytes": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U00020bb7",
    "highest": "\U0010ffff" * 3,
    "right to left": "\u202e\u05d0\u05d1 \u0661\u0662\u200f",
    "control": "\x01\x1b[31m\r\nBcc: x@y.z\x7f\ufeff\u2028",
    "formula": "=cmd|' /C calc'!A0",
    "empty": "",
    "blank": " \t\n ",
    "combining": "e\u0301" * 50,
}
MEGABYTE = "\U0001f4a3x'" * 175_000
# Does not compress, so that no index takes it: 3000 different characters.
LONG = "".join(chr(0x4E00 + n * 7) for n in range(3000))
NUMBERS = ["NaN", "Infinity", "-Infinity", "-1", "1000000000000000", "0.004", "1e30", "1e-30", None]
HUGE = "9" * 131_000


@pytest.fixture
def innocent(shop: Shop) -> Shop:
    """An innocent order that is in the same batch as whatever the test adds."""
    shop.order("innocent", "10", customer="innocent")
    return shop


def assert_innocent_is_awarded(shop: Shop, *, waiting: int = 0) -> None:
    assert shop.entries("innocent") == [("earned", 10)]
    assert shop.inbox() == waiting
    assert shop.problems() == []


# --- texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", TEXTS.values(), ids=TEXTS)
def test_any_text_can_be_a_customers_id(innocent: Shop, value: str) -> None:
    innocent.order("1", "5", customer=value)
    report = innocent.award()
    if value == "":
        assert report.total("orders_skipped") == 1
    else:
        assert innocent.entries(value) == [("earned", 5)]
    innocent.change("1", customer_id="somebody else")
    innocent.award()
    assert innocent.balance(value) == 0
    assert innocent.balance("somebody else") == 5
    assert_innocent_is_awarded(innocent)


@pytest.mark.parametrize("value", TEXTS.values(), ids=TEXTS)
def test_any_text_can_be_an_orders_id(innocent: Shop, value: str) -> None:
    innocent.order(value, "5")
    innocent.award()
    assert innocent.entries() == [("earned", 5)]
    innocent.refund(value, "2")
    innocent.award()
    innocent.change(value, status="on_hold")
    innocent.award()
    assert (innocent.balance(), list(innocent.queued())) == (3, [value])
    assert_innocent_is_awarded(innocent)


@pytest.mark.parametrize("value", TEXTS.values(), ids=TEXTS)
def test_any_text_can_be_a_merchants_id(innocent: Shop, value: str) -> None:
    innocent.merchant(value)
    innocent.order("1", "5", merchant=value)
    innocent.order("2", "NaN", merchant=value)
    innocent.award()
    assert innocent.balance(merchant=value) == 5
    assert innocent.queued(merchant=value) == {"2": "amount_invalid"}
    assert_innocent_is_awarded(innocent)


@pytest.mark.parametrize("column", ["currency", "status"])
def test_any_text_can_be_a_currency_or_a_status(innocent: Shop, column: str) -> None:
    for name, value in {**TEXTS, "megabyte": MEGABYTE, "null": None}.items():
        innocent.order(name, "5")
        innocent.change(name, **{column: value})
    innocent.award()
    reason = {"currency": "currency_differs", "status": "status_unrecognized"}[column]
    assert innocent.queued() == dict.fromkeys([*TEXTS, "megabyte", "null"], reason)
    assert innocent.entries() == []
    assert_innocent_is_awarded(innocent)


@pytest.mark.parametrize("column", ["name", "timezone", "locale"])
def test_any_text_can_describe_a_merchant(innocent: Shop, column: str) -> None:
    for value in [*TEXTS.values(), MEGABYTE]:
        innocent.run(f"UPDATE sample_shop.merchants SET {column} = :value", value=value)
        innocent.enqueue("innocent")
        innocent.award()
        assert_innocent_is_awarded(innocent)


def test_a_merchants_currency_that_is_none_puts_the_orders_into_the_queue(innocent: Shop) -> None:
    reasons = {}
    for name, value in {**TEXTS, "megabyte": MEGABYTE}.items():
        innocent.merchant(name, currency=value)
        innocent.order(name, "5", merchant=name)
        reasons[name] = "merchant_unknown" if value.strip() == "" else "currency_differs"
    innocent.award()
    for name, reason in reasons.items():
        assert innocent.queued(merchant=name) == {name: reason}
    assert_innocent_is_awarded(innocent)


def test_any_text_can_describe_a_customer(innocent: Shop) -> None:
    for value in [*TEXTS.values(), MEGABYTE, None]:
        innocent.run(
            "INSERT INTO sample_shop.customers (merchant_id, id, email, name, locale) "
            "VALUES ('m1', 'innocent', :value, :value, :value) ON CONFLICT (merchant_id, id) DO UPDATE "
            "SET email = excluded.email, name = excluded.name, locale = excluded.locale",
            value=value,
        )
        innocent.enqueue("innocent")
        innocent.award()
        assert_innocent_is_awarded(innocent)


# --- texts that are too long for an index ---------------------------------------------------------------


def test_an_order_whose_id_only_the_shops_own_key_takes_waits_in_the_queue(innocent: Shop) -> None:
    for length in range(920, 0, -1):
        with contextlib.suppress(OperationalError):
            innocent.order(LONG[:length], "5")
            break
    innocent.order(LONG[:800], "7")
    assert innocent.drain().failures == {}
    assert innocent.entries() == [("earned", 7)]
    ((order_id, reason),) = innocent.queued().items()
    assert (order_id[:100], reason) == (LONG[:100], "database_error")
    for _ in range(2):
        with innocent.engine.begin() as conn:
            sweep.enqueue_differences(conn, "m1")
        assert innocent.drain().total("orders_missing") == 0
    assert innocent.value("SELECT count(*) FROM loyalty.reconciliation_queue") == 1
    assert_innocent_is_awarded(innocent)


@pytest.mark.parametrize("updated_at", ["-infinity", "infinity", "4713-01-01 BC", "1969-12-31", "9999-12-31"])
def test_a_change_at_an_impossible_time_is_recorded_as_of_now(innocent: Shop, updated_at: str) -> None:
    innocent.order("1", "5")
    innocent.award()
    innocent.run("UPDATE sample_shop.orders SET status = 'cancelled', updated_at = :at WHERE id = '1'", at=updated_at)
    innocent.award()
    assert innocent.entries() == [("earned", 5), ("reversed", -5)]
    assert innocent.value(
        "SELECT bool_and(occurred_at BETWEEN now() - interval '1 minute' AND now()) FROM loyalty.ledger_entries "
        "WHERE kind = 'reversed'"
    )
    assert_innocent_is_awarded(innocent)


@pytest.mark.parametrize("value", [LONG, MEGABYTE], ids=["long", "megabyte"])
def test_an_id_that_no_index_takes_is_refused_alone(innocent: Shop, value: str) -> None:
    # The shop's own key takes no such order, but a view may make one up.
    innocent.run("INSERT INTO loyalty.order_inbox (merchant_id, order_id, source) VALUES ('m1', :id, 'test')", id=value)
    report = innocent.drain()
    assert report.failures == {}
    assert report.total("orders_missing") == 1
    assert_innocent_is_awarded(innocent)


@pytest.mark.parametrize("noted_by", ["trigger", "sweep"])
@pytest.mark.parametrize("value", [LONG, MEGABYTE], ids=["long", "megabyte"])
def test_an_order_whose_customers_id_is_too_long_for_an_account_waits_in_the_queue(
    innocent: Shop, value: str, noted_by: str
) -> None:
    if noted_by == "sweep":
        innocent.run("ALTER TABLE sample_shop.orders DISABLE TRIGGER USER")
    innocent.order("1", "5", customer=value)
    if noted_by == "sweep":
        innocent.order("2", "5", status="pending")
        with innocent.engine.begin() as conn:
            assert sweep.enqueue_differences(conn, "m1") == 2
    report = innocent.drain()
    assert report.failures == {}
    compresses = value == MEGABYTE and innocent.entries(value) == [("earned", 5)]
    assert compresses or innocent.queued() == {"1": "database_error"}
    assert_innocent_is_awarded(innocent)


# --- numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [*NUMBERS, HUGE, f"-{HUGE}"], ids=lambda value: str(value)[:20])
def test_any_number_can_be_an_amount(innocent: Shop, value: str | None) -> None:
    innocent.order("1", value)
    report = innocent.award() if len(str(value)) < 100 else innocent.drain()
    assert report.failures == {}
    if value in ("0.004", "1e-30"):
        assert innocent.tracked("1") == {"ann": (0, 0, 0)}
    else:
        assert innocent.queued()["1"] in ("amount_invalid", "database_error")
    assert innocent.entries() == []
    assert_innocent_is_awarded(innocent)


@pytest.mark.parametrize("value", [number for number in NUMBERS if number] + [HUGE], ids=lambda value: str(value)[:20])
def test_any_number_can_be_a_refund_and_leaves_what_was_earned(innocent: Shop, value: str) -> None:
    innocent.order("1", "5")
    innocent.award()
    innocent.refund("1", value)
    assert innocent.drain().failures == {}
    if value == "1000000000000000" or value not in ("0.004", "1e-30"):
        assert innocent.queued()["1"] in ("amount_invalid", "database_error")
        assert innocent.balance() == 5
    else:
        assert innocent.balance() == 4
    assert_innocent_is_awarded(innocent)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "-1", "1e30", "0.5", HUGE], ids=lambda v: v[:20])
def test_any_number_can_be_the_points_redeemed(innocent: Shop, value: str) -> None:
    innocent.program(point_value_amount="0.01")
    innocent.order("1", "5")
    innocent.change("1", points_redeemed=value)
    assert innocent.drain().failures == {}
    assert innocent.queued() == {"1": "amount_invalid"}
    assert innocent.entries() == []
    assert_innocent_is_awarded(innocent)


def test_the_most_points_that_fit_can_be_redeemed_on_an_order(innocent: Shop) -> None:
    innocent.program(point_value_amount=1_000_000)
    innocent.order("1", "5")
    innocent.change("1", points_redeemed=2**63 - 1)
    innocent.award()
    assert innocent.tracked("1") == {"ann": (0, 0, 0)}
    assert_innocent_is_awarded(innocent)


def test_the_largest_orders_that_the_rules_allow_add_up(shop: Shop) -> None:
    shop.program(clawback="allow_negative", points_per_unit="0.002")
    for number in range(50):
        shop.order(str(number), 10**12)
    shop.award()
    assert shop.balance() == 50 * 2_000_000_000
    shop.spend("ann", 50 * 2_000_000_000)
    shop.run("UPDATE sample_shop.orders SET status = 'cancelled'")
    shop.award()
    assert shop.balance() == -50 * 2_000_000_000
    assert shop.problems() == []


# --- times ----------------------------------------------------------------------------------------------


INSTANTS = [
    "infinity",
    "-infinity",
    "4713-01-01 BC",
    "294276-12-31 23:59:59",
    "1970-01-01",
    "9999-12-31",
    None,
]


@pytest.mark.parametrize("column", ["paid_at", "updated_at", "refunded_at"])
@pytest.mark.parametrize("valid_from", ["2000-01-01", "-infinity"])
def test_any_instant_can_be_the_time_of_an_order_or_a_refund(innocent: Shop, column: str, valid_from: str) -> None:
    innocent.program(points_expiration_days=36500, valid_from=valid_from)
    innocent.run("ALTER TABLE sample_shop.orders ALTER updated_at DROP NOT NULL")
    innocent.run("ALTER TABLE sample_shop.refunds ALTER refunded_at DROP NOT NULL")
    for value in INSTANTS:
        innocent.order(str(value), "5", customer=str(value))
    innocent.award()
    table, key = ("refunds", "order_id") if column == "refunded_at" else ("orders", "id")
    for value in INSTANTS:
        innocent.refund(str(value), "2")
        innocent.run(
            f"UPDATE sample_shop.{table} SET {column} = CAST(:value AS timestamptz) WHERE {key} = :id",
            value=value,
            id=str(value),
        )
    assert innocent.drain().failures == {}
    for value in INSTANTS:
        # Reversed, or kept because nobody can tell which rules apply; nothing in between.
        assert innocent.balance(str(value)) in (0, 3, 5)
        if column != "paid_at":
            assert innocent.balance(str(value)) == 3
    assert_innocent_is_awarded(innocent)


# --- all of it ------------------------------------------------------------------------------------------


def test_a_whole_batch_of_hostile_rows_beside_a_hundred_innocent_ones(shop: Shop) -> None:
    values: list[Any] = [*NUMBERS, HUGE]
    for number, text_value in enumerate([*TEXTS.values(), *string.punctuation]):
        shop.order(f"h{number}{text_value}", values[number % len(values)], customer=text_value)
    for number in range(100):
        shop.order(f"i{number}", "1", customer=f"c{number % 7}")
    report = shop.drain(batch_size=64)
    assert report.failures == {}
    assert shop.value("SELECT sum(points) FROM loyalty.ledger_entries") == 100
    assert shop.inbox() == 0
    assert shop.problems() == []
