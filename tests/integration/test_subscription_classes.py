"""Every class of mismatches: what it finds, from when on, and what it must leave alone.

Each scenario is what one merchant's shop has written; all of them are in one database, three times: looked at by checks
of what changed as time passes, by full checks, and with a merchant's own longer grace period.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.domain.subscriptions import CLASSES
from loyalty_pipelines.embedded import EmbeddedServer
from tests.conftest import SHOP_TEMPLATE, fresh_database
from tests.shop import Shop
from tests.subscription_shop import (
    NOW,
    BusyShop,
    Found,
    SubscriptionShop,
    all_found,
    compared,
    day,
    forget_orders,
    open_by_merchant,
)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SECOND = timedelta(seconds=1)
OWN_GRACE = 2 * DAY
GRACES = (5 * MINUTE, 10 * MINUTE, 15 * MINUTE, HOUR, DAY, OWN_GRACE, 3 * DAY, 14 * DAY)
# In order: one second before and after the end of each grace period.
INSTANTS = [NOW + grace + step for grace in GRACES for step in (-SECOND, SECOND)]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A finding, who may put it right, what it costs, and how long `after` it began, `since` NOW, it is reported."""

    found: Found
    policy: str
    money: str
    severity: str
    after: timedelta
    since: timedelta


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a shop writes, and what is found of it; `until`: for how long nothing else may be."""

    build: Callable[[SubscriptionShop], None]
    expected: tuple[Expected, ...] = ()
    until: timedelta = field(default=15 * DAY)
    is_late: bool = False

    @property
    def name(self) -> str:
        return self.build.__name__


FIRING: list[Scenario] = []
QUIET: list[Scenario] = []


def finding(
    class_name: str,
    object_type: str,
    object_id: str,
    *,
    policy: str,
    severity: str,
    after: timedelta,
    money: str = "30",
    since: timedelta = timedelta(0),
) -> Expected:
    found = (class_name, object_type, object_id)
    return Expected(found=found, policy=policy, money=money, severity=severity, after=after, since=since)


def fires(*expected: Expected, until: timedelta = 15 * DAY, is_late: bool = False) -> Callable[[Any], Any]:
    """The scenario leads to these findings and no others. `is_late`: written after the ledger has seen the orders."""

    def register(build: Callable[[SubscriptionShop], None]) -> Callable[[SubscriptionShop], None]:
        FIRING.append(Scenario(build=build, expected=expected, until=until, is_late=is_late))
        return build

    return register


def quiet(until: timedelta = 15 * DAY, *, is_late: bool = False) -> Callable[[Any], Any]:
    """The scenario leads to no finding until so long after NOW."""

    def register(build: Callable[[SubscriptionShop], None]) -> Callable[[SubscriptionShop], None]:
        QUIET.append(Scenario(build=build, until=until, is_late=is_late))
        return build

    return register


# paid_without_subscription -------------------------------------------------------------------------------


def paid_without(payment: str, policy: str, money: str = "30") -> Expected:
    return finding(
        "paid_without_subscription",
        "payment",
        payment,
        policy=policy,
        severity="error",
        after=10 * MINUTE,
        money=money,
    )


@fires(paid_without("p", "A"))
def a_paid_order_whose_subscription_was_never_made(s: SubscriptionShop):
    s.order()
    s.payment(order="o")


@fires(paid_without("p", "A"))
def a_paid_order_whose_subscription_is_still_incomplete(s: SubscriptionShop):
    s.order()
    s.payment(order="o")
    s.subscription(order="o", status="incomplete")


@fires(paid_without("p", "P"))
def a_payment_for_a_plan_without_an_order_and_a_subscription(s: SubscriptionShop):
    s.payment(customer_id="ann", plan_id="basic")


@fires(paid_without("p1", "P"), paid_without("p2", "P"))
def two_paid_orders_for_one_plan_and_no_subscription(s: SubscriptionShop):
    for number in "12":
        s.order("o" + number)
        s.payment("p" + number, order="o" + number)


@fires(paid_without("p", "P", "20"))
def a_paid_order_without_subscription_that_was_refunded_in_part(s: SubscriptionShop):
    s.order(status="partially_refunded")
    s.payment(order="o", refunded=10)


@fires(
    paid_without("p", "H"),
    finding("payment_without_customer", "payment", "p", policy="H", severity="error", after=HOUR),
)
def a_guest_who_paid_for_a_plan(s: SubscriptionShop):
    s.order(customer=None)
    s.payment(order="o")


@fires(paid_without("p", "A"))
def a_customer_who_comes_back_after_cancelling(s: SubscriptionShop):
    s.subscribed(at=day(-200), name="-old", subscription={"status": "cancelled", "cancelled_at": day(-180)})
    s.order()
    s.payment(order="o")


@fires(paid_without("p", "A", "5"))
def a_paid_order_for_another_plan_than_the_one_that_runs(s: SubscriptionShop):
    s.plan("storage", 5, allows_multiple=True)
    s.subscribed(name="-1", at=day(-5))
    s.order(plan="storage", total=5)
    s.payment(order="o", amount=5)


@fires(paid_without("p2", "A"))
def a_second_seat_that_was_paid_and_never_made(s: SubscriptionShop):
    s.plan("seat", 30, allows_multiple=True)
    s.subscribed(plan="seat", name="1", at=day(-1))
    s.order("o2", plan="seat")
    s.payment("p2", order="o2")


@quiet()
def a_clean_subscription(s: SubscriptionShop):
    s.subscribed()


@quiet()
def a_renewal_that_names_the_subscription(s: SubscriptionShop):
    s.subscribed(at=day(-30), subscription={"period": (day(0), day(30)), "created_at": day(-30)})
    s.payment("p2", subscription="s", period=(day(0), day(30)))


@quiet()
def a_renewal_by_an_order_of_its_own_that_nothing_links(s: SubscriptionShop):
    s.subscribed(at=day(-30), subscription={"period": (day(0), day(30)), "created_at": day(-30)})
    s.order("o2")
    s.payment("p2", order="o2")


@quiet()
def a_payment_for_the_next_period_in_advance(s: SubscriptionShop):
    s.subscribed(at=day(-10))
    s.payment("p2", subscription="s", period=(day(20), day(50)))


@quiet()
def a_paid_order_of_goods_without_any_plan(s: SubscriptionShop):
    s.order(plan=None)
    s.payment(order="o")


@quiet()
def an_order_for_a_plan_that_was_refunded_in_full(s: SubscriptionShop):
    s.order(status="refunded")
    s.payment(order="o", status="refunded", refunded=30)


@quiet()
def a_late_capture_of_the_period_in_which_the_customer_cancelled(s: SubscriptionShop):
    s.subscribed(at=day(-40), subscription={"status": "cancelled", "cancelled_at": day(-5)})
    s.payment("p2", subscription="s", period=(day(-10), day(20)))


# A payment for a plan belongs to a customer by an id, never by an address.
@fires(
    paid_without("p", "H"),
    finding("payment_without_customer", "payment", "p", policy="H", severity="error", after=HOUR),
    finding("subscription_without_payment", "subscription", "s", policy="P", severity="error", after=3 * DAY),
)
def a_payment_whose_customer_can_only_be_guessed_by_the_address(s: SubscriptionShop):
    s.subscription()
    s.order(customer="ann@example.test")
    s.payment(order="o")


# The order says otherwise, or somebody else: what is given to whom is not for automation to decide.
@fires(paid_without("p", "P"))
def a_captured_payment_of_an_order_that_was_cancelled(s: SubscriptionShop):
    s.order(status="cancelled")
    s.payment(order="o")


@fires(paid_without("p", "P"))
def a_captured_payment_of_an_order_that_was_refunded(s: SubscriptionShop):
    s.order(status="refunded")
    s.payment(order="o")


@fires(paid_without("p", "P"))
def a_payment_whose_subscription_the_shop_does_not_show(s: SubscriptionShop):
    s.order()
    s.payment(order="o", subscription="gone")


@fires(paid_without("p", "P"))
def a_payment_by_another_customer_than_the_one_who_ordered(s: SubscriptionShop):
    s.customer("bob")
    s.order(customer="bob")
    s.payment(order="o", customer_id="ann")


@fires(
    paid_without("p2", "P"),
    finding(
        "status_unknown",
        "subscription",
        "s",
        policy="H",
        severity="warning",
        after=5 * MINUTE,
        money="0",
        since=-30 * DAY,
    ),
)
def a_renewal_of_a_subscription_whose_status_nobody_knows(s: SubscriptionShop):
    s.subscribed(at=day(-30), subscription={"status": "on_hold"})
    s.order("o2")
    s.payment("p2", order="o2", period=(day(0), day(30)))


@fires(
    paid_without("p2", "P"),
    finding("captured_twice", "payment", "p2", policy="P", severity="error", after=15 * MINUTE),
)
def an_order_paid_again_when_its_subscription_is_cancelled(s: SubscriptionShop):
    s.order(at=day(-10))
    s.payment("p1", at=day(-10), order="o", subscription="s")
    s.subscription(period=(day(-10), day(20)), status="cancelled", cancelled_at=day(-5))
    s.payment("p2", order="o")


# subscription_without_payment ----------------------------------------------------------------------------


def unpaid(
    subscription: str = "s", after: timedelta = 3 * DAY, money: str = "30", since: timedelta = timedelta(0)
) -> Expected:
    return finding(
        "subscription_without_payment",
        "subscription",
        subscription,
        policy="P",
        severity="error",
        after=after,
        money=money,
        since=since,
    )


@fires(unpaid())
def a_subscription_that_nobody_paid(s: SubscriptionShop):
    s.subscription()


@fires(unpaid(money="25"))
def a_subscription_at_an_agreed_price_that_nobody_paid(s: SubscriptionShop):
    s.subscription(price=25)


@fires(unpaid())
def a_subscription_whose_only_payment_failed(s: SubscriptionShop):
    s.subscription()
    s.payment(subscription="s", status="failed")


@fires(unpaid())
def a_renewal_that_never_came(s: SubscriptionShop):
    s.subscribed(at=day(-30))


@fires(unpaid())
def a_period_that_the_shop_renewed_without_a_payment(s: SubscriptionShop):
    s.subscribed(at=day(-30), subscription={"period": (day(0), day(30)), "created_at": day(-30)})


@fires(unpaid(after=14 * DAY))
def a_renewal_that_was_dunned_for_two_weeks(s: SubscriptionShop):
    s.subscribed(at=day(-30), subscription={"status": "past_due"})


@fires(unpaid("s1", since=-60 * DAY))
def an_old_subscription_still_called_active_beside_a_new_one(s: SubscriptionShop):
    s.subscribed(name="1", at=day(-90))
    s.subscription("s2")
    s.order("o2")
    s.payment("p2", order="o2")


@quiet(until=3 * DAY)
def a_renewal_that_is_late_by_less_than_three_days(s: SubscriptionShop):
    s.subscribed(at=day(-30))


@quiet(until=14 * DAY)
def a_renewal_that_is_being_dunned(s: SubscriptionShop):
    s.subscribed(at=day(-30), subscription={"status": "past_due"})


@quiet()
def a_trial(s: SubscriptionShop):
    s.subscription(status="trialing")


@quiet()
def a_trial_that_was_paid_when_it_was_over(s: SubscriptionShop):
    s.subscription(period=(day(-14), day(30)), created_at=day(-14))
    s.payment(subscription="s")


@quiet()
def a_complimentary_subscription(s: SubscriptionShop):
    s.subscription(is_complimentary=True)


@quiet()
def a_free_plan(s: SubscriptionShop):
    s.plan("free", 0)
    s.subscription(plan="free")


@quiet()
def a_paused_subscription(s: SubscriptionShop):
    s.subscription(status="paused")


@quiet()
def a_subscription_that_begins_later(s: SubscriptionShop):
    s.subscription(period=(day(20), day(50)), created_at=day(0))


@quiet()
def a_year_that_was_paid_half_a_year_ago(s: SubscriptionShop):
    s.plan("yearly", 300, "year")
    s.subscribed(at=day(-180), until=day(185), plan="yearly", amount=300)


@quiet()
def a_year_whose_payment_says_no_period(s: SubscriptionShop):
    s.plan("yearly", 300, "year")
    s.subscribed(at=day(-180), until=day(185), plan="yearly", amount=300, payment={"period": None})


@quiet()
def a_payment_of_now_that_nobody_knows_the_fate_of(s: SubscriptionShop):
    s.subscription()
    s.payment(subscription="s", status="authorized")


@quiet()
def a_shop_that_counts_months_as_thirty_days_and_links_the_order(s: SubscriptionShop):
    s.subscribed(at=day(-10), payment={"period": None})


@quiet()
def a_shop_whose_subscriptions_and_payments_have_no_periods(s: SubscriptionShop):
    s.subscribed(
        at=day(-10),
        payment={"period": None},
        subscription={"period": (None, None), "created_at": day(-10), "updated_at": day(-10)},
    )


@quiet()
def a_first_month_that_points_have_paid(s: SubscriptionShop):
    s.order(total=0)
    s.subscription(order="o")


@quiet()
def a_payment_that_was_captured_some_days_before_the_period(s: SubscriptionShop):
    s.subscribed(at=day(-33), subscription={"period": (day(0), day(30)), "created_at": day(-33)})
    s.payment("p2", subscription="s", at=day(-3))


@quiet()
def a_plan_for_ever(s: SubscriptionShop):
    s.plan("lifetime", 500, "lifetime")
    s.subscribed(
        at=day(-800),
        plan="lifetime",
        amount=500,
        payment={"period": None},
        subscription={"period": (day(-800), None), "updated_at": day(-800)},
    )


# duplicate_same_plan -------------------------------------------------------------------------------------


def twice(subscription: str, policy: str) -> Expected:
    return finding(
        "duplicate_same_plan", "subscription", subscription, policy=policy, severity="error", after=15 * MINUTE
    )


@fires(twice("s2", "A"), unpaid("s2"))
def a_second_subscription_that_nobody_paid(s: SubscriptionShop):
    s.subscribed(at=day(-10), name="1")
    s.subscription("s2")


# Which of both a payment is for was guessed by the plan, and there is one for each.
@fires(
    twice("s2", "H"),
    unpaid("s2"),
    finding("captured_twice", "payment", "p2", policy="P", severity="error", after=15 * MINUTE),
)
def two_payments_that_name_neither_of_two_subscriptions(s: SubscriptionShop):
    for number in "12":
        s.order("o" + number)
        s.payment("p" + number, order="o" + number)
        s.subscription("s" + number)


@fires(twice("s2", "H"))
def a_second_subscription_whose_order_cost_nothing(s: SubscriptionShop):
    s.subscribed(at=day(-10), name="1")
    s.order("o2", total=0)
    s.subscription("s2", order="o2")


@fires(twice("s2", "A"), unpaid("s2"))
def one_order_that_route_and_webhook_both_made_a_subscription_of(s: SubscriptionShop):
    s.subscribed(name="1")
    s.subscription("s2", order="o1", created_at=NOW - SECOND * 0)


@fires(twice("s2", "A"), twice("s3", "A"), unpaid("s2"), unpaid("s3"))
def one_order_that_became_three_subscriptions(s: SubscriptionShop):
    s.subscribed(name="1", at=NOW - MINUTE)
    s.subscription("s2", order="o1")
    s.subscription("s3", order="o1")


@fires(twice("s2", "H"))
def two_paid_subscriptions_to_one_plan(s: SubscriptionShop):
    s.subscribed(at=day(-10), name="1")
    s.subscribed(name="2")


@fires(twice("s2", "H"), unpaid("s1"), unpaid("s2"))
def two_subscriptions_to_one_plan_that_nobody_paid(s: SubscriptionShop):
    s.subscription("s1")
    s.subscription("s2")


@fires(twice("s2", "H"), unpaid("s1", after=3 * DAY), until=2 * DAY)
def a_second_subscription_beside_one_that_is_being_renewed(s: SubscriptionShop):
    """The one that is due was paid so far, and may be paid any minute: nothing ends it automatically."""
    s.subscribed(at=day(-30), name="1")
    s.subscribed(name="2", at=day(-20), until=day(10), subscription={"created_at": day(0)})


@fires(twice("s2", "H"))
def a_second_subscription_whose_payment_is_not_settled(s: SubscriptionShop):
    s.subscribed(at=day(-10), name="1")
    s.subscription("s2")
    s.payment("p2", subscription="s2", status="authorized")


@quiet()
def several_seats_of_a_plan_that_allows_them(s: SubscriptionShop):
    s.plan("seat", 10, allows_multiple=True)
    for number in "123":
        s.subscribed(plan="seat", amount=10, name=number)


@quiet()
def a_subscription_beside_a_cancelled_one(s: SubscriptionShop):
    s.subscribed(at=day(-10), name="1", subscription={"status": "cancelled", "cancelled_at": day(-5)})
    s.subscribed(name="2")


@quiet(until=3 * DAY)
def a_subscription_that_begins_when_the_other_one_ends(s: SubscriptionShop):
    s.subscribed(at=day(-30), name="1", subscription={"cancelled_at": day(-9)})
    s.subscribed(name="2")


@quiet()
def one_plan_of_two_customers(s: SubscriptionShop):
    s.subscribed("ann", name="1")
    s.subscribed("bob", name="2")


# duplicate_other_plan ------------------------------------------------------------------------------------


@fires(finding("duplicate_other_plan", "subscription", "s2", policy="H", severity="warning", after=HOUR, money="10"))
def a_cheaper_plan_beside_the_one_that_runs(s: SubscriptionShop):
    s.plan("light", 10)
    s.subscribed(at=day(-10), name="1")
    s.subscribed(plan="light", amount=10, name="2")


@quiet()
def an_upgrade_that_was_paid(s: SubscriptionShop):
    s.plan("pro", 50)
    s.subscribed(at=day(-10), name="1")
    s.subscribed(plan="pro", amount=50, name="2")


@quiet()
def a_year_beside_a_month_of_plans_that_go_together(s: SubscriptionShop):
    s.plan("yearly", 300, "year", allows_multiple=True)
    s.subscribed(at=day(-10), name="1")
    s.subscribed(at=day(0), until=day(365), plan="yearly", amount=300, name="2")


@quiet()
def an_upgrade_to_the_year_with_the_month_ended(s: SubscriptionShop):
    s.plan("yearly", 300, "year")
    s.subscribed(at=day(-10), name="1", subscription={"cancelled_at": day(0)})
    s.subscribed(at=day(0), until=day(365), plan="yearly", amount=300, name="2")


# captured_twice ------------------------------------------------------------------------------------------


def paid_twice(payment: str, money: str = "30") -> Expected:
    return finding("captured_twice", "payment", payment, policy="P", severity="error", after=15 * MINUTE, money=money)


@fires(paid_twice("p2"))
def a_period_of_a_cancelled_subscription_that_was_paid_twice(s: SubscriptionShop):
    s.subscribed(at=day(-9), subscription={"status": "cancelled", "cancelled_at": day(-1)})
    s.payment("p2", order="o", period=(day(-9), day(21)))


@fires(paid_twice("p2"))
def one_period_that_was_paid_twice(s: SubscriptionShop):
    s.subscribed(at=day(-1))
    s.payment("p2", subscription="s", period=(day(-1), day(29)))


@fires(paid_twice("p2"))
def one_order_for_a_plan_that_was_paid_twice(s: SubscriptionShop):
    s.subscribed(at=day(-1), payment={"period": None})
    s.payment("p2", order="o")


@fires(paid_twice("p2"))
def one_order_of_goods_that_was_paid_twice(s: SubscriptionShop):
    s.order(plan=None, at=day(-1))
    s.payment("p1", order="o", at=day(-1))
    s.payment("p2", order="o")


@fires(paid_twice("p2"), paid_twice("p3"))
def one_order_of_goods_that_was_paid_three_times(s: SubscriptionShop):
    s.order(plan=None, at=day(-1))
    s.payment("p1", order="o", at=day(-1))
    s.payment("p2", order="o")
    s.payment("p3", order="o")


@fires(paid_twice("p2", "18"))
def one_order_of_goods_that_was_paid_twice_and_refunded_in_part(s: SubscriptionShop):
    s.order(plan=None, at=day(-1))
    s.payment("p1", order="o", at=day(-1))
    s.payment("p2", order="o", refunded=12)


@fires(paid_twice("p2"))
def a_renewal_that_two_schedulers_charged(s: SubscriptionShop):
    s.subscribed(at=day(-30), subscription={"period": (day(0), day(30)), "created_at": day(-30)})
    s.payment("p1", subscription="s", at=day(0), period=(day(0), day(30)))
    s.payment("p2", subscription="s", at=day(0), period=(day(0), day(30)))


@quiet()
def one_order_paid_in_two_parts(s: SubscriptionShop):
    s.order(plan=None, total=50)
    s.payment("p1", 20, order="o")
    s.payment("p2", 30, order="o")


@quiet()
def one_order_for_a_plan_paid_in_two_parts(s: SubscriptionShop):
    s.order()
    s.payment("p1", 10, order="o")
    s.payment("p2", 20, order="o")
    s.subscription(order="o")


@quiet()
def a_second_payment_that_was_given_back(s: SubscriptionShop):
    s.subscribed(at=day(-1))
    s.payment("p2", subscription="s", period=(day(-1), day(29)), refunded=30)


@quiet()
def a_first_payment_that_was_given_back_and_taken_again(s: SubscriptionShop):
    s.subscribed(at=day(-1), payment={"status": "refunded", "refunded": 30})
    s.payment("p2", order="o", period=(day(-1), day(29)))


@quiet()
def a_payment_that_failed_and_was_tried_again(s: SubscriptionShop):
    s.subscribed(at=day(-1), payment={"status": "failed"})
    s.payment("p2", order="o", period=(day(-1), day(29)))


@quiet()
def a_renewal_that_was_captured_two_days_early(s: SubscriptionShop):
    s.subscribed(
        at=day(-28), payment={"period": None}, subscription={"period": (day(-28), day(30)), "created_at": day(-28)}
    )
    s.payment("p2", subscription="s")


@quiet(until=14 * DAY)
def an_upgrade_in_the_middle_of_the_month_that_was_prorated(s: SubscriptionShop):
    s.plan("pro", 50)
    s.subscribed(at=day(-15), subscription={"plan_id": "pro"}, payment={"plan_id": "basic"})
    s.payment("p2", 10, subscription="s", plan_id="pro", period=(day(0), day(15)))


# overlapping_periods -------------------------------------------------------------------------------------


@fires(finding("overlapping_periods", "payment", "p2", policy="H", severity="warning", after=HOUR, money="5.00"))
def a_renewal_for_a_period_that_began_five_days_early(s: SubscriptionShop):
    s.subscribed(at=day(-25), subscription={"period": (day(0), day(30)), "created_at": day(-25)})
    s.payment("p2", subscription="s", period=(day(0), day(30)))


@quiet()
def a_renewal_for_a_period_that_began_some_hours_early(s: SubscriptionShop):
    s.subscribed(at=day(-29.5), subscription={"period": (day(0), day(30)), "created_at": day(-29.5)})
    s.payment("p2", subscription="s", period=(day(0), day(30)))


# amount_differs ------------------------------------------------------------------------------------------


def wrong_amount(payment: str, policy: str, money: str) -> Expected:
    return finding("amount_differs", "payment", payment, policy=policy, severity="error", after=HOUR, money=money)


@fires(wrong_amount("p", "P", "10"))
def more_than_the_price(s: SubscriptionShop):
    s.subscribed(payment={"amount": 40})


@fires(wrong_amount("p", "H", "25"))
def less_than_the_price(s: SubscriptionShop):
    s.subscribed(payment={"amount": 5})


@fires(wrong_amount("p", "P", "6"))
def a_discount_that_was_forgotten(s: SubscriptionShop):
    s.subscribed(order={"discount": 6})


@fires(
    wrong_amount("p", "P", "4"),
    finding("partly_refunded", "payment", "p", policy="P", severity="warning", after=HOUR, money="6"),
)
def an_overcharge_that_was_given_back_in_part(s: SubscriptionShop):
    s.subscribed(payment={"amount": 40, "refunded": 6})


@fires(wrong_amount("p", "P", "3"))
def a_difference_beyond_the_tolerance_of_a_merchant(s: SubscriptionShop):
    s.settings(tolerance_percent=9)
    s.subscribed(payment={"amount": 33})


@quiet()
def a_difference_within_the_tolerance_of_a_merchant(s: SubscriptionShop):
    s.settings(tolerance_percent=10)
    s.subscribed(payment={"amount": 33})


@quiet()
def a_difference_of_cents(s: SubscriptionShop):
    s.subscribed(payment={"amount": "30.25"})


@quiet()
def a_discount_and_points_on_the_order(s: SubscriptionShop):
    s.shop.program(s.merchant_id, point_value_amount=Decimal("0.01"), points_per_unit=0)
    order = {"total": "23.50", "discount": 5, "points_redeemed": 150, "points_discount": "1.50"}
    s.subscribed(payment={"amount": "23.50"}, order=order)


@quiet()
def points_without_their_discount_on_the_order(s: SubscriptionShop):
    s.shop.program(s.merchant_id, point_value_amount=Decimal("0.01"), points_per_unit=0)
    s.subscribed(payment={"amount": 25}, order={"total": 25, "points_redeemed": 500})


@quiet()
def a_price_that_was_raised_later(s: SubscriptionShop):
    s.subscribed(at=day(-10), subscription={"price": 30})
    s.change("plans", "basic", price=45)


@quiet(until=15 * DAY)
def an_old_payment_at_an_old_price(s: SubscriptionShop):
    s.subscribed(at=day(-62), subscription={"period": (day(-2), day(28)), "created_at": day(-62)})
    s.payment("p2", 30, subscription="s", at=day(-32), period=(day(-32), day(-2)))
    s.change("plans", "basic", price=45)
    s.payment("p3", 45, subscription="s", at=day(-2), period=(day(-2), day(28)))


@quiet()
def an_agreed_price(s: SubscriptionShop):
    s.subscribed(amount=22, subscription={"price": 22})


@quiet()
def an_agreed_price_with_the_discount_in_it(s: SubscriptionShop):
    s.subscribed(amount=22, subscription={"price": 22}, order={"discount": 8})


@quiet()
def a_refund_that_brings_an_overcharge_to_the_price(s: SubscriptionShop):
    s.subscribed(payment={"amount": 40, "refunded": 10})


# currency_differs ----------------------------------------------------------------------------------------


@fires(finding("currency_differs", "payment", "p", policy="H", severity="error", after=HOUR))
def a_payment_in_another_currency_than_the_plan(s: SubscriptionShop):
    s.subscribed(payment={"currency": "USD"})


@fires(finding("currency_differs", "subscription", "s", policy="H", severity="error", after=HOUR, money="0"))
def a_subscription_in_another_currency_than_the_plan(s: SubscriptionShop):
    s.subscription(currency="USD", is_complimentary=True)


@quiet()
def rows_that_do_not_say_their_currency(s: SubscriptionShop):
    s.subscribed(payment={"currency": None}, subscription={"currency": None})


@quiet()
def currencies_in_small_letters(s: SubscriptionShop):
    s.subscribed(payment={"currency": "eur"}, subscription={"currency": " Eur "})


# charged_after_cancel ------------------------------------------------------------------------------------


def charged_late(payment: str = "p2") -> Expected:
    return finding("charged_after_cancel", "payment", payment, policy="P", severity="error", after=HOUR)


@fires(charged_late())
def a_period_that_was_charged_after_cancelling(s: SubscriptionShop):
    s.subscribed(at=day(-35), subscription={"status": "cancelled", "cancelled_at": day(-20)})
    s.payment("p2", subscription="s", period=(day(-5), day(25)))


@fires(charged_late())
def a_period_that_was_charged_after_cancelling_without_a_date(s: SubscriptionShop):
    s.subscribed(at=day(-35), subscription={"status": "cancelled"})
    s.payment("p2", subscription="s")


@quiet()
def a_subscription_that_was_cancelled_and_ends_with_its_period(s: SubscriptionShop):
    s.subscribed(at=day(-10), subscription={"cancelled_at": day(-5)})


@quiet()
def a_period_that_was_charged_after_cancelling_and_given_back(s: SubscriptionShop):
    s.subscribed(at=day(-35), subscription={"status": "cancelled", "cancelled_at": day(-20)})
    s.payment("p2", subscription="s", period=(day(-5), day(25)), refunded=30)


@quiet()
def a_subscription_that_was_paid_and_cancelled_at_once(s: SubscriptionShop):
    s.subscribed(at=day(0), subscription={"status": "cancelled", "cancelled_at": day(0)})


# refunded_but_active -------------------------------------------------------------------------------------


def refunded(subscription: str = "s") -> Expected:
    return finding("refunded_but_active", "subscription", subscription, policy="P", severity="error", after=15 * MINUTE)


@fires(refunded())
def a_refunded_subscription_that_runs_on(s: SubscriptionShop):
    s.subscribed(
        at=day(-5), payment={"status": "refunded", "refunded": 30, "updated_at": NOW}, order={"status": "refunded"}
    )


@fires(refunded())
def a_refunded_subscription_whose_payment_is_still_called_captured(s: SubscriptionShop):
    s.subscribed(at=day(-5), payment={"refunded": 30, "updated_at": NOW})


@fires(refunded())
def a_subscription_both_of_whose_payments_were_given_back(s: SubscriptionShop):
    s.subscribed(at=day(-5), payment={"refunded": 30, "updated_at": NOW})
    s.payment("p2", order="o", period=(day(-5), day(25)), refunded=30)


@quiet()
def a_refunded_duplicate_of_the_same_order(s: SubscriptionShop):
    s.subscribed(at=day(-5))
    s.payment("p2", order="o", at=day(-5), status="refunded", refunded=30, updated_at=NOW)


@quiet()
def a_refunded_duplicate_by_an_order_of_its_own(s: SubscriptionShop):
    s.subscribed(at=day(-5))
    s.order("o2", at=day(-5), status="refunded")
    s.payment("p2", order="o2", at=day(-5), status="refunded", refunded=30, updated_at=NOW)


@quiet()
def a_refunded_first_payment_whose_duplicate_is_kept(s: SubscriptionShop):
    s.subscribed(at=day(-5), payment={"status": "refunded", "refunded": 30, "updated_at": NOW})
    s.payment("p2", order="o", at=day(-5), period=(day(-5), day(25)))


@quiet()
def a_refunded_subscription_that_ended(s: SubscriptionShop):
    s.subscribed(
        at=day(-5),
        payment={"status": "refunded", "refunded": 30},
        subscription={"status": "cancelled", "cancelled_at": day(-4)},
    )


@quiet()
def a_period_of_the_past_that_was_given_back(s: SubscriptionShop):
    s.subscribed(
        at=day(-30),
        payment={"status": "refunded", "refunded": 30},
        subscription={"period": (day(0), day(30)), "created_at": day(-30)},
    )
    s.payment("p2", subscription="s", period=(day(0), day(30)))


# partly_refunded -----------------------------------------------------------------------------------------


@fires(finding("partly_refunded", "payment", "p", policy="P", severity="warning", after=HOUR, money="20"))
def a_part_that_was_given_back_of_a_period_that_is_kept(s: SubscriptionShop):
    s.subscribed(at=day(-5), payment={"refunded": 20, "updated_at": NOW})


@fires(finding("partly_refunded", "payment", "p", policy="P", severity="warning", after=HOUR, money="2"))
def a_small_part_that_was_given_back_beyond_the_tolerance(s: SubscriptionShop):
    s.settings(tolerance_percent=5)
    s.subscribed(at=day(-5), payment={"refunded": 2, "updated_at": NOW})


@quiet()
def a_small_part_that_was_given_back_within_the_tolerance(s: SubscriptionShop):
    s.settings(tolerance_percent=7)
    s.subscribed(at=day(-5), payment={"refunded": 2, "updated_at": NOW})


@quiet()
def cents_that_were_given_back(s: SubscriptionShop):
    s.subscribed(at=day(-5), payment={"refunded": "0.30", "updated_at": NOW})


@quiet(until=10 * DAY)
def a_part_that_was_given_back_of_a_period_that_was_shortened(s: SubscriptionShop):
    s.subscribed(at=day(-5), payment={"refunded": 15, "updated_at": NOW}, subscription={"period_end": day(10)})


# disputed_but_active -------------------------------------------------------------------------------------


@fires(finding("disputed_but_active", "subscription", "s", policy="P", severity="error", after=HOUR))
def a_disputed_payment_of_a_subscription_that_runs_on(s: SubscriptionShop):
    s.subscribed(at=day(-5), payment={"status": "disputed", "updated_at": NOW})


@quiet()
def a_dispute_beside_a_second_good_payment(s: SubscriptionShop):
    s.subscribed(at=day(-5), payment={"status": "disputed", "updated_at": NOW})
    s.payment("p2", order="o", at=day(-5), period=(day(-5), day(25)))


@quiet()
def a_dispute_of_a_period_of_the_past(s: SubscriptionShop):
    s.subscribed(
        at=day(-30),
        payment={"status": "disputed", "updated_at": NOW},
        subscription={"period": (day(0), day(30)), "created_at": day(-30)},
    )
    s.payment("p2", subscription="s", period=(day(0), day(30)))


@quiet()
def a_disputed_subscription_that_ended(s: SubscriptionShop):
    s.subscribed(
        at=day(-5),
        payment={"status": "disputed"},
        subscription={"status": "cancelled", "cancelled_at": day(-1)},
    )


# period_gap ----------------------------------------------------------------------------------------------


def gap(object_type: str, object_id: str, policy: str, after: timedelta, money: str = "30") -> Expected:
    return finding("period_gap", object_type, object_id, policy=policy, severity="warning", after=after, money=money)


@fires(gap("subscription", "s", "P", 15 * MINUTE))
def a_renewal_that_did_not_move_the_end(s: SubscriptionShop):
    s.subscribed(at=day(-30))
    s.payment("p2", subscription="s", period=(day(0), day(30)))


@fires(gap("subscription", "s", "P", 15 * MINUTE))
def a_renewal_of_a_subscription_that_had_expired(s: SubscriptionShop):
    s.subscribed(at=day(-31), until=day(-1), subscription={"status": "expired"})
    s.payment("p2", subscription="s", period=(day(0), day(30)))


@fires(gap("subscription", "s", "P", 15 * MINUTE))
def a_subscription_that_ends_long_before_what_was_paid(s: SubscriptionShop):
    s.subscribed(subscription={"period_end": day(20)})


@fires(gap("payment", "p2", "H", DAY, "0"))
def a_month_that_nobody_paid_between_two_paid_ones(s: SubscriptionShop):
    s.subscribed(at=day(-60), subscription={"period": (day(0), day(30)), "created_at": day(-60)})
    s.payment("p2", subscription="s", period=(day(0), day(30)))


@quiet()
def a_period_that_ends_some_hours_before_what_was_paid(s: SubscriptionShop):
    s.subscribed(subscription={"period_end": day(29.5)})


@quiet()
def a_derived_period_that_is_longer_by_a_day(s: SubscriptionShop):
    s.subscribed(subscription={"period_end": day(28)}, payment={"period": None})


@quiet()
def a_month_in_which_the_customer_was_away(s: SubscriptionShop):
    s.subscribed(at=day(-60), name="1", subscription={"status": "cancelled", "cancelled_at": day(-40)})
    s.subscribed(name="2")


@quiet()
def a_hole_in_a_subscription_that_ended(s: SubscriptionShop):
    s.subscribed(at=day(-90), subscription={"status": "cancelled", "cancelled_at": day(-2)})
    s.payment("p2", subscription="s", at=day(-30), period=(day(-30), day(0)))


# payment_without_order, payment_without_customer ---------------------------------------------------------


@fires(finding("payment_without_order", "payment", "p", policy="H", severity="error", after=HOUR))
def a_payment_that_belongs_to_nothing(s: SubscriptionShop):
    s.payment()


@fires(finding("payment_without_order", "payment", "p", policy="H", severity="error", after=HOUR))
def a_payment_of_an_order_that_the_shop_does_not_show(s: SubscriptionShop):
    s.payment(order="gone", customer_id="ann")


@fires(finding("payment_without_order", "payment", "p", policy="H", severity="error", after=HOUR))
def a_payment_of_a_subscription_that_the_shop_does_not_show(s: SubscriptionShop):
    s.payment(subscription="gone", customer_id="ann")


@quiet()
def a_payment_that_belongs_to_nothing_and_failed(s: SubscriptionShop):
    s.payment(status="failed")


@quiet()
def a_payment_that_belongs_to_nothing_and_was_given_back(s: SubscriptionShop):
    s.payment(refunded=30)


@fires(
    finding("payment_without_customer", "payment", "p", policy="H", severity="error", after=HOUR),
)
def a_paid_subscription_of_nobody(s: SubscriptionShop):
    s.subscription(customer=None)
    s.payment(subscription="s", period=(day(0), day(30)))


@fires(
    finding("payment_without_customer", "payment", "p", policy="H", severity="error", after=HOUR),
)
def a_paid_subscription_of_a_customer_that_the_shop_does_not_have(s: SubscriptionShop):
    s.order(customer="ghost")
    s.payment(order="o", period=(day(0), day(30)))
    s.subscription(order="o", customer="ghost")


@quiet()
def a_guest_who_buys_goods(s: SubscriptionShop):
    s.order(customer=None, plan=None)
    s.payment(order="o")


@quiet()
def a_payment_whose_customer_only_the_subscription_names(s: SubscriptionShop):
    s.subscription()
    s.payment(subscription="s", period=(day(0), day(30)))


@quiet()
def a_guest_order_whose_subscription_names_the_customer(s: SubscriptionShop):
    s.subscribed(order={"customer": None})


# pending_too_long ----------------------------------------------------------------------------------------


def pending(payment: str = "p", money: str = "30") -> Expected:
    return finding(
        "pending_too_long", "payment", payment, policy="A", severity="warning", after=5 * MINUTE, money=money
    )


@fires(pending())
def a_payment_that_is_pending(s: SubscriptionShop):
    s.order(plan=None, status="pending")
    s.payment(order="o", status="pending")


@fires(pending())
def a_payment_that_nobody_knows(s: SubscriptionShop):
    s.order(plan=None, status="pending")
    s.payment(order="o", status="unknown")


# Unknown is not absent: what may have been paid is not called unpaid.
@fires(pending())
def a_subscription_whose_payment_is_pending(s: SubscriptionShop):
    s.subscribed(payment={"status": "pending", "captured_at": None}, order={"status": "pending", "paid_at": None})


@quiet()
def a_payment_that_is_authorized(s: SubscriptionShop):
    s.order(plan=None, status="pending")
    s.payment(order="o", status="authorized")


@quiet()
def a_payment_that_failed_at_last(s: SubscriptionShop):
    s.order(plan=None, status="failed")
    s.payment(order="o", status="failed")


# status_unknown ------------------------------------------------------------------------------------------


def strange(object_type: str, object_id: str, money: str = "30") -> Expected:
    return finding(
        "status_unknown", object_type, object_id, policy="H", severity="warning", after=5 * MINUTE, money=money
    )


@fires(strange("payment", "p"))
def a_payment_with_a_strange_status(s: SubscriptionShop):
    s.subscribed(payment={"status": "kaputt"})


@fires(strange("subscription", "s", "0"))
def a_subscription_with_a_strange_status(s: SubscriptionShop):
    s.subscribed(subscription={"status": "snoozed"})


@fires(strange("order", "o"))
def an_order_with_a_strange_status(s: SubscriptionShop):
    s.subscribed(order={"status": "???"})


# Points --------------------------------------------------------------------------------------------------


@fires(
    finding("paid_order_without_points", "order", "o", policy="A", severity="error", after=HOUR, money="0.30"),
    is_late=True,
)
def a_paid_order_that_the_ledger_has_never_heard_of(s: SubscriptionShop):
    s.shop.program(s.merchant_id, points_per_unit=1, point_value_amount=Decimal("0.01"))
    s.order(plan=None)
    s.payment(order="o")


@fires(
    finding("paid_order_without_points", "order", "o", policy="H", severity="error", after=HOUR, money="0.30"),
    is_late=True,
)
def a_paid_order_that_waits_in_the_reconciliation_queue(s: SubscriptionShop):
    s.shop.program(s.merchant_id, points_per_unit=1, point_value_amount=Decimal("0.01"))
    s.order(plan=None)
    s.shop.run(
        "INSERT INTO loyalty.reconciliation_queue (merchant_id, operation, customer_id, order_id, reason) "
        "VALUES (:merchant, 'award', 'ann', 'o', 'amount_not_finite')",
        merchant=s.merchant_id,
    )


@quiet()
def a_paid_order_that_earned_its_points(s: SubscriptionShop):
    s.shop.program(s.merchant_id, points_per_unit=1)
    s.order(plan=None)


@quiet(is_late=True)
def a_paid_order_that_earns_nothing(s: SubscriptionShop):
    s.shop.program(s.merchant_id, points_per_unit=1)
    s.order(plan=None, total="0.50")


@quiet(is_late=True)
def a_paid_order_of_a_guest(s: SubscriptionShop):
    s.shop.program(s.merchant_id, points_per_unit=1)
    s.order(plan=None, customer=None)


@quiet(is_late=True)
def a_paid_order_from_before_the_programme(s: SubscriptionShop):
    s.shop.program(s.merchant_id, points_per_unit=1, valid_from=day(-1))
    s.order(plan=None, at=day(-2))


@quiet(is_late=True)
def a_paid_order_that_was_refunded_to_nothing(s: SubscriptionShop):
    s.shop.program(s.merchant_id, points_per_unit=1)
    s.order(plan=None, status="partially_refunded")
    s.insert("refunds", id="r", order_id="o", amount="29.50")


def _award_and_change(s: SubscriptionShop, **changes: Any) -> None:
    s.shop.program(s.merchant_id, points_per_unit=1, point_value_amount=Decimal("0.01"))
    s.order(plan=None, at=day(-2))
    s.shop.drain()
    s.change("orders", "o", **changes)
    forget_orders(s.shop)


@fires(
    finding("points_without_paid_order", "order", "o", policy="A", severity="error", after=HOUR, money="0.30"),
    is_late=True,
)
def points_of_an_order_that_was_cancelled(s: SubscriptionShop):
    _award_and_change(s, status="cancelled", updated_at=NOW)


@quiet(is_late=True)
def points_of_an_order_that_the_shop_deleted(s: SubscriptionShop):
    _award_and_change(s, updated_at=NOW)
    s.delete("orders", "o")


@fires(strange("order", "o"), is_late=True)
def points_of_an_order_whose_status_nobody_knows(s: SubscriptionShop):
    _award_and_change(s, status="weird", updated_at=NOW)


def _redeem_on_order(s: SubscriptionShop, *, points: int, **order: Any) -> None:
    s.shop.program(s.merchant_id, points_per_unit=1, point_value_amount=Decimal("0.01"))
    s.order("first", plan=None, total=1000, at=day(-3))
    s.shop.drain()
    s.shop.run("SELECT loyalty.redeem_points(:merchant, 'ann', 'o', :points)", merchant=s.merchant_id, points=points)
    s.order("o", plan=None, **order)
    s.shop.drain()


@fires(finding("redeemed_value_differs", "order", "o", policy="H", severity="warning", after=HOUR, money="5"))
def a_discount_for_points_of_an_order_on_which_none_were_redeemed(s: SubscriptionShop):
    s.shop.program(s.merchant_id, points_per_unit=1, point_value_amount=Decimal("0.01"))
    s.order("o", plan=None, points_discount=5)
    s.shop.drain()


@fires(
    finding("redeemed_value_differs", "order", "o", policy="H", severity="warning", after=HOUR, money="1.00"),
    is_late=True,
)
def a_discount_that_is_not_what_the_points_are_worth(s: SubscriptionShop):
    _redeem_on_order(s, points=500, total=24, points_redeemed=500, points_discount=6)


@quiet(is_late=True)
def a_discount_that_is_what_the_points_are_worth(s: SubscriptionShop):
    _redeem_on_order(s, points=500, total=25, points_redeemed=500, points_discount=5)


@quiet(is_late=True)
def redeemed_points_on_an_order_that_was_cancelled(s: SubscriptionShop):
    _redeem_on_order(s, points=500, total=25, points_redeemed=500, points_discount=7, status="cancelled")


# The database of all of them -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What was open at each merchant after each check, and the findings at the end."""

    timeline: Sequence[tuple[datetime, dict[str, set[Found]]]]
    findings: dict[tuple[str, Found], Any]


