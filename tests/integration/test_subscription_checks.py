"""Checks of payments and subscriptions: what they open, close and leave open, whatever the shop and its data do."""

import random
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from loyalty_pipelines.db import sample_shop, sources
from loyalty_pipelines.domain.source_mapping import MappingWithdrawnError, parse_mapping
from tests.shop import Shop
from tests.shops import create_flask_razorpay_shop, create_supabase_shop, mapping_of
from tests.subscription_shop import (
    NOW,
    SubscriptionShop,
    all_found,
    compared,
    day,
    forget_orders,
    found,
    open_by_merchant,
)

HOUR = timedelta(hours=1)
MISSING = ("paid_without_subscription", "payment", "p")


@pytest.fixture
def seller(engine: Engine, shop: Shop) -> SubscriptionShop:
    """A merchant 'seller' without a programme, with a plan and a customer."""
    return opened(shop, "seller")


def opened(shop: Shop, merchant_id: str) -> SubscriptionShop:
    made = SubscriptionShop(shop, merchant_id)
    made.merchant()
    made.customer()
    made.plan()
    return made


def paid_for_nothing(s: SubscriptionShop, name: str = "") -> None:
    """An order that was paid an hour ago and has no subscription."""
    s.order(f"o{name}", at=NOW - HOUR)
    s.payment(f"p{name}", order=f"o{name}", at=NOW - HOUR)


# Findings open and close -----------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False])
def test_a_finding_is_seen_again_closes_when_it_is_gone_and_reopens_as_a_new_one(seller: SubscriptionShop, full: bool):
    paid_for_nothing(seller)
    assert seller.compared() == {MISSING}
    (first,) = seller.found().values()
    seller.change("payments", "p", plan_id="basic")
    assert seller.compared(full=full) == {MISSING}
    assert seller.found()[MISSING].times_seen == 2
    seller.subscription(order="o", period=(NOW - HOUR, day(30)))
    assert seller.compared(full=full) == set()
    seller.delete("subscriptions", "s")
    assert seller.compared(full=full) == {MISSING}
    again, before = sorted(
        all_found(seller.shop, merchant_id="seller", is_closed_too=True), key=lambda one: -one.finding_id
    )
    assert (before.finding_id, again.times_seen, again.closed_at) == (first.finding_id, 1, None)
    assert before.closed_at is not None


def accept(s: SubscriptionShop) -> None:
    s.shop.run(
        "UPDATE loyalty.findings SET accepted_at = now(), accepted_by = 'test', accepted_because = 'known' "
        "WHERE subject = 'subscriptions' AND closed_at IS NULL"
    )


@pytest.mark.parametrize("full", [True, False])
def test_what_was_accepted_stays_accepted_until_it_is_another_thing(seller: SubscriptionShop, full: bool):
    seller.subscribed(payment={"amount": 40}, at=NOW - 2 * HOUR)
    differs = ("amount_differs", "payment", "p")
    assert seller.compared() == {differs}
    accept(seller)
    seller.change("payments", "p", plan_id="basic")
    assert seller.compared(full=full) == set()
    assert open_by_merchant(seller.shop) == {"seller": {differs}}
    seller.change("payments", "p", amount=50)
    assert seller.compared(full=full) == {differs}


def test_a_payment_that_waits_gets_a_person_after_two_days_though_nobody_touches_it(seller: SubscriptionShop):
    seller.order(plan=None, status="pending")
    seller.payment(order="o", status="pending")
    stages: list[tuple[str | None, Any]] = []
    for number, as_of in enumerate((HOUR / 2, 2 * HOUR, 30 * HOUR, 50 * HOUR)):
        seller.compared(full=number == 0, as_of=NOW + as_of)
        (one,) = seller.found().values()
        stages.append((one.policy, one.evidence["stage"]))
    assert stages == [("A", 1), ("A", 2), ("A", 3), ("H", 3)]


@pytest.mark.parametrize("link", ["subscription", "order"])
def test_what_one_customer_pays_for_another_one_is_not_lost_when_the_payer_changes(seller: SubscriptionShop, link: str):
    """The subscription belongs to nobody that changed, and is still the one that was paid."""
    seller.customer("bob")
    named: dict[str, Any] = {"subscription": "s"} if link == "subscription" else {}
    made_by: dict[str, Any] = {"order": "o"} if link == "order" else {}
    seller.subscription(customer="bob", period=(NOW - HOUR, day(30)), **made_by)
    seller.order(at=NOW - HOUR, plan=None)
    seller.payment(order="o", at=NOW - HOUR, customer_id="ann", plan_id="basic", **named)
    assert seller.compared() == set()
    seller.order("other", plan=None)
    assert seller.compared(full=False) == set()


