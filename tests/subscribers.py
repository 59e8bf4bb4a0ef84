"""A shop that sells subscriptions, in the words of a test: payments, subscriptions, findings and what fixes them."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from loyalty_pipelines.db import findings, fix_plans, sample_shop, sources
from loyalty_pipelines.db.fix_plans_run import apply_fixes, approve_plans, plan_fixes, undo_plan
from loyalty_pipelines.db.subscriptions_run import check
from loyalty_pipelines.domain.fix_plans import FixPlan, MerchantFixes, PlanRefusal
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.domain.subscriptions import SUBJECT
from tests.shop import Shop

TABLES = ("merchants", "customers", "orders", "refunds", "plans", "subscriptions", "payments")
LEDGER = ("fix_plans", "findings", "subscription_inbox", "order_inbox", "subscription_settings")


class Subscribers(Shop):
    """The sample shop with plan 'gold' (10 EUR a month) at each merchant."""

    def seller(self, merchant: str = "m1", **program: Any) -> None:
        """Add a merchant that sells the plan, and whose orders earn nothing yet."""
        self.merchant(merchant, **{"valid_from": "2999-01-01T00:00:00Z", **program})
        self.run(
            "INSERT INTO sample_shop.plans (merchant_id, id, name, price, currency)"
            " VALUES (:m, 'gold', 'Gold', 10, 'EUR')",
            m=merchant,
        )

    def customer(self, customer: str, merchant: str = "m1") -> None:
        """Add a customer, once."""
        self.run(
            "INSERT INTO sample_shop.customers (merchant_id, id) VALUES (:m, :c) ON CONFLICT DO NOTHING",
            m=merchant,
            c=customer,
        )

    def bought(
        self,
        number: str,
        *,
        merchant: str = "m1",
        customer: str | None = None,
        days_ago: float = 2,
        lasts: str = "30 days",
        **columns: Any,
    ) -> None:
        """An order for the plan, and a captured payment of it: both are called `number`."""
        customer = customer or f"c{number}"
        self.run(
            "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at,"
            " updated_at, plan_id) VALUES (:m, :n, :c, 10, 'EUR', 'paid', now() - CAST(:ago AS interval),"
            " now() - CAST(:ago AS interval), 'gold')",
            m=merchant,
            n=number,
            c=customer,
            ago=f"{days_ago} days",
        )
        self.payment(
            number, merchant=merchant, customer=customer, order_id=number, days_ago=days_ago, lasts=lasts, **columns
        )

    def payment(
        self,
        number: str,
        *,
        merchant: str = "m1",
        customer: str | None = None,
        days_ago: float = 2,
        lasts: str = "30 days",
        **columns: Any,
    ) -> None:
        """A captured payment of 10 EUR for a period that began when it was captured."""
        self.customer(customer or f"c{number}", merchant)
        values: dict[str, Any] = {
            "merchant_id": merchant,
            "id": number,
            "customer_id": customer or f"c{number}",
            "plan_id": "gold",
            "amount": 10,
            "currency": "EUR",
            "status": "captured",
            **columns,
        }
        times = "now() - CAST(:ago AS interval)"
        self.run(
            f"INSERT INTO sample_shop.payments ({', '.join(values)}, captured_at, created_at, updated_at, period_start,"
            f" period_end) VALUES ({', '.join(f':{name}' for name in values)}, {times}, {times}, {times}, {times},"
            f" {times} + CAST(:lasts AS interval))",
            **values,
            ago=f"{days_ago} days",
            lasts=lasts,
        )

    def subscription(
        self,
        number: str,
        *,
        merchant: str = "m1",
        customer: str | None = None,
        days_ago: float = 2,
        lasts: str = "30 days",
        **columns: Any,
    ) -> None:
        """An active subscription whose period began some days ago."""
        self.customer(customer or f"c{number}", merchant)
        values: dict[str, Any] = {
            "merchant_id": merchant,
            "id": number,
            "customer_id": customer or f"c{number}",
            "plan_id": "gold",
            "price": 10,
            "currency": "EUR",
            "status": "active",
            **columns,
        }
        times = "now() - CAST(:ago AS interval)"
        self.run(
            f"INSERT INTO sample_shop.subscriptions ({', '.join(values)}, created_at, updated_at, period_start,"
            f" period_end) VALUES ({', '.join(f':{name}' for name in values)}, {times}, {times}, {times},"
            f" {times} + CAST(:lasts AS interval))",
            **values,
            ago=f"{days_ago} days",
            lasts=lasts,
        )

    def remap(self, fixes: str, *, old: str = "  update_subscription: write\n") -> None:
        """Add to, or replace in, the mapping's section `fixes`."""
        found = sample_shop.mapping().yaml_text
        if fixes == BILLING:
            old = WRITES
        assert old in found
        with self.engine.begin() as conn:
            conn.exec_driver_sql(BILLING_FUNCTIONS, execution_options={"no_parameters": True})
            sources.apply(conn, parse_mapping(found.replace(old, fixes)))

    def check(self, *, is_full: bool = True) -> list[tuple[str, str]]:
        """Compare; return class and object of each open finding."""
        for one in check(self.engine, is_full=is_full):
            assert one.failure is None
        return self.open()

    def open(self) -> list[tuple[str, str]]:
        """Return class and object of each open finding."""
        with self.engine.connect() as conn:
            found = findings.findings(conn, subject=SUBJECT, limit=100_000)
        return sorted((one.class_name, one.object_id) for one in found)

    def plan(self, **options: Any) -> Sequence[FixPlan | PlanRefusal]:
        """Plan what is open."""
        return plan_fixes(self.engine, actor="planner", **options)

    def one_plan(self) -> FixPlan:
        """Plan what is open: one plan."""
        (found,) = [one for one in self.plan() if isinstance(one, FixPlan)]
        return found

    def approve(self, *plan_ids: int) -> None:
        """A person approves."""
        approve_plans(self.engine, plan_ids, actor="kim")

    def apply(self, *, is_dry_run: bool = False, **options: Any) -> MerchantFixes:
        """Apply at the one merchant that there is."""
        (done,) = self.apply_all(is_dry_run=is_dry_run, **options)
        assert done.failure is None
        return done

    def apply_all(self, *, is_dry_run: bool = False, **options: Any) -> list[MerchantFixes]:
        """Apply everywhere."""
        return list(apply_fixes(self.engine, is_dry_run=is_dry_run, actor="robot", **options))

    def undo(self, plan_id: int) -> FixPlan:
        """A person takes it back."""
        return undo_plan(self.engine, plan_id, actor="lou")

    def saved(self, plan_id: int) -> FixPlan:
        """Return a plan as it is kept."""
        with self.engine.connect() as conn:
            return fix_plans.plan_of(conn, plan_id)

    def contents(self, *, is_ledger_too: bool = False) -> dict[str, list[str]]:
        """Return every row of the shop's tables as its text."""
        tables = [f"sample_shop.{name}" for name in TABLES]
        tables += [f"loyalty.{name}" for name in LEDGER] if is_ledger_too else []
        return {
            name: [row[0] for row in self.rows(f"SELECT CAST(t AS text) FROM {name} AS t ORDER BY 1")]
            for name in tables
        }

    def sold(self, merchant: str = "m1") -> list[tuple[str | None, str]]:
        """Return order and status of each subscription."""
        rows = self.rows(
            "SELECT order_id, status FROM sample_shop.subscriptions WHERE merchant_id = :m ORDER BY 1, 2", m=merchant
        )
        return [(row.order_id, row.status) for row in rows]


