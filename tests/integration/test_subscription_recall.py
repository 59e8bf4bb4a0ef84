"""Mismatches hidden among 100,000 clean rows: all of them are found and nothing else; fixed, and taken back byte for byte.

SUBSCRIPTION_SEED chooses other rows.
"""

import os
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, text

from loyalty_pipelines.db import fix_undo, sample_shop, sources
from loyalty_pipelines.db.fix_plans_run import apply_fixes, approve_plans, plan_fixes
from loyalty_pipelines.domain.fix_plans import FixPlan
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.domain.subscriptions import CLASSES
from tests.shop import Shop
from tests.subscription_shop import Found, all_found, compared, open_by_merchant

SEED = int(os.environ.get("SUBSCRIPTION_SEED", "1"))
MERCHANTS = 5
CUSTOMERS = 34_000
EACH = 20
Where = tuple[str, Found]

# One customer is one unit of a kind; age: how many days ago the period that runs began; is_given: whether the shop says it.
CLEAN = """
INSERT INTO sample_shop.merchants (id, name, timezone, currency) SELECT 'm' || i, 'm', 'UTC', 'EUR' FROM generate_series(2, :merchants) i;
INSERT INTO loyalty.programs (merchant_id, version, valid_from, points_per_unit, point_value_amount, created_by)
SELECT id, 1, '2000-01-01', 0, 0.01, 'test' FROM sample_shop.merchants WHERE id <> 'm1' OR NOT EXISTS (SELECT FROM loyalty.programs);
INSERT INTO loyalty.subscription_settings (merchant_id, max_fixes, max_money, changed_by)
SELECT id, 10000, 1000000, 'test' FROM sample_shop.merchants;
INSERT INTO sample_shop.plans (merchant_id, id, name, price, currency, billing_interval, allows_multiple)
SELECT m.id, p.id, p.id, p.price, 'EUR', p.every, p.id = 'seat' FROM sample_shop.merchants m,
    (VALUES ('basic', 30, 'month'), ('pro', 50, 'month'), ('light', 10, 'month'), ('seat', 10, '30 days'),
            ('yearly', 300, 'annual'), ('free', 0, 'month')) AS p (id, price, every);
CREATE TABLE public.units AS
SELECT merchant_id, n, kind, is_given, 'c' || n AS customer_id, at, at + interval '30 days' AS until,
    CASE WHEN is_given THEN at END AS period_start, CASE WHEN is_given THEN at + interval '30 days' END AS period_end
FROM (SELECT n, 'm' || (1 + floor(random() * :merchants)) AS merchant_id, floor(random() * 18)::int AS kind,
             random() < 0.5 AS is_given, now() - interval '4 days' - random() * interval '22 days' AS at
      FROM generate_series(1, :customers) n) t;
INSERT INTO sample_shop.customers (merchant_id, id, created_at) SELECT merchant_id, customer_id, at - interval '2 years' FROM units;
-- 0, 16, 17 plain; 1 renewed by id; 2 renewed by an order of its own; 6 cancelled; 7 refunded and ended; 9 a discount; 10 points;
-- 12 in dunning; 13 renewal is late; 15 cancelled for the end of the period.
INSERT INTO sample_shop.orders
    (merchant_id, id, customer_id, total, currency, status, plan_id, discount, points_redeemed, points_discount, paid_at, created_at, updated_at)
SELECT merchant_id, 'o' || n, customer_id,
    CASE kind WHEN 9 THEN 25 WHEN 10 THEN 28 WHEN 5 THEN 300 ELSE 30 END, 'EUR', CASE kind WHEN 7 THEN 'refunded' ELSE 'paid' END,
    CASE kind WHEN 5 THEN 'yearly' ELSE 'basic' END, CASE kind WHEN 9 THEN 5 ELSE 0 END, CASE kind WHEN 10 THEN 200 ELSE 0 END,
    CASE WHEN kind = 10 AND is_given THEN 2 END, began, began, began
FROM (SELECT *, at - CASE kind WHEN 1 THEN interval '60 days' WHEN 2 THEN interval '30 days' WHEN 5 THEN interval '100 days'
          ELSE interval '0' END AS began FROM units WHERE kind NOT IN (3, 4, 8, 11, 12, 13)) u;
INSERT INTO sample_shop.payments
    (merchant_id, id, order_id, customer_id, amount, refunded, currency, status, captured_at, period_start, period_end, created_at, updated_at)
SELECT u.merchant_id, 'p' || n, 'o' || n, CASE WHEN is_given THEN u.customer_id END, o.total, CASE kind WHEN 7 THEN o.total ELSE 0 END,
    'EUR', CASE kind WHEN 7 THEN 'refunded' ELSE 'captured' END, o.paid_at, CASE WHEN is_given THEN o.paid_at END,
    CASE WHEN is_given THEN o.paid_at + CASE kind WHEN 5 THEN interval '1 year' ELSE interval '30 days' END END, o.paid_at, o.paid_at
FROM units u JOIN sample_shop.orders o ON o.merchant_id = u.merchant_id AND o.id = 'o' || n;
INSERT INTO sample_shop.subscriptions
    (merchant_id, id, customer_id, plan_id, order_id, status, price, currency, period_start, period_end, cancelled_at, created_at, updated_at)
SELECT u.merchant_id, 's' || n, u.customer_id, o.plan_id, o.id, CASE WHEN kind IN (6, 7) THEN 'cancelled' ELSE 'active' END,
    CASE WHEN is_given AND kind NOT IN (9, 10) THEN o.total END, 'EUR', CASE kind WHEN 5 THEN o.paid_at ELSE at END,
    CASE kind WHEN 5 THEN o.paid_at + interval '1 year' ELSE until END,
    CASE WHEN kind IN (6, 7, 15) THEN at + interval '2 days' END, o.paid_at, o.paid_at
FROM units u JOIN sample_shop.orders o ON o.merchant_id = u.merchant_id AND o.id = 'o' || n;
INSERT INTO sample_shop.payments
    (merchant_id, id, subscription_id, amount, currency, status, captured_at, period_start, period_end, created_at, updated_at)
SELECT merchant_id, 'p' || n || '-' || r, 's' || n, 30, 'EUR', 'captured', began, CASE WHEN is_given THEN began END,
    CASE WHEN is_given THEN began + interval '30 days' END, began, began
FROM (SELECT *, at - r * interval '30 days' AS began FROM units, generate_series(0, 1) r WHERE kind = 1) u;
INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, plan_id, paid_at, created_at, updated_at)
SELECT merchant_id, 'o' || n || '-2', customer_id, 30, 'EUR', 'paid', 'basic', at, at, at FROM units WHERE kind = 2;
INSERT INTO sample_shop.payments (merchant_id, id, order_id, amount, currency, status, captured_at, created_at, updated_at)
SELECT merchant_id, 'p' || n || '-2', 'o' || n || '-2', 30, 'EUR', 'captured', at, at, at FROM units WHERE kind = 2;
-- 3 trials and free plans, 4 complimentary.
INSERT INTO sample_shop.subscriptions
    (merchant_id, id, customer_id, plan_id, status, currency, period_start, period_end, is_complimentary, created_at, updated_at)
SELECT merchant_id, 's' || n, customer_id, CASE WHEN kind = 3 AND is_given THEN 'free' ELSE 'pro' END,
    CASE WHEN kind = 3 AND NOT is_given THEN 'trialing' ELSE 'active' END, 'EUR', at, until, kind = 4, at, at
FROM units WHERE kind IN (3, 4);
-- 8 two seats, each by its order; 14 an upgrade.
INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, plan_id, paid_at, created_at, updated_at)
SELECT merchant_id, 'o' || n || '-' || r, customer_id, 10, 'EUR', 'paid', 'seat', at, at, at FROM units, generate_series(3, 4) r WHERE kind = 8
UNION ALL SELECT merchant_id, 'o' || n || '-pro', customer_id, 50, 'EUR', 'paid', 'pro', up, up, up
FROM (SELECT *, at + interval '2 days' AS up FROM units WHERE kind = 14) u;
INSERT INTO sample_shop.payments (merchant_id, id, order_id, amount, currency, status, captured_at, created_at, updated_at)
SELECT merchant_id, 'p' || substr(id, 2), id, total, 'EUR', 'captured', paid_at, paid_at, paid_at FROM sample_shop.orders
WHERE plan_id IN ('seat', 'pro');
INSERT INTO sample_shop.subscriptions
    (merchant_id, id, customer_id, plan_id, order_id, status, price, currency, period_start, period_end, created_at, updated_at)
SELECT merchant_id, 's' || substr(id, 2), customer_id, plan_id, id, 'active', total, 'EUR', paid_at, paid_at + interval '30 days', paid_at, paid_at
FROM sample_shop.orders WHERE plan_id IN ('seat', 'pro');
-- 11 goods, of guests where nothing is given; sometimes in two parts.
INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at, created_at, updated_at)
SELECT merchant_id, 'o' || n, CASE WHEN is_given THEN customer_id END, 70, 'EUR', 'paid', at, at, at FROM units WHERE kind = 11;
INSERT INTO sample_shop.payments (merchant_id, id, order_id, amount, currency, status, captured_at, created_at, updated_at)
SELECT merchant_id, 'p' || n || '-' || r, 'o' || n, CASE WHEN n % 3 > 0 THEN 70 ELSE 35 END, 'EUR',
    CASE WHEN r = 1 OR n % 3 = 0 THEN 'captured' ELSE 'failed' END, at, at, at FROM units, generate_series(1, 2) r WHERE kind = 11;
-- 12 dunned for five days, 13 late by one.
INSERT INTO sample_shop.subscriptions
    (merchant_id, id, customer_id, plan_id, status, currency, period_start, period_end, created_at, updated_at)
SELECT merchant_id, 's' || n, customer_id, 'basic', CASE kind WHEN 12 THEN 'past_due' ELSE 'active' END, 'EUR', began, began + interval '30 days', began, began
FROM (SELECT *, now() - interval '30 days' - CASE kind WHEN 12 THEN interval '5 days' ELSE interval '1 day' END AS began FROM units WHERE kind IN (12, 13)) u;
INSERT INTO sample_shop.payments
    (merchant_id, id, subscription_id, amount, currency, status, captured_at, period_start, period_end, created_at, updated_at)
SELECT u.merchant_id, 'p' || n, s.id, 30, 'EUR', 'captured', s.period_start, s.period_start, s.period_end, s.period_start, s.period_start
FROM units u JOIN sample_shop.subscriptions s ON s.merchant_id = u.merchant_id AND s.id = 's' || n WHERE kind IN (12, 13);
ANALYZE
"""
INSERT_PAYMENT = (
    "INSERT INTO sample_shop.payments (merchant_id, id, order_id, subscription_id, customer_id, amount, currency, status, "
    "captured_at, period_start, period_end, created_at, updated_at) SELECT merchant_id, "
)
INSERT_SUBSCRIPTION = (
    "INSERT INTO sample_shop.subscriptions (merchant_id, id, customer_id, plan_id, order_id, status, currency, period_start, "
    "period_end, created_at, updated_at) SELECT merchant_id, "
)
SUBSCRIPTION = "WHERE (merchant_id, id) IN (SELECT merchant_id, 's' || n FROM chosen)"
PAYMENT = "WHERE (merchant_id, id) IN (SELECT merchant_id, 'p' || n FROM chosen)"
ORDER = "WHERE (merchant_id, id) IN (SELECT merchant_id, 'o' || n FROM chosen)"


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """How a clean unit of a kind is spoilt, and what is found then: the object is the prefix and the unit's number."""

    class_name: str
    object_type: str
    prefix: str
    statements: tuple[str, ...]
    kind: int = 0