def test_a_period_that_a_fix_gave_is_no_unpaid_duplicate(seller: SubscriptionShop):
    """Nothing automatic ends it: the payment that it was made for has a period that is over."""
    seller.subscribed(name="1", at=day(-10))
    seller.subscription("s2", order="o2", period=(day(-1), day(29)))
    seller.shop.run(
        "INSERT INTO loyalty.fix_plans (merchant_id, fix_key, finding_id, class, object_type, object_id, policy, "
        "action, target_id, before, after, evidence, explanation, status, planned_by, expires_at, applied_at) "
        "VALUES ('seller', 'key', 1, 'paid_without_subscription', 'payment', 'p2', 'P', 'create_subscription', "
        "'s2', '{}', '{}', '{}', 'late', 'applied', 'test', now(), :applied_at)",
        applied_at=day(-1),
    )
    assert seller.compared() == {("duplicate_same_plan", "subscription", "s2")}
    (one,) = seller.found().values()
    assert one.policy == "H"


def test_a_deleted_payment_closes_its_finding(seller: SubscriptionShop):
    paid_for_nothing(seller)
    assert seller.compared() == {MISSING}
    seller.delete("payments", "p")
    assert seller.compared(full=False) == set()


def test_a_deleted_subscription_leaves_its_payment_without_one(seller: SubscriptionShop):
    seller.subscribed(at=NOW - HOUR)
    assert seller.compared() == set()
    seller.delete("subscriptions", "s")
    assert seller.compared(full=False) == {MISSING}


def test_a_deleted_subscription_leaves_a_payment_that_names_nothing_else_without_an_order(seller: SubscriptionShop):
    seller.subscription(period=(day(-1), day(29)))
    seller.payment(subscription="s", at=day(-1), period=(day(-1), day(29)))
    assert seller.compared() == set()
    seller.delete("subscriptions", "s")
    assert seller.compared(full=False) == {("payment_without_order", "payment", "p")}


def test_a_payment_that_comes_for_a_subscription_of_nobody_is_compared_with_it(seller: SubscriptionShop):
    seller.subscription(customer=None, period=(day(-10), day(20)))
    unpaid = ("subscription_without_payment", "subscription", "s")
    assert seller.compared() == {unpaid}
    seller.payment(subscription="s", at=day(-1), period=(day(-10), day(20)), customer_id="ann")
    assert seller.compared(full=False) == set()


def test_a_payment_keeps_to_the_subscription_that_it_names_though_another_one_of_its_order_changed(
    seller: SubscriptionShop,
):
    """What was not touched is read as far as it decides whose the payment is."""
    seller.order(at=day(-9), plan=None)
    seller.subscription("s1", customer=None, order="o", period=(day(-9), day(21)), status="cancelled")
    seller.payment(order="o", subscription="s1", at=day(-9), period=(day(-9), day(25)), plan_id="basic")
    assert seller.compared() == set()
    seller.subscription("s2", order="o", period=(day(-3), day(20)), status="past_due", created_at=day(-3))
    assert seller.compared(full=False) == seller.compared() == set()


@pytest.mark.parametrize("order", ["ann's", "nobody's", "gone"])
def test_a_refund_of_what_made_another_one_s_subscription_is_seen_by_a_check_of_what_changed(
    seller: SubscriptionShop, order: str
):
    seller.customer("bob")
    if order != "gone":
        seller.order(at=day(-2), customer={"ann's": "ann", "nobody's": None}[order])
    seller.subscription(customer="bob", order="o", period=(day(-2), day(28)))
    seller.payment(order="o", at=day(-2), period=(day(-2), day(28)), customer_id="ann" if order == "ann's" else None)
    before = seller.compared()
    seller.change("payments", "p", status="refunded", refunded=30)
    assert seller.compared(full=False) - before == {("refunded_but_active", "subscription", "s")}


