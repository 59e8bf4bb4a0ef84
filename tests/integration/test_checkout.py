"""The checkout functions: what a shop calls while a customer pays."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.checkout import Checkout
from tests.shop import Shop


@pytest.fixture
def checkout(shop: Shop) -> Checkout:
    """A checkout for ann, who has earned 100 points with the order 'first'."""
    shop.order("first", "100.00")
    shop.award()
    return Checkout(shop.engine)


def hold(shop: Shop, order: str = "o") -> tuple[str, int]:
    ((status, points),) = shop.rows("SELECT status, points FROM loyalty.holds WHERE order_id = :order", order=order)
    return status, points


# --- redeem ---


def test_a_redemption_is_one_entry_and_takes_its_points(shop: Shop, checkout: Checkout) -> None:
    assert checkout.redeem("o", 60) == ("o", 60, 100, 40)
    assert shop.entries() == [("earned", 100), ("redeemed", -60)]
    assert (shop.balance(), checkout.spendable()) == (40, 40)
    assert shop.problems() == []


def test_the_same_redemption_again_returns_the_same_and_writes_nothing(shop: Shop, checkout: Checkout) -> None:
    first = checkout.redeem("o", 60)
    checkout.redeem("other", 10)
    assert checkout.redeem("o", 60) == first
    assert shop.entries() == [("earned", 100), ("redeemed", -60), ("redeemed", -10)]


def test_the_same_redemption_again_is_no_matter_of_what_is_left(shop: Shop, checkout: Checkout) -> None:
    first = checkout.redeem("o", 100)
    shop.run("UPDATE loyalty.accounts SET expires_at = now() - interval '1 day'")
    assert checkout.redeem("o", 100) == first


@pytest.mark.parametrize(("points", "customer"), [(50, "ann"), (70, "ann"), (60, "bob")])
def test_the_same_order_with_other_numbers_is_refused(
    shop: Shop, checkout: Checkout, points: int, customer: str
) -> None:
    shop.order("bobs", "100.00", customer="bob")
    shop.award()
    checkout.redeem("o", 60)
    message = checkout.refused("LP003", "redeem", "o", points, customer)
    assert "Order o has another request already: 60 points are captured" in message
    assert (shop.balance("ann"), shop.balance("bob")) == (40, 100)


def test_too_few_points_say_how_many_there_are_and_how_many_were_wanted(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 75)
    message = checkout.refused("LP002", "redeem", "o2", 50)
    assert message.startswith("Insufficient loyalty points. Available: 25, Requested: 50")
    assert shop.balance() == 25
    assert shop.rows("SELECT * FROM loyalty.holds WHERE order_id = 'o2'") == []


def test_a_customer_without_an_account_has_no_points(checkout: Checkout) -> None:
    assert checkout.spendable("nobody") == 0
    message = checkout.refused("LP002", "redeem", "o", 1, "nobody")
    assert "Available: 0, Requested: 1" in message
    assert "no account" in message


def test_points_past_their_expiry_are_not_spendable_though_the_job_has_not_run(shop: Shop, checkout: Checkout) -> None:
    shop.run("UPDATE loyalty.accounts SET expires_at = now() - interval '1 second'")
    assert checkout.spendable() == 0
    assert "The points expired at" in checkout.refused("LP002", "redeem", "o", 1)
    assert shop.balance() == 100


def test_points_are_spendable_until_the_instant_of_their_expiry_and_not_at_it(shop: Shop, checkout: Checkout) -> None:
    instant = datetime(2090, 1, 1, tzinfo=UTC)
    shop.run("UPDATE loyalty.accounts SET expires_at = :instant", instant=instant)
    assert checkout.spendable(at=instant - timedelta(microseconds=1)) == 100
    assert checkout.spendable(at=instant) == 0


def test_redeeming_is_activity_and_moves_the_expiry(shop: Shop, checkout: Checkout) -> None:
    shop.program(points_expiration_days=30)
    shop.run(
        "UPDATE loyalty.accounts SET last_activity_at = now() - interval '9 days', "
        "expires_at = now() + interval '21 days'"
    )
    checkout.redeem("o", 1)
    account = shop.account()
    assert account.expires_at > datetime.now(UTC) + timedelta(days=30)
    assert account.last_activity_at > datetime.now(UTC) - timedelta(minutes=5)


@pytest.mark.parametrize(
    ("action", "arguments", "found"),
    [
        ("redeem", ("o", 0), "points is 0: expected a whole number of points from 1"),
        ("redeem", ("o", -5), "points is -5"),
        ("redeem", ("o", None), "points is NULL"),
        ("redeem", ("", 5), "order_id is empty: expected an id of 1 to 1,000 bytes"),
        ("redeem", (None, 5), "order_id is NULL"),
        ("redeem", ("o" * 1001, 5), "order_id is 1001 bytes long"),
        ("redeem", ("o", 5, ""), "customer_id is empty"),
        ("redeem", ("o", 2_000_000_001), "points is 2000000001"),
        ("reserve", ("o", 0), "points is 0"),
        ("capture", ("",), "order_id is empty"),
        ("release", (None,), "order_id is NULL"),
        ("update", ("o", -1, 0), "points_earned is -1"),
        ("update", ("o", 0, None), "points_redeemed is NULL"),
        ("points_to_earn", ("NaN",), "amount is NaN"),
        ("points_to_earn", ("-0.01",), "amount is -0.01"),
        ("points_to_earn", ("Infinity",), "amount is Infinity"),
        ("points_to_earn", (None,), "amount is NULL"),
    ],
)
def test_bad_arguments_are_refused_with_what_was_found(
    checkout: Checkout, action: str, arguments: tuple[object, ...], found: str
) -> None:
    assert found in checkout.refused("LP004", action, *arguments)


@pytest.mark.parametrize("total", ["NaN", "Infinity", "-1", "1e13"])
def test_an_impossible_order_total_is_refused(checkout: Checkout, total: str) -> None:
    assert "order_total is" in checkout.refused("LP004", "redeem", "o", 5, order_total=Decimal(total))
    assert "order_total is" in checkout.refused("LP004", "update", "o", 5, 5, order_total=Decimal(total))


@pytest.mark.parametrize("ttl", ["0", "-1 minute", "31 days", "infinity"])
def test_an_impossible_ttl_is_refused(checkout: Checkout, ttl: str) -> None:
    with pytest.raises(DBAPIError) as caught:
        checkout.reserve("o", 5, ttl=ttl)
    assert getattr(caught.value.orig, "sqlstate", "") in {"LP004", "22007"}


# --- what a programme lets redeem: design, appendix B ---


def test_1050_points_in_blocks_of_100_are_1000(shop: Shop, checkout: Checkout) -> None:
    shop.order("more", "1000.00")
    shop.award()
    shop.program(redemption_block_points=100)
    assert checkout.redeemable(1050) == 1000
    message = checkout.refused("LP006", "redeem", "o", 1050)
    assert "1050 points can't be redeemed on order o: the programme allows 1000" in message
    assert checkout.redeem("o", 1000).points == 1000


def test_400_points_under_a_minimum_of_500_are_0(shop: Shop, checkout: Checkout) -> None:
    shop.order("more", "1000.00")
    shop.award()
    shop.program(redemption_min_points=500)
    assert checkout.redeemable(400) == 0
    assert "the programme allows 0" in checkout.refused("LP006", "reserve", "o", 400)
    assert checkout.redeemable(500) == 500


def test_the_cap_is_a_share_of_the_order(shop: Shop, checkout: Checkout) -> None:
    shop.program(point_value_amount=Decimal("0.05"), redemption_max_percent=50)
    assert checkout.redeemable(None, order_total=Decimal("8.99")) == 89
    assert checkout.redeemable(None) == 100
    assert "allows 80" in checkout.refused("LP006", "redeem", "o", 81, order_total=Decimal(8))
    assert checkout.redeem("o", 80, order_total=Decimal(8)).points == 80


def test_without_a_total_the_cap_is_that_of_the_shops_order(shop: Shop, checkout: Checkout) -> None:
    shop.program(point_value_amount=Decimal("0.05"), redemption_max_percent=50)
    assert "total is missing" in checkout.refused("LP004", "redeem", "o", 80)
    shop.order("o", "7.99", status="pending")
    assert "allows 79" in checkout.refused("LP006", "redeem", "o", 80)
    assert checkout.redeem("o", 79).points == 79


def test_the_rule_takes_the_least_then_whole_blocks_then_the_minimum(shop: Shop) -> None:
    for arguments, expected in [
        ("1050, 2000, NULL, 0, NULL, 100, 0", 1000),
        ("400, 2000, NULL, 0, NULL, 1, 500", 0),
        ("500, 2000, NULL, 0, NULL, 1, 500", 500),
        ("1050, 999, NULL, 0, NULL, 100, 0", 900),
        ("550, 2000, NULL, 0, NULL, 100, 501", 0),
        ("1000, 1000, 20.00, 0.01, 25, 1, 0", 500),
        ("1000, 1000, 0, 0.01, 25, 1, 0", 0),
        ("1000, 1000, 20.00, 0.01, 0, 1, 0", 0),
        ("1000, 1000, 20.00, 0, 25, 1, 0", 1000),
        ("-5, 1000, NULL, 0, NULL, 1, 0", 0),
    ]:
        assert shop.value(f"SELECT loyalty.points_to_redeem({arguments})") == expected, arguments


def test_a_merchant_without_a_programme_in_force_redeems_nothing(shop: Shop, checkout: Checkout) -> None:
    shop.program(is_active=False)
    assert "no points programme in force" in checkout.refused("LP005", "redeem", "o", 5)
    assert checkout.redeemable(5) == 0
    assert checkout.points_to_earn("10") == 0


# --- earning at checkout ---


@pytest.mark.parametrize(("rounding", "points"), [("floor", 28), ("half_up", 29), ("ceil", 29)])
def test_19_points_times_one_and_a_half_are_rounded_as_the_programme_says(
    shop: Shop, checkout: Checkout, rounding: str, points: int
) -> None:
    shop.program(multiplier=Decimal("1.5"), rounding=rounding)
    assert checkout.points_to_earn("19.99") == points
    shop.order("o", "19.99")
    shop.award()
    assert shop.balance() == 100 + points


def test_9990_at_one_per_1000_are_9_points(shop: Shop, checkout: Checkout) -> None:
    shop.program(unit_amount=1000)
    assert checkout.points_to_earn("9990") == 9


def test_what_points_pay_earns_nothing(shop: Shop, checkout: Checkout) -> None:
    shop.program(point_value_amount=Decimal("0.10"))
    assert checkout.points_to_earn("20", points_redeemed=50) == 15
    assert checkout.points_to_earn("4", points_redeemed=50) == 0


def test_an_amount_in_another_currency_is_refused(checkout: Checkout) -> None:
    assert checkout.points_to_earn("10", currency="EUR") == 10
    message = checkout.refused("LP010", "points_to_earn", "10", currency="USD")
    assert "The amount is in USD, but merchant m1 earns in EUR" in message


def test_100_points_redeem_50_earn_25_is_75_in_two_entries(shop: Shop, checkout: Checkout) -> None:
    assert checkout.update("o", 25, 50, order_total=Decimal(100)) == ("m1", 25, 50, 100, 75)
    rows = shop.rows("SELECT kind, points, balance_before, balance_after FROM loyalty.ledger_entries ORDER BY seq")
    assert rows[1:] == [("redeemed", -50, 100, 50), ("earned", 25, 50, 75)]
    assert shop.problems() == []


def test_the_same_update_again_returns_the_same_and_writes_nothing(shop: Shop, checkout: Checkout) -> None:
    first = checkout.update("o", 25, 50)
    checkout.redeem("other", 5)
    assert checkout.update("o", 25, 50) == first
    assert shop.balance() == 70


@pytest.mark.parametrize(
    ("earned", "redeemed", "more"), [(26, 50, {}), (25, 49, {}), (25, 50, {"order_total": Decimal(9)})]
)
def test_an_update_of_the_same_order_with_other_numbers_is_refused(
    shop: Shop, checkout: Checkout, earned: int, redeemed: int, more: dict[str, Decimal]
) -> None:
    checkout.update("o", 25, 50)
    message = checkout.refused("LP003", "update", "o", earned, redeemed, **more)
    assert "earned 25, redeemed 50, total not given" in message
    assert shop.balance() == 75


def test_an_update_that_redeems_too_much_earns_nothing_either(shop: Shop, checkout: Checkout) -> None:
    shop.run("SELECT * FROM loyalty.redeem_points('m1', 'ann', 'before', 75)")
    message = checkout.refused("LP002", "update", "o", 25, 50)
    assert message.startswith("Insufficient loyalty points. Available: 25, Requested: 50")
    assert shop.balance() == 25
    assert shop.tracked("o") == {}


def test_points_earned_at_checkout_and_by_the_sensor_count_once(shop: Shop, checkout: Checkout) -> None:
    checkout.update("o", 25, 0)
    shop.order("o", "25.00")
    shop.award()
    assert shop.entries() == [("earned", 100), ("earned", 25)]
    assert shop.value("SELECT count(*) FROM loyalty.order_differences('m1')") == 0
    assert shop.problems() == []


def test_points_earned_by_the_sensor_first_are_not_earned_again_at_checkout(shop: Shop, checkout: Checkout) -> None:
    shop.order("o", "25.00")
    shop.award()
    assert checkout.update("o", 25, 50) == ("m1", 25, 50, 125, 75)
    assert checkout.update("o", 25, 50) == ("m1", 25, 50, 125, 75)
    assert shop.entries() == [("earned", 100), ("earned", 25), ("redeemed", -50)]


def test_the_sensor_corrects_what_the_shop_had_calculated(shop: Shop, checkout: Checkout) -> None:
    checkout.update("o", 30, 0)
    shop.order("o", "25.00")
    shop.award()
    assert shop.entries() == [("earned", 100), ("earned", 30), ("reversed", -5)]


def test_a_first_order_makes_the_account(shop: Shop, checkout: Checkout) -> None:
    assert checkout.update("o", 25, 0, "bob", merchant_id="m1") == ("m1", 25, 0, 0, 25)
    assert shop.entries("bob") == [("earned", 25)]


def test_an_update_of_nothing_writes_nothing_and_makes_no_account(shop: Shop, checkout: Checkout) -> None:
    assert checkout.update("o", 0, 0, "bob", merchant_id="m1") == ("m1", 0, 0, 0, 0)
    assert checkout.update("o2", 0, 0) == ("m1", 0, 0, 100, 100)
    assert shop.value("SELECT count(*) FROM loyalty.accounts") == 1


def test_stamps_are_earned_with_the_points(shop: Shop, checkout: Checkout) -> None:
    shop.program(stamps_per_order=2, stamp_min_amount=20)
    checkout.update("o", 25, 0, order_total=Decimal(25))
    checkout.update("small", 5, 0, order_total=Decimal(5))
    shop.order("o", "25.00")
    shop.order("small", "5.00")
    shop.award()
    assert shop.account().stamp_count == 2
    assert shop.entries() == [("earned", 100), ("earned", 25), ("earned", 5)]
    assert shop.problems() == []


def test_an_update_captures_what_the_order_has_reserved(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 100)
    assert checkout.update("o", 25, 100) == ("m1", 25, 100, 100, 25)
    assert shop.account().held == 0
    assert shop.problems() == []


def test_earning_needs_a_programme(shop: Shop, checkout: Checkout) -> None:
    shop.program(is_active=False)
    assert "no points programme" in checkout.refused("LP005", "update", "o", 25, 0)
    assert "no points programme" in checkout.refused("LP005", "update", "o", 25, 0, merchant_id="no such")


# --- whose order is it ---


def test_the_merchant_is_that_of_the_order(shop: Shop, checkout: Checkout) -> None:
    shop.merchant("m2")
    shop.order("o", "25.00", merchant="m2", status="pending")
    assert checkout.update("o", 25, 0).merchant_id == "m2"
    assert (shop.balance(merchant="m1"), shop.balance(merchant="m2")) == (100, 25)


def test_the_merchant_is_else_that_of_the_customers_account(shop: Shop, checkout: Checkout) -> None:
    shop.merchant("m2")
    assert checkout.update("unheard of", 25, 0).merchant_id == "m1"


def test_the_merchant_is_else_that_of_the_shops_customer(shop: Shop, checkout: Checkout) -> None:
    shop.merchant("m2")
    shop.run("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('m2', 'new')")
    assert checkout.update("unheard of", 25, 0, "new").merchant_id == "m2"


def test_an_order_of_two_merchants_is_ambiguous(shop: Shop, checkout: Checkout) -> None:
    shop.merchant("m2")
    shop.order("o", "25.00", merchant="m1", status="pending")
    shop.order("o", "25.00", merchant="m2", status="pending")
    assert "order o belongs to 2 merchants: m1, m2" in checkout.refused("LP007", "update", "o", 25, 0)
    assert checkout.update("o", 25, 0, merchant_id="m2").merchant_id == "m2"


def test_a_customer_of_two_merchants_is_ambiguous(shop: Shop, checkout: Checkout) -> None:
    shop.merchant("m2")
    shop.order("theirs", "25.00", merchant="m2")
    shop.award()
    assert "customer ann belongs to 2 merchants: m1, m2" in checkout.refused("LP007", "update", "unheard of", 25, 0)


def test_an_order_of_a_merchant_without_a_programme_is_not_booked_at_another(shop: Shop, checkout: Checkout) -> None:
    shop.run("INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('m2', 'm2', 'UTC', 'EUR')")
    shop.order("o", "25.00", merchant="m2", status="pending")
    assert "Merchant m2 has no points programme" in checkout.refused("LP005", "update", "o", 25, 0)
    assert shop.balance() == 100


def test_a_customer_whom_the_shop_lists_at_two_merchants_is_ambiguous(shop: Shop, checkout: Checkout) -> None:
    shop.merchant("m2")
    shop.run("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('m2', 'ann')")
    assert "customer ann belongs to 2 merchants: m1, m2" in checkout.refused("LP007", "update", "unheard of", 25, 0)


def test_an_order_and_customer_that_nobody_knows_are_refused(checkout: Checkout) -> None:
    message = checkout.refused("LP007", "update", "o", 25, 0, "stranger")
    assert "Neither order o nor customer stranger belongs to a merchant that is known" in message


def test_the_order_of_another_customer_is_refused(shop: Shop, checkout: Checkout) -> None:
    shop.order("o", "25.00", customer="bob", status="pending")
    assert "belongs to customer bob, not to ann" in checkout.refused("LP011", "update", "o", 25, 0)


@pytest.mark.parametrize("status", ["cancelled", "failed", "refunded"])
def test_an_undone_order_earns_and_redeems_nothing(shop: Shop, checkout: Checkout, status: str) -> None:
    shop.order("o", "25.00", status=status)
    assert f"is {status} in the shop" in checkout.refused("LP008", "update", "o", 25, 0)
    assert shop.balance() == 100


# --- holds ---


def test_reserved_points_are_in_the_balance_but_not_spendable(shop: Shop, checkout: Checkout) -> None:
    reserved = checkout.reserve("o", 60)
    assert (reserved.points, reserved.status) == (60, "open")
    assert (shop.balance(), shop.account().held, checkout.spendable()) == (100, 60, 40)
    message = checkout.refused("LP002", "redeem", "other", 41)
    assert "Available: 40, Requested: 41" in message
    assert "Another 60 points are held by checkouts in progress" in message
    assert shop.problems() == []


def test_a_hold_ends_after_a_quarter_of_an_hour_or_its_ttl(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 10)
    checkout.reserve("long", 10, ttl="2 hours")
    assert shop.rows("SELECT expires_at - reserved_at FROM loyalty.holds ORDER BY order_id") == [
        (timedelta(hours=2),),
        (timedelta(minutes=15),),
    ]


def test_the_same_reservation_again_returns_the_same(shop: Shop, checkout: Checkout) -> None:
    first = checkout.reserve("o", 60)
    assert checkout.reserve("o", 60, ttl="1 day") == first
    assert shop.account().held == 60
    assert "60 points are open" in checkout.refused("LP003", "reserve", "o", 50)


def test_a_captured_hold_is_a_redemption(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    assert checkout.capture("o") == ("o", 60, 100, 40)
    assert checkout.capture("o") == ("o", 60, 100, 40)
    assert checkout.redeem("o", 60) == ("o", 60, 100, 40)
    assert checkout.reserve("o", 60).status == "captured"
    assert shop.entries() == [("earned", 100), ("redeemed", -60)]
    assert (shop.account().held, hold(shop)) == (0, ("captured", 60))
    assert shop.problems() == []


def test_redeeming_what_is_reserved_captures_it(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 100)
    assert checkout.redeem("o", 100) == ("o", 100, 100, 0)
    assert shop.account().held == 0


def test_released_points_are_spendable_again(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    assert checkout.release("o").status == "released"
    assert checkout.release("o").status == "released"
    assert (shop.account().held, checkout.spendable()) == (0, 100)
    assert shop.entries() == [("earned", 100)]


def test_a_released_order_may_reserve_other_numbers(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    checkout.release("o")
    assert checkout.reserve("o", 30).points == 30
    assert (hold(shop), shop.account().held) == (("open", 30), 30)


def test_a_capture_after_release_takes_what_is_still_there(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    checkout.release("o")
    assert checkout.capture("o") == ("o", 60, 100, 40)
    assert shop.problems() == []


def test_a_capture_after_release_is_refused_when_the_points_are_spent(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    checkout.release("o")
    checkout.redeem("other", 50)
    assert "Available: 50, Requested: 60" in checkout.refused("LP002", "capture", "o")
    assert (shop.balance(), hold(shop)) == (50, ("released", 60))


def test_an_open_hold_is_captured_though_the_points_expired_meanwhile(shop: Shop, checkout: Checkout) -> None:
    checkout.reserve("o", 60)
    shop.run("UPDATE loyalty.accounts SET expires_at = now() - interval '1 second'")
    assert checkout.capture("o").balance_after == 40


def test_an_order_without_a_hold_has_nothing_to_capture_or_release(checkout: Checkout) -> None:
    for action in ("capture", "release"):
        assert "Order o of merchant m1 has no reserved or redeemed points" in checkout.refused("LP009", action, "o")


def test_releasing_what_an_unpaid_order_has_redeemed_gives_it_back_once(shop: Shop, checkout: Checkout) -> None:
    shop.order("o", "25.00", status="pending")
    checkout.redeem("o", 60)
    assert checkout.release("o").status == "restored"
    assert checkout.release("o").status == "restored"
    assert shop.entries() == [("earned", 100), ("redeemed", -60), ("restored", 60)]
    assert shop.problems() == []


def test_what_a_paid_order_has_redeemed_is_not_released(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 60)
    shop.order("o", "25.00", points_redeemed=60)
    assert "is paid and has redeemed 60 points" in checkout.refused("LP012", "release", "o")
    assert shop.balance() == 40


def test_a_redemption_that_was_given_back_can_be_made_again(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 60)
    checkout.release("o")
    assert checkout.redeem("o", 70) == ("o", 70, 100, 30)
    assert shop.entries() == [("earned", 100), ("redeemed", -60), ("restored", 60), ("redeemed", -70)]
    assert shop.problems() == []


def test_a_cancelled_order_is_not_redeemed_again_by_a_late_retry(shop: Shop, checkout: Checkout) -> None:
    checkout.redeem("o", 60)
    shop.order("o", "25.00", points_redeemed=60)
    shop.set_status("o", "cancelled")
    shop.award()
    for action, arguments in [("redeem", ("o", 60)), ("capture", ("o",)), ("reserve", ("o", 60))]:
        assert "is cancelled in the shop" in checkout.refused("LP008", action, *arguments)
    assert shop.balance() == 100


# --- merchants are strangers to each other ---


def test_one_order_id_at_two_merchants_is_two_orders(shop: Shop, checkout: Checkout) -> None:
    shop.merchant("m2")
    shop.order("theirs", "50.00", merchant="m2")
    shop.award()
    checkout.redeem("o", 60)
    checkout.redeem("o", 10, merchant="m2")
    checkout.release("o", merchant="m2")
    assert (shop.balance(merchant="m1"), shop.balance(merchant="m2")) == (40, 50)
    assert shop.problems() == []


# --- hostile text ---


@pytest.mark.parametrize(
    "order", ["'; DROP TABLE loyalty.holds; --", "%s %(x)s", "\N{PILE OF POO}", "\u202eabc", "{{7*7}}"]
)
def test_no_text_is_ever_executed(shop: Shop, checkout: Checkout, order: str) -> None:
    checkout.reserve(order, 10)
    checkout.capture(order)
    checkout.update(order + "2", 5, 5, order_total=Decimal(5))
    checkout.call(
        "report_failed_update", customer_id="ann", points_earned=1, points_redeemed=1, order_id=order, error=order
    )
    assert shop.balance() == 90
    assert shop.problems() == []


def test_a_nul_byte_is_refused_by_the_driver_or_server_and_changes_nothing(shop: Shop, checkout: Checkout) -> None:
    with pytest.raises(DBAPIError):
        checkout.redeem("o\0", 10)
    assert shop.balance() == 100


# --- what every call leaves alone ---


def test_a_call_that_is_rolled_back_leaves_nothing(shop: Shop, checkout: Checkout) -> None:
    with shop.engine.connect() as conn:
        conn.execute(text("SELECT loyalty.update_customer_loyalty_points_atomic('ann', 25, 50, 'o')"))
        conn.execute(text("SELECT loyalty.reserve_points('m1', 'ann', 'o2', 10)"))
        conn.rollback()
    assert shop.entries() == [("earned", 100)]
    assert shop.account().held == 0
    assert shop.value("SELECT count(*) FROM loyalty.holds") == 0