MISMATCHES = (
    Mismatch(
        class_name="paid_without_subscription",
        object_type="payment",
        prefix="p",
        statements=(f"DELETE FROM sample_shop.subscriptions {SUBSCRIPTION}",),
    ),
    Mismatch(
        class_name="subscription_without_payment",
        object_type="subscription",
        prefix="s",
        statements=(f"DELETE FROM sample_shop.payments {PAYMENT}",),
    ),
    Mismatch(
        class_name="duplicate_same_plan",
        object_type="subscription",
        prefix="twice-",
        statements=(
            INSERT_SUBSCRIPTION + "'twice-' || n, customer_id, 'basic', 'o' || n, 'active', 'EUR', now() - interval '1 day', "
            "now() + interval '29 days', now() - interval '1 day', now() FROM chosen",
        ),
    ),
    Mismatch(
        class_name="duplicate_other_plan",
        object_type="subscription",
        prefix="other-",
        statements=(
            INSERT_SUBSCRIPTION + "'other-' || n, customer_id, 'light', NULL, 'active', 'EUR', now() - interval '1 day', "
            "now() + interval '29 days', now() - interval '1 day', now() FROM chosen",
            INSERT_PAYMENT + "'other-p' || n, NULL, 'other-' || n, NULL, 10, 'EUR', 'captured', now() - interval '1 day', "
            "now() - interval '1 day', now() + interval '29 days', now() - interval '1 day', now() FROM chosen",
        ),
    ),
    Mismatch(
        class_name="captured_twice",
        object_type="payment",
        prefix="again-",
        statements=(
            INSERT_PAYMENT + "'again-' || n, 'o' || n, NULL, NULL, 30, 'EUR', 'captured', at + interval '1 hour', "
            "period_start, period_end, at, at FROM chosen",
        ),
    ),
    Mismatch(
        class_name="overlapping_periods",
        object_type="payment",
        prefix="over-",
        statements=(
            f"UPDATE sample_shop.payments SET period_start = captured_at, period_end = captured_at + interval '30 days' {PAYMENT}",
            f"UPDATE sample_shop.subscriptions SET period_end = period_end + interval '25 days' {SUBSCRIPTION}",
            INSERT_PAYMENT + "'over-' || n, NULL, 's' || n, NULL, 30, 'EUR', 'captured', at + interval '1 hour', "
            "at + interval '25 days', at + interval '55 days', at, at FROM chosen",
        ),
    ),
    Mismatch(
        class_name="amount_differs",
        object_type="payment",
        prefix="p",
        statements=(f"UPDATE sample_shop.payments SET amount = amount + 10 {PAYMENT}",),
    ),
    Mismatch(
        class_name="currency_differs",
        object_type="payment",
        prefix="p",
        statements=(f"UPDATE sample_shop.payments SET currency = 'USD' {PAYMENT}",),
    ),
    Mismatch(
        class_name="charged_after_cancel",
        object_type="payment",
        prefix="p",
        statements=(
            "UPDATE sample_shop.subscriptions SET status = 'cancelled', cancelled_at = period_start - interval '1 day' "
            f"{SUBSCRIPTION}",
        ),
    ),
    Mismatch(
        class_name="refunded_but_active",
        object_type="subscription",
        prefix="s",
        statements=(f"UPDATE sample_shop.payments SET status = 'refunded', refunded = amount {PAYMENT}",),
    ),
    Mismatch(
        class_name="partly_refunded",
        object_type="payment",
        prefix="p",
        statements=(f"UPDATE sample_shop.payments SET refunded = 10 {PAYMENT}",),
    ),
    Mismatch(
        class_name="disputed_but_active",
        object_type="subscription",
        prefix="s",
        statements=(f"UPDATE sample_shop.payments SET status = 'disputed' {PAYMENT}",),
    ),
    Mismatch(
        class_name="period_gap",
        object_type="subscription",
        prefix="s",
        statements=(f"UPDATE sample_shop.subscriptions SET period_end = period_end - interval '9 days' {SUBSCRIPTION}",),
    ),
    Mismatch(
        class_name="payment_without_order",
        object_type="payment",
        prefix="orphan-",
        statements=(
            INSERT_PAYMENT + "'orphan-' || n, NULL, NULL, customer_id, 30, 'EUR', 'captured', at, NULL, NULL, at, at "
            "FROM chosen",
        ),
    ),
    Mismatch(
        class_name="payment_without_customer",
        object_type="payment",
        prefix="p",
        statements=(
            "DELETE FROM sample_shop.customers WHERE (merchant_id, id) IN (SELECT merchant_id, customer_id FROM chosen)",
        ),
    ),
    Mismatch(
        class_name="pending_too_long",
        object_type="payment",
        prefix="pending-",
        kind=11,
        statements=(
            "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, created_at, updated_at) "
            "SELECT merchant_id, 'pending-' || n, customer_id, 70, 'EUR', 'pending', at, at FROM chosen",
            INSERT_PAYMENT + "'pending-' || n, 'pending-' || n, NULL, NULL, 70, 'EUR', 'pending', NULL, NULL, NULL, "
            "now() - interval '2 hours', at FROM chosen",
        ),
    ),
    Mismatch(
        class_name="status_unknown",
        object_type="payment",
        prefix="p",
        statements=(f"UPDATE sample_shop.payments SET status = 'kaputt' {PAYMENT}",),
    ),
    Mismatch(
        class_name="redeemed_value_differs",
        object_type="order",
        prefix="o",
        kind=11,
        statements=(f"UPDATE sample_shop.orders SET points_redeemed = 200, points_discount = 5 {ORDER}",),
    ),
    Mismatch(class_name="paid_order_without_points", object_type="order", prefix="earning-", statements=()),
    Mismatch(class_name="points_without_paid_order", object_type="order", prefix="points-", statements=()),
)