def test_an_order_that_costs_nothing_any_more_pays_the_subscription_of_nobody(seller: SubscriptionShop):
    seller.order(at=day(-10))
    seller.subscription(customer=None, order="o", period=(day(-10), day(20)))
    assert ("subscription_without_payment", "subscription", "s") in seller.compared()
    seller.change("orders", "o", total=0)
    assert seller.compared(full=False) == set()


def test_the_ledger_settles_a_finding_that_the_shop_does_not_touch(shop: Shop):
    s = SubscriptionShop(shop)
    s.order(plan=None, at=NOW - 2 * HOUR)
    forget_orders(shop)
    assert s.compared() == {("paid_order_without_points", "order", "o")}
    shop.enqueue("o")
    shop.award()
    assert s.compared(full=False) == set()


# What fails and what is missing ----------------------------------------------------------------------------


def break_price_of(shop: Shop, amount: str) -> None:
    """Let the function that knows prices fail at one price."""
    shop.run(
        f"""
        CREATE OR REPLACE FUNCTION loyalty.plan_price(
            plan_amount numeric, discount_amount numeric, points_discount_amount numeric, points_redeemed bigint,
            point_value_amount numeric
        ) RETURNS numeric LANGUAGE plpgsql AS $$
        BEGIN
            IF plan_amount = {amount} THEN RAISE EXCEPTION 'no price for %', plan_amount; END IF;
            RETURN plan_amount - coalesce(discount_amount, 0);
        END $$
        """
    )


@pytest.mark.parametrize("full", [True, False])
def test_a_class_that_fails_is_a_finding_of_its_merchant_and_all_the_others_run(shop: Shop, full: bool):
    sellers = {name: opened(shop, name) for name in ("bad", "good", "other")}
    for s in sellers.values():
        s.subscribed("bob", name="-1", amount=40, at=NOW - 2 * HOUR)
        s.payment("orphan", at=NOW - 2 * HOUR)
    wrong = {("amount_differs", "payment", "p-1"), ("payment_without_order", "payment", "orphan")}
    compared(shop)
    assert open_by_merchant(shop) == dict.fromkeys(sellers, wrong)
    sellers["bad"].change("plans", "basic", price="66.66")
    for s in sellers.values():
        s.change("payments", "p-1", amount=41)
        s.subscription("unpaid", customer="carl", period=(day(-5), day(25)))
    break_price_of(shop, "66.66")
    done = compared(shop, full=full, is_failing=True)
    assert [name for name, one in done.items() if one.failure] == ["bad"]
    wrong.add(("subscription_without_payment", "subscription", "unpaid"))
    is_open = open_by_merchant(shop)
    failed = {one for one in is_open["bad"] if one[0] == "check_failed"}
    assert ("check_failed", "class", "amount_differs") in failed
    # Nothing of the class that failed was closed.
    assert is_open == {"bad": wrong | failed, "good": wrong, "other": wrong}
    break_price_of(shop, "0.01")
    # After a failure, looking at what changed is not enough.
    assert compared(shop, full=False)["bad"].is_full
    assert not [one for one in open_by_merchant(shop)["bad"] if one[0] == "check_failed"]


def without(relation: str) -> str:
    """The mapping of the sample shop without one relation."""
    lines = sample_shop.mapping().yaml_text.splitlines(keepends=True)
    start = lines.index(f"{relation}:\n")
    end = next(i for i in range(start + 1, len(lines)) if lines[i].strip() and not lines[i].startswith((" ", "#")))
    return "".join(lines[:start] + lines[end:])


@pytest.mark.parametrize("relation", ["plans", "subscriptions"])
def test_what_the_mapping_lacks_is_a_finding_and_the_other_classes_run(seller: SubscriptionShop, relation: str):
    paid_for_nothing(seller)
    seller.payment("orphan", at=NOW - 2 * HOUR)
    orphan = ("payment_without_order", "payment", "orphan")
    assert seller.compared() == {MISSING, orphan}
    text_of = without(relation)
    if relation == "subscriptions":
        text_of = text_of[: text_of.index("# The shop lets")] if "# The shop lets" in text_of else text_of
    with seller.shop.engine.begin() as conn:
        sources.apply(conn, parse_mapping(text_of))
    assert seller.compared() == {MISSING, orphan, ("not_checked", "relation", relation)}
    with seller.shop.engine.begin() as conn:
        sources.apply(conn, sample_shop.mapping())
    assert seller.compared() == {MISSING, orphan}