# All scenarios are looked at in one database, which takes longer to make than to look at.
pytestmark = pytest.mark.xdist_group("subscription_classes")


@pytest.fixture(scope="module")
def module_engine(server: EmbeddedServer) -> Iterator[Engine]:
    with fresh_database(server, SHOP_TEMPLATE) as url:
        engine = connect(url, pool_size=4)
        yield engine
        engine.dispose()


@pytest.fixture(scope="module")
def observed(module_engine: Engine) -> Observed:
    shop = Shop(module_engine)
    scenarios = [*FIRING, *QUIET]
    copies = ("changes", "full", "graced")

    def build(writer: BusyShop, scenario: Scenario, copy: str) -> None:
        s = SubscriptionShop(writer, f"{scenario.name}/{copy}")
        s.merchant()
        s.customer()
        s.plan()
        scenario.build(s)
        if copy == "graced":
            writer.run(
                "INSERT INTO loyalty.subscription_settings (merchant_id, grace_minutes, changed_by) "
                "VALUES (:id, 2880, 'test') ON CONFLICT (merchant_id) DO UPDATE SET grace_minutes = 2880",
                id=s.merchant_id,
            )

    with BusyShop(module_engine) as writer:
        for is_late in (False, True):
            for scenario in scenarios:
                for copy in copies if scenario.is_late == is_late else ():
                    build(writer, scenario, copy)
                    if is_late:
                        forget_orders(writer)
            writer.drain(batch_size=5000)
    timeline: list[tuple[datetime, dict[str, set[Found]]]] = []
    changes = [f"{one.name}/{copy}" for one in scenarios for copy in ("changes", "graced")]
    full = [f"{one.name}/full" for one in scenarios]
    findings: dict[tuple[str, Found], Any] = {}
    for number, as_of in enumerate(INSTANTS):
        compared(shop, full=number == 0, as_of=as_of, merchants=changes)
        compared(shop, full=True, as_of=as_of, merchants=full)
        timeline.append((as_of, open_by_merchant(shop)))
        for one in all_found(shop):
            key = (one.merchant_id, (one.class_name, one.object_type, one.object_id))
            findings.setdefault(key, one)
    return Observed(timeline=timeline, findings=findings)