def script(conn: Connection, statements: str, **values: int) -> None:
    for statement in statements.split(";\n"):
        bound = {name: value for name, value in values.items() if f":{name}" in statement}
        conn.execute(text(statement), bound)


def make_clean(shop: Shop) -> None:
    """Write the clean shop, and one merchant whose orders earn points."""
    with shop.engine.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("SELECT setseed(:seed)"), {"seed": (SEED % 1000) / 1000})
        conn.execute(text("DELETE FROM loyalty.programs"))
        script(conn, CLEAN, merchants=MERCHANTS, customers=CUSTOMERS)
    shop.run("INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('points', 'p', 'UTC', 'EUR')")
    shop.program("points", points_per_unit=1)
    shop.run(
        "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at, created_at, updated_at) "
        "SELECT 'points', 'points-' || n, 'c' || n % 100, 20, 'EUR', 'paid', t, t, t "
        "FROM generate_series(1, 1000) n, (SELECT now() - interval '3 hours' AS t) AS times"
    )
    shop.award(batch_size=5000)


def hide(shop: Shop) -> set[Where]:
    """Spoil units of the clean shop, each for one class; return what has to be found."""
    expected: set[Where] = set()
    with shop.engine.begin() as conn:
        conn.execute(text("SELECT setseed(:seed)"), {"seed": (SEED % 1000) / 1000})
        conn.execute(text("CREATE TEMPORARY TABLE spoilt (n integer)"))
        for one in MISMATCHES:
            if not one.statements:
                continue
            conn.execute(text("DROP TABLE IF EXISTS chosen"))
            conn.execute(
                text(
                    "CREATE TEMPORARY TABLE chosen AS SELECT * FROM public.units WHERE kind = CAST(:kind AS integer) "
                    "AND (kind <> 11 OR is_given) AND n NOT IN (SELECT n FROM spoilt) ORDER BY random() LIMIT :each"
                ),
                {"kind": one.kind, "each": EACH},
            )
            conn.execute(text("INSERT INTO spoilt SELECT n FROM chosen"))
            for statement in one.statements:
                conn.execute(text(statement))
            expected |= {
                (row.merchant_id, (one.class_name, one.object_type, f"{one.prefix}{row.n}"))
                for row in conn.execute(text("SELECT merchant_id, n FROM chosen"))
            }
        conn.execute(
            text(
                "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at, created_at, "
                "updated_at) SELECT 'points', 'earning-' || n, 'c1', 20, 'EUR', 'paid', t, t, t "
                "FROM generate_series(1, :each) n, (SELECT now() - interval '3 hours' AS t) AS times"
            ),
            {"each": EACH},
        )
        conn.execute(
            text(
                "UPDATE sample_shop.orders SET status = 'cancelled', updated_at = now() - interval '2 hours' "
                "WHERE merchant_id = 'points' AND id IN (SELECT 'points-' || n FROM generate_series(1, :each) n)"
            ),
            {"each": EACH},
        )
        conn.execute(text("DELETE FROM loyalty.order_inbox"))
    for class_name, prefix in (("paid_order_without_points", "earning-"), ("points_without_paid_order", "points-")):
        expected |= {("points", (class_name, "order", f"{prefix}{n}")) for n in range(1, EACH + 1)}
    return expected