def test_a_withdrawn_mapping_is_an_error_and_closes_nothing(seller: SubscriptionShop):
    paid_for_nothing(seller)
    assert seller.compared() == {MISSING}
    with seller.shop.engine.begin() as conn:
        sources.withdraw(conn)
    for full in (True, False):
        with pytest.raises(MappingWithdrawnError):
            seller.compared(full=full)
    assert open_by_merchant(seller.shop) == {"seller": {MISSING}}


# Data that nobody expects ----------------------------------------------------------------------------------

STRANGE_MONEY = ["NaN", "Infinity", "-Infinity", "-5", "0", "0.004", "1e15", "1e40"]


@pytest.mark.parametrize("full", [True, False])
def test_numbers_that_are_none_hide_nothing(shop: Shop, full: bool):
    sellers = [opened(shop, f"strange-{number}") for number in range(len(STRANGE_MONEY))]
    compared(shop)
    for s, amount in zip(sellers, STRANGE_MONEY, strict=True):
        s.plan("odd", amount)
        s.subscribed("odd", name="-plan", plan="odd")
        s.subscribed("odd-paid", name="-paid", payment={"amount": amount}, order={"total": amount})
        s.subscribed("odd-back", name="-back", payment={"refunded": amount})
        s.subscribed("odd-price", name="-price", subscription={"price": amount})
        s.subscribed("odd-off", name="-off", order={"discount": amount, "points_discount": amount})
        paid_for_nothing(s)
        s.payment("twice-1", amount, order="goods")
        s.payment("twice-2", amount, order="goods")
    compared(shop, full=full)
    for s in sellers:
        assert MISSING in s.found()


STRANGE_TIMES: list[tuple[Any, Any]] = [
    (None, None),
    (None, day(30)),
    (day(-1), None),
    ("-infinity", day(30)),
    (day(-1), "infinity"),
    ("-infinity", "infinity"),
    ("infinity", "infinity"),
    ("-infinity", "-infinity"),
    (day(30), day(-30)),
    (day(-1), day(-1)),
    ("0001-01-01", "294000-01-01"),
]


@pytest.mark.parametrize("full", [True, False])
def test_times_that_are_none_hide_nothing(shop: Shop, full: bool):
    sellers = [opened(shop, f"strange-{number}") for number in range(len(STRANGE_TIMES))]
    compared(shop)
    for s, (start, end) in zip(sellers, STRANGE_TIMES, strict=True):
        for number in "12":
            s.subscription(
                f"s{number}", customer=f"c{number}", period=(start, end), created_at=day(-3), updated_at=day(-3)
            )
            s.payment(f"p{number}-1", subscription=f"s{number}", period=(start, end), at=day(-2))
            s.payment(f"p{number}-2", subscription=f"s{number}", period=(start, end), at=day(-1))
            s.payment(f"p{number}-3", subscription=f"s{number}", period=(day(-1), day(29)), refunded=10)
        s.subscription(
            "s3", customer="eve", period=(start, end), created_at=day(-3), updated_at=day(-3), cancelled_at=start
        )
        s.payment(
            "none", status="captured", subscription="s3", captured_at=None, created_at="infinity", updated_at="infinity"
        )
        s.payment("none-2", status="captured", subscription="s3", captured_at="infinity", created_at="-infinity")
        s.payment("late", status="pending", subscription="s3", created_at="-infinity", updated_at="-infinity")
        for number in "12":
            s.subscription(
                f"twice-{number}", customer="dora", period=(start, end), created_at=day(-3), updated_at=day(-3)
            )
        paid_for_nothing(s)
    compared(shop, full=full)
    for s in sellers:
        assert MISSING in s.found(), s.merchant_id


@pytest.mark.parametrize("full", [True, False])
def test_text_that_is_garbage_hides_nothing(seller: SubscriptionShop, full: bool):
    assert seller.compared() == set()
    garbage = ["", " ", "\U0001f4a9", "'; DROP TABLE x; --", "a" * 5000, "{{7*7}}", "\r\nBcc: x", "\u202e", "\\", "%s"]
    for number, word in enumerate(garbage):
        seller.payment(
            f"w{number}{word[:2000]}",
            order=word,
            subscription=word,
            customer_id=word,
            plan_id=word,
            status=word,
            at=day(-1),
        )
        seller.subscription(
            f"s{number}", customer=word, plan=word, order=word, status=word, currency=word, period=(day(-1), day(29))
        )
        seller.plan(f"plan{number}", interval=word, currency=word)
    paid_for_nothing(seller)
    is_open = seller.compared(full=full)
    assert MISSING in is_open
    assert len([one for one in is_open if one[0] == "status_unknown"]) == 2 * len(garbage)