def outcomes(done: MerchantFixes) -> list[str]:
    """Return what became of each plan."""
    return [one.outcome for one in done.outcomes]


def euros(amount: str | int) -> dict[str, Decimal]:
    """Return money as runs tell it."""
    return {"EUR": Decimal(amount)}


# The shop's own functions, and what they were told.
WRITES = "  create_subscription: write\n  update_subscription: write\n"
BILLING = """\
  create_subscription: {function: billing.create_subscription}
  update_subscription: {function: billing.update_subscription}
  refund_payment: {function: billing.refund_payment}
  ask_payment: {function: billing.ask_payment}
"""
BILLING_FUNCTIONS = r"""
CREATE SCHEMA IF NOT EXISTS billing;
CREATE TABLE IF NOT EXISTS billing.calls (id bigint GENERATED ALWAYS AS IDENTITY, plan jsonb);
CREATE OR REPLACE FUNCTION billing.create_subscription(plan jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing.calls (plan) VALUES ($1);
    IF plan ->> 'order_id' = 'bad' THEN
        RAISE EXCEPTION 'no bad ones';
    END IF;
    IF (plan ->> 'is_undo')::boolean THEN
        DELETE FROM sample_shop.subscriptions WHERE id = plan ->> 'target_id';
        RETURN NULL;
    END IF;
    INSERT INTO sample_shop.subscriptions
        (merchant_id, id, customer_id, plan_id, order_id, status, price, currency, period_start, period_end)
    VALUES (plan ->> 'merchant_id', 'made-' || (plan ->> 'order_id'), plan ->> 'customer_id', plan ->> 'plan_id',
        plan ->> 'order_id', plan #>> '{after,status}', (plan #>> '{after,amount}')::numeric, plan ->> 'currency',
        (plan #>> '{after,current_period_start}')::timestamptz, (plan #>> '{after,current_period_end}')::timestamptz);
    RETURN 'made-' || (plan ->> 'order_id');
END $$;
CREATE OR REPLACE FUNCTION billing.update_subscription(plan jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing.calls (plan) VALUES ($1);
    UPDATE sample_shop.subscriptions SET status = plan #>> '{after,status}',
        cancelled_at = (plan #>> '{after,cancelled_at}')::timestamptz WHERE id = plan ->> 'subscription_id';
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION billing.refund_payment(plan jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing.calls (plan) VALUES ($1);
    UPDATE sample_shop.payments SET refunded = (plan #>> '{after,refunded_amount}')::numeric
    WHERE id = plan ->> 'payment_id';
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION billing.ask_payment(plan jsonb) RETURNS text LANGUAGE sql AS $$
    INSERT INTO billing.calls (plan) VALUES ($1) RETURNING NULL
$$;
GRANT USAGE ON SCHEMA billing TO loyalty_pipeline;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO loyalty_pipeline;
"""