def is_open(shop: Shop) -> set[Where]:
    return {(merchant_id, one) for merchant_id, found in open_by_merchant(shop).items() for one in found}


def fingerprint(shop: Shop) -> list[tuple[str, str]]:
    """Return what all rows of the shop are, byte for byte, but for those whose fate the provider told."""
    return [
        (table, shop.value(f"SELECT md5(string_agg(t::text, ',' ORDER BY merchant_id, id)) FROM sample_shop.{table} t {where}"))
        for table, where in (
            ("orders", ""),
            ("subscriptions", ""),
            ("payments", "WHERE id NOT LIKE 'pending-%'"),
            ("customers", ""),
        )
    ]


BILLING = """
CREATE SCHEMA billing;
CREATE FUNCTION billing.refund(plan jsonb) RETURNS text LANGUAGE sql AS $$
    UPDATE sample_shop.payments SET refunded = (plan #>> '{after,refunded_amount}')::numeric
    WHERE merchant_id = plan ->> 'merchant_id' AND id = plan ->> 'target_id' RETURNING id
$$;
CREATE FUNCTION billing.ask(plan jsonb) RETURNS text LANGUAGE sql AS $$
    UPDATE sample_shop.payments SET status = 'failed'
    WHERE merchant_id = plan ->> 'merchant_id' AND id = plan ->> 'target_id' RETURNING id
$$;
GRANT USAGE ON SCHEMA billing TO loyalty_pipeline;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO loyalty_pipeline
"""