def test_a_plan_that_the_shop_shows_twice_makes_no_payment_two(engine: Engine, shop: Shop):
    shop.run(
        "CREATE VIEW sample_shop.all_plans AS SELECT * FROM sample_shop.plans UNION ALL SELECT * FROM sample_shop.plans"
    )
    with engine.begin() as conn:
        text_of = sample_shop.mapping().yaml_text.replace(
            "relation: sample_shop.plans", "relation: sample_shop.all_plans"
        )
        sources.apply(conn, parse_mapping(text_of))
    seller = opened(shop, "seller")
    seller.subscribed(at=day(-1))
    seller.subscribed("bob", name="2", at=day(-31), subscription={"period": (day(-1), day(29)), "created_at": day(-31)})
    seller.payment("p3", subscription="s2", at=day(-1), period=(day(-1), day(29)))
    assert seller.compared() == set()
    paid_for_nothing(seller, "-x")
    seller.change("orders", "o-x", customer_id="carl")
    seller.customer("carl")
    assert seller.compared(full=False) == {("paid_without_subscription", "payment", "p-x")}
    assert seller.found()[("paid_without_subscription", "payment", "p-x")].policy == "A"


def test_a_merchant_that_the_shop_does_not_list_is_compared_when_it_changes(shop: Shop):
    compared(shop)
    ghost = SubscriptionShop(shop, "ghost")
    ghost.plan()
    ghost.customer()
    paid_for_nothing(ghost)
    compared(shop, full=False)
    assert open_by_merchant(shop) == {"ghost": {MISSING}}
    ghost.subscription(order="o", period=(NOW - HOUR, day(30)))
    compared(shop, full=False)
    assert open_by_merchant(shop) == {}
    assert shop.value("SELECT count(*) FROM loyalty.subscription_inbox") == 0


def test_rows_of_nobody_in_the_inbox_go(shop: Shop):
    shop.run("INSERT INTO loyalty.subscription_inbox (relation, merchant_id, object_id) VALUES ('payments', '?', '1')")
    compared(shop)
    compared(shop, full=False)
    assert shop.value("SELECT count(*) FROM loyalty.subscription_inbox") == 0
    assert open_by_merchant(shop) == {}


# Several at once -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False])
def test_checks_at_once_leave_what_one_leaves(shop: Shop, full: bool):
    sellers = [opened(shop, f"s{number}") for number in range(4)]
    compared(shop)
    for s in sellers:
        paid_for_nothing(s)
        s.payment("orphan", at=NOW - 2 * HOUR)
    wrong = {MISSING, ("payment_without_order", "payment", "orphan")}
    errors: list[BaseException] = []

    def look() -> None:
        try:
            compared(shop, full=full)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert open_by_merchant(shop) == {s.merchant_id: wrong for s in sellers}
    assert shop.value("SELECT count(*) FROM loyalty.findings WHERE subject = 'subscriptions'") == 8


def test_what_commits_while_a_check_runs_is_found_by_the_next_one(seller: SubscriptionShop):
    seller.compared()
    with seller.shop.engine.connect() as slow:
        slow.execute(
            text(
                "INSERT INTO sample_shop.payments (merchant_id, id, amount, status, captured_at, customer_id, "
                "plan_id, currency) "
                "VALUES ('seller', 'p', 30, 'captured', :at, 'ann', 'basic', 'EUR')"
            ),
            {"at": NOW - HOUR},
        )
        seller.order("other")
        assert seller.compared(full=False) == set()
        slow.commit()
    assert seller.compared(full=False) == {MISSING}


# Other shops -----------------------------------------------------------------------------------------------