def expected_at(scenario: Scenario, as_of: datetime, grace: timedelta) -> set[Found]:
    return {one.found for one in scenario.expected if NOW + one.since + max(one.after, grace) <= as_of}


NOTHING = timedelta(0)


@pytest.mark.parametrize("copy", ["changes", "full", "graced"])
@pytest.mark.parametrize("scenario", [*FIRING, *QUIET], ids=lambda one: one.name)
def test_exactly_what_is_wrong_is_found_and_not_before_it_is_ripe(observed: Observed, scenario: Scenario, copy: str):
    grace = OWN_GRACE if copy == "graced" else NOTHING
    for as_of, is_open in observed.timeline:
        if as_of < NOW + scenario.until:
            assert is_open.get(f"{scenario.name}/{copy}", set()) == expected_at(scenario, as_of, grace), as_of


@pytest.mark.parametrize("scenario", FIRING, ids=lambda one: one.name)
def test_a_finding_says_who_may_put_it_right_and_what_it_costs(observed: Observed, scenario: Scenario):
    for one in scenario.expected:
        if one.after < scenario.until:
            seen = observed.findings[(f"{scenario.name}/changes", one.found)]
            assert (seen.policy, seen.severity, seen.currency) == (one.policy, one.severity, seen.currency)
            assert seen.amount_at_risk == Decimal(one.money)
            assert seen.times_seen >= 1 and seen.evidence[f"{one.found[1]}_id"] == one.found[2]


def test_every_class_has_a_scenario_that_fires():
    assert {one.found[0] for scenario in FIRING for one in scenario.expected} == {one.code for one in CLASSES}