def allow_all_fixes(shop: Shop) -> None:
    with shop.engine.begin() as conn:
        conn.exec_driver_sql(BILLING, execution_options={"no_parameters": True})
        more = "  refund_payment: {function: billing.refund}\n  ask_payment: {function: billing.ask}\n"
        yaml_text = sample_shop.mapping().yaml_text
        sources.apply(conn, parse_mapping(yaml_text.rstrip("\n") + "\n" + more))


def apply_all(shop: Shop) -> None:
    for _ in range(3):
        for done in apply_fixes(shop.engine, is_dry_run=False, actor="test"):
            assert (done.failure, done.stopped_by) == (None, None)
    shop.award()
    compared(shop, full=False, as_of=None)


@pytest.mark.timeout(120)
def test_what_is_hidden_among_clean_rows_is_found_fixed_and_taken_back(shop: Shop):
    allow_all_fixes(shop)
    make_clean(shop)
    size = sum(shop.value(f"SELECT count(*) FROM sample_shop.{name}") for name in ("orders", "payments", "subscriptions"))
    assert size >= 100_000
    compared(shop, as_of=None)
    assert is_open(shop) == set(), f"seed {SEED}"

    expected = hide(shop)
    assert {found[0] for _, found in expected} == {one.code for one in CLASSES}
    compared(shop, full=False, as_of=None)
    assert is_open(shop) == expected, f"seed {SEED}: what changed"
    compared(shop, as_of=None)
    assert is_open(shop) == expected, f"seed {SEED}: everything"

    before = fingerprint(shop)
    policies = {(one.merchant_id, (one.class_name, one.object_type, one.object_id)): one.policy for one in all_found(shop)}
    planned = [one for one in plan_fixes(shop.engine, actor="test") if isinstance(one, FixPlan)]
    chosen = [one for number, one in enumerate(one for one in planned if one.policy == "P") if number % 2]
    approve_plans(shop.engine, [one.plan_id for one in chosen], actor="test")
    apply_all(shop)
    approved = {(one.merchant_id, (one.class_name, one.object_type, one.object_id)) for one in chosen}
    left = {one for one in expected if policies[one] == "H" or (policies[one] == "P" and one not in approved)}
    assert is_open(shop) == left, f"seed {SEED}: after fixing"
    compared(shop, as_of=None)
    assert is_open(shop) == left, f"seed {SEED}: after fixing, everything"
    assert fingerprint(shop) != before

    applied = shop.rows(
        "SELECT plan_id FROM loyalty.fix_plans WHERE status = 'applied' AND inverse IS NOT NULL ORDER BY applied_at DESC, plan_id DESC"
    )
    with shop.engine.begin() as conn:
        mapping = sources.require_mapping(conn)
        for row in applied:
            fix_undo.undo(conn, mapping, row.plan_id, actor="test")
    assert len(applied) >= 2 * EACH
    assert fingerprint(shop) == before, f"seed {SEED}: after undoing"
    compared(shop, full=False, as_of=None)
    settled = {one for one in expected if one[1][0] in ("pending_too_long", "paid_order_without_points", "points_without_paid_order")}
    assert is_open(shop) == expected - settled, f"seed {SEED}: after undoing"