def test_polling_finds_what_changed(engine: Engine, shop: Shop):
    with engine.begin() as conn:
        poll = sample_shop.mapping().yaml_text.replace("capture: trigger", "capture: poll")
        sources.apply(conn, parse_mapping(poll))
    seller = opened(shop, "seller")
    assert seller.compared() == set()
    assert seller.compared(full=False) == set()
    seller.order()
    seller.payment(order="o", updated_at="now")
    assert shop.value("SELECT count(*) FROM loyalty.subscription_inbox") == 0
    assert seller.compared(full=False, as_of=NOW + HOUR) == {MISSING}
    seller.subscription(order="o", updated_at="now")
    assert seller.compared(full=False, as_of=NOW + HOUR) == set()


def supabase(engine: Engine) -> tuple[str, str]:
    with engine.begin() as conn:
        create_supabase_shop(conn)
        text_of = mapping_of("supabase_shop").yaml_text
        text_of = text_of.replace(
            "relation: public.payment_transactions\n  columns:\n    merchant_id: vendor_id\n    payment_id: id",
            "relation: public.payment_transactions\n  columns:\n    merchant_id: vendor_id\n    payment_id: id",
        )
        conn.exec_driver_sql(
            "CREATE TABLE public.plans (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), vendor_id uuid, name "
            "text, price numeric);"
            "CREATE TABLE public.subs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), vendor_id uuid, "
            "customer_id uuid, "
            "plan_id uuid, order_id uuid, status text, starts timestamptz, ends timestamptz, cancelled timestamptz, "
            "created_at timestamptz)",
            execution_options={"no_parameters": True},
        )
        text_of += """
subscriptions:
  relation: public.subs
  columns:
    merchant_id: vendor_id
    subscription_id: id
    customer_id: customer_id
    plan_id: plan_id
    order_id: order_id
    status: status
    current_period_start: starts
    current_period_end: ends
    cancelled_at: cancelled
    created_at: created_at
  status:
    trialing: [trialing]
    active: [active]
    past_due: [past_due]
    paused: [paused]
    cancelled: [cancelled]
    expired: [expired]
    incomplete: [incomplete]
plans:
  relation: public.plans
  columns: {merchant_id: vendor_id, plan_id: id, name: name, amount: price}
  defaults: {currency: USD, interval: month}
"""
        sources.apply(conn, parse_mapping(text_of))
        vendor = conn.execute(text("INSERT INTO vendors (store_name) VALUES ('V') RETURNING id::text")).scalar_one()
        customer = conn.execute(
            text("INSERT INTO customers (vendor_id, email) VALUES (:v, 'x@example.test') RETURNING id::text"),
            {"v": vendor},
        ).scalar_one()
    return vendor, customer


def test_refunds_that_are_rows_of_their_own_belong_to_the_payments_of_their_order(engine: Engine):
    vendor, customer = supabase(engine)
    shop = Shop(engine)
    plan = shop.value("SELECT gen_random_uuid()::text")
    shop.run("INSERT INTO plans VALUES (:plan, :v, 'Basic', 30)", plan=plan, v=vendor)

    def order(at: Any, total: int = 30) -> str:
        with engine.begin() as conn:
            return conn.execute(
                text(
                    "INSERT INTO orders (vendor_id, customer_id, total_amount, payment_status, paid_at, updated_at) "
                    "VALUES (:v, :c, :total, 'paid', :at, :at) RETURNING id::text"
                ),
                {"v": vendor, "c": customer, "total": total, "at": at},
            ).scalar_one()

    def money(order_id: str, kind: str, amount: int, at: Any) -> str:
        with engine.begin() as conn:
            return conn.execute(
                text(
                    "INSERT INTO payment_transactions (vendor_id, customer_id, reference_type, reference_id, "
                    "transaction_type, amount, status, created_at) "
                    "VALUES (:v, :c, 'order', :o, :kind, :amount, 'completed', :at) RETURNING id::text"
                ),
                {"v": vendor, "c": customer, "o": order_id, "kind": kind, "amount": amount, "at": at},
            ).scalar_one()

    def subscription(order_id: str, at: Any) -> str:
        with engine.begin() as conn:
            return conn.execute(
                text(
                    "INSERT INTO subs (vendor_id, customer_id, plan_id, order_id, status, starts, ends, created_at) "
                    "VALUES (:v, :c, :p, :o, 'active', :at, :at + interval '1 month', :at) RETURNING id::text"
                ),
                {"v": vendor, "c": customer, "p": plan, "o": order_id, "at": at},
            ).scalar_one()

    first = order(day(-5))
    money(first, "payment", 30, day(-5))
    subscribed = subscription(first, day(-5))
    goods = order(day(-4), 50)
    money(goods, "payment", 50, day(-4))
    second = money(goods, "payment", 50, day(-3))
    compared(shop)
    # Mapped without plans on its orders and payments: what a subscription's order paid is known all the same.
    assert open_by_merchant(shop) == {vendor: {("captured_twice", "payment", second)}}
    money(goods, "refund", 50, day(-2))
    compared(shop, full=False)
    assert open_by_merchant(shop) == {}
    money(first, "refund", 30, day(-2))
    compared(shop, full=True)
    assert open_by_merchant(shop) == {vendor: {("refunded_but_active", "subscription", subscribed)}}


def test_a_refund_is_seen_by_a_check_of_what_changed(engine: Engine):
    vendor, customer = supabase(engine)
    shop = Shop(engine)
    shop.run(
        "INSERT INTO orders (id, vendor_id, customer_id, total_amount, payment_status, paid_at, updated_at) VALUES "
        "('00000000-0000-0000-0000-000000000001', :v, :c, 50, 'paid', :at, :at)",
        v=vendor,
        c=customer,
        at=day(-4),
    )
    for number, kind in enumerate(("payment", "payment")):
        shop.run(
            "INSERT INTO payment_transactions (vendor_id, customer_id, reference_type, reference_id, transaction_type, "
            "amount, status, created_at) VALUES (:v, :c, 'order', '00000000-0000-0000-0000-000000000001', :kind, 50, "
            "'completed', :at)",
            v=vendor,
            c=customer,
            kind=kind,
            at=day(-4 + number),
        )
    compared(shop)
    assert len(open_by_merchant(shop)[vendor]) == 1
    shop.run(
        "INSERT INTO payment_transactions (vendor_id, customer_id, reference_type, reference_id, "
        "transaction_type, amount, "
        "status, created_at) VALUES (:v, :c, 'order', '00000000-0000-0000-0000-000000000001', 'refund', 50, "
        "'completed', :at)",
        v=vendor,
        c=customer,
        at=day(-1),
    )
    compared(shop, full=False)
    assert open_by_merchant(shop) == {}


def test_a_flask_shop_s_paid_order_without_a_subscription_is_found(engine: Engine):
    with engine.begin() as conn:
        create_flask_razorpay_shop(conn)
        sources.apply(conn, mapping_of("flask_razorpay_shop"))
        conn.exec_driver_sql(
            "INSERT INTO \"user\" (email) VALUES ('a@example.test'), ('b@example.test');"
            "INSERT INTO meal_plan (name, price_weekly) VALUES ('Thali', 49900)",
            execution_options={"no_parameters": True},
        )
    shop = Shop(engine)
    compared(shop)
    for user, order_id in ((1, "pay_1"), (2, "pay_2")):
        shop.run(
            'INSERT INTO "order" (user_id, meal_plan_id, payment_id, amount, payment_status, paid_at, created_at, '
            "updated_at) "
            "VALUES (:user, 1, :payment, 49900, 'captured', :at, :at, :at)",
            user=user,
            payment=order_id,
            at=(NOW - HOUR).replace(tzinfo=None),
        )
    shop.run(
        "INSERT INTO subscription (user_id, meal_plan_id, order_id, price, start_date, end_date, created_at) "
        "VALUES (1, 1, 1, 49900, '2025-06-10', '2025-06-17', :at)",
        at=(NOW - HOUR).replace(tzinfo=None),
    )
    compared(shop, full=False)
    assert open_by_merchant(shop) == {"main": {("paid_without_subscription", "payment", "pay_2")}}
    (one,) = found(shop, merchant_id="main").values()
    assert (one.policy, one.amount_at_risk, one.currency) == ("A", 499, "INR")


# Looking at what changed finds what looking at everything finds -----------------------------------------------


Known = dict[str, dict[str, str]]


def random_step(rng: random.Random, s: Sequence[SubscriptionShop], number: int, known: Known) -> str:
    """Change the shop a little, at both merchants alike. `known`: the customer of each order, payment and subscription.

    Rows name rows of the same customer, or none. Where customers are mixed up, the nights find what is left.
    """
    at = day(rng.uniform(-70, 1))
    kind = rng.choice(["order", "payment", "payment", "subscription", "subscription", "change", "change", "delete"])
    table = rng.choice(["payments", "payments", "subscriptions", "orders"])
    # A deleted order is left to the nights: no trigger tells of it.
    if not known[table] or (kind, table) == ("delete", "orders"):
        kind = rng.choice(["order", "payment", "subscription"])
    row = rng.choice(sorted(known[table])) if kind in ("change", "delete") else ""
    customer = known[table][row] if row else rng.choice(["ann", "bob", "cid"])

    def other(relation: str) -> str | None:
        return rng.choice(
            [*(one for one, whose in known[relation].items() if whose == customer), None, f"gone-{customer}"]
        )

    order, subscription = other("orders"), other("subscriptions")
    known_order = None if order == f"gone-{customer}" else order
    plan = rng.choice(["basic", "pro", "seat", None])
    period = rng.choice([None, (at, at + timedelta(days=30)), (day(0), day(30))])
    new = f"x{number}"
    status = {
        "payments": rng.choice(["captured", "captured", "refunded", "failed", "pending", "unknown", "disputed", "odd"]),
        "subscriptions": rng.choice(["active", "active", "trialing", "past_due", "cancelled", "expired", "incomplete"]),
        "orders": rng.choice(["paid", "paid", "refunded", "pending", "cancelled", "odd"]),
    }
    amount = rng.choice([30, 30, 50, 10, 40])
    refunded = rng.choice([0, 0, 0, 10, amount])
    payer = rng.choice([customer, customer if order is None and subscription is None else None])
    changes: dict[str, Any] = {
        "payments": rng.choice(
            [
                {"status": status["payments"]},
                {"refunded": 5},
                {"subscription_id": subscription},
                {"order_id": order},
                {"plan_id": plan},
                {"amount": amount},
            ]
        ),
        "subscriptions": rng.choice(
            [
                {"status": status["subscriptions"]},
                {"cancelled_at": at},
                {"order_id": known_order},
                {"plan_id": plan},
                {"period_start": at, "period_end": at + timedelta(days=30)},
                {"customer_id": None},
            ]
        ),
        "orders": rng.choice(
            [{"status": status["orders"]}, {"plan_id": plan}, {"discount": amount}, {"total": amount}]
        ),
    }.get(table, {})
    for one in s:
        if kind == "order":
            one.order(new, amount, at=at, customer=customer, plan=plan, status=status["orders"])
        elif kind == "payment":
            one.payment(
                new,
                amount,
                at=at,
                order=order,
                subscription=subscription,
                customer_id=payer,
                period=period,
                status=status["payments"],
                refunded=refunded,
            )
        elif kind == "subscription":
            one.subscription(
                new,
                customer=customer,
                plan=plan,
                order=known_order,
                status=status["subscriptions"],
                period=period or (at, at + timedelta(days=30)),
            )
        elif kind == "change":
            one.change(table, row, **changes)
        else:
            one.delete(table, row)
    if kind == "delete":
        del known[table][row]
    elif kind != "change":
        known[f"{kind}s"][new] = customer
    made = (customer, plan, order, subscription, at, period)
    what = f"{table} {row}: {changes}" if kind in ("change", "delete") else f"{new}: {made} {status[kind + 's']}"
    return f"{kind} {what}"


@pytest.mark.parametrize("seed", range(3))
def test_looking_at_what_changed_finds_what_looking_at_everything_finds(shop: Shop, seed: int):
    rng = random.Random(seed)
    pair = [opened(shop, name) for name in ("changes", "everything")]
    for s in pair:
        s.customer("bob")
        s.plan("pro", 50)
        s.plan("seat", 10, allows_multiple=True)
    known: Known = {"orders": {}, "payments": {}, "subscriptions": {}}
    compared(shop)
    done: list[str] = []
    as_of = NOW
    for number in range(24):
        for _ in range(rng.choice([1, 1, 2, 4])):
            done.append(random_step(rng, pair, len(done), known))
        # What only time changes is the nights' to find, but for what was too young.
        is_night = number % 12 == 11
        as_of += timedelta(days=1) if is_night else timedelta(0)
        compared(shop, full=is_night, as_of=as_of, merchants=["changes"])
        compared(shop, full=True, as_of=as_of, merchants=["everything"])
        is_open = open_by_merchant(shop)
        assert is_open.get("changes", set()) == is_open.get("everything", set()), "\n".join([f"seed {seed}", *done])
