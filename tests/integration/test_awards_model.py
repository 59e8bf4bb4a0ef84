"""Random histories of orders against a small model that decides alone what each account has.

LOYALTY_HYPOTHESIS_EXAMPLES sets the number of histories (80): a few thousand find what so few only may.
"""

import os
import uuid
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from loyalty_pipelines.db.drain import DrainOptions, drain
from tests.shop import LONG_AGO, Shop

EXAMPLES = int(os.environ.get("LOYALTY_HYPOTHESIS_EXAMPLES", "80"))
STEPS = 25
AMOUNTS = [Decimal(text) for text in ("19.99", "250", "7", "80", "0.99", "0", "0.004", "1", "1000000000000")]
RATES = [Decimal(text) for text in ("1", "1.5", "0.002", "0")]
CUSTOMERS = ["ann", "bob", None]
THEN = [1000, 1, 3, 0]  # the size of the batches in which a change is awarded at once, 0 for later
STATUSES = ["paid", "cancelled", "pending", "refunded", "partially_refunded"]
MOST_POINTS = 2_000_000_000
MOST_AMOUNT = 10**12
Key = tuple[str, str]  # an order and a customer who has or had points of it


@dataclass(frozen=True, kw_only=True)
class Order:
    """An order as the shop has it."""

    customer: str | None
    total: Decimal
    status: str


@dataclass(kw_only=True)
class Share:
    """What an account has of an order: points in force, of these waived ones, and of these expired ones."""

    in_force: int = 0
    waived: int = 0
    gone: int = 0


class Model:
    """What the ledger has to show, by the words of the design."""

    def __init__(self, *, is_debt_allowed: bool) -> None:
        self.is_debt_allowed = is_debt_allowed
        self.rate = RATES[0]
        self.orders: dict[str, Order] = {}
        self.refunded: dict[str, Decimal] = defaultdict(Decimal)
        self.inbox: list[tuple[str, int, str]] = []
        self.balances: dict[str, int] = defaultdict(int)
        self.shares: dict[Key, Share] = {}
        self.queued: dict[str, str] = {}

    def note(self, order_id: str, *customers: str | None) -> None:
        for customer in {name or "" for name in customers}:
            self.inbox.append((customer, len(self.inbox), order_id))

    def award(self, batch_size: int) -> None:
        rows, self.inbox = sorted(self.inbox), []
        for start in range(0, len(rows), batch_size):
            targets: dict[Key, int] = {}
            for order_id in {row[2] for row in rows[start : start + batch_size]}:
                targets.update(self.look_at(order_id))
            # Credits first. Then debits, those of the order that was paid first before others: ids count down.
            for key in sorted(targets, reverse=True):
                self.grow(key, targets[key])
            for key in sorted(targets, reverse=True):
                self.shrink(key, targets[key])

    def look_at(self, order_id: str) -> dict[Key, int]:
        """Return what each account deserves for the order now; nothing when it is left as it is."""
        targets = {} if self.orders[order_id].status == "deleted" else self.targets(order_id)
        if isinstance(targets, str):
            self.queued[order_id] = targets
            return {}
        self.queued.pop(order_id, None)
        return targets

    def targets(self, order_id: str) -> dict[Key, int] | str:
        """The same, without a trace; for an order that nobody can decide, the reason."""
        order = self.orders[order_id]
        is_paid = order.status in ("paid", "partially_refunded")
        points = int(max(order.total - self.refunded[order_id], Decimal(0)) * self.rate)
        if is_paid and not order.customer:
            return {}
        if is_paid and self.refunded[order_id] > MOST_AMOUNT:
            return "amount_invalid"
        if is_paid and points > MOST_POINTS:
            return "points_out_of_range"
        targets = dict.fromkeys((key for key in self.shares if key[0] == order_id), 0)
        return targets | {(order_id, order.customer): points} if is_paid and order.customer else targets

    def is_different(self, order_id: str) -> bool:
        """Whether looking at the order would change something."""
        if self.orders[order_id].status == "deleted":
            return False
        targets = self.targets(order_id)
        if isinstance(targets, str) or order_id in self.queued:
            return self.queued.get(order_id) != targets
        shares = self.shares
        return any(key not in shares or shares[key].in_force - shares[key].waived != targets[key] for key in targets)

    def grow(self, key: Key, target: int) -> None:
        share = self.shares.setdefault(key, Share())
        more = max(target - (share.in_force - share.waived), 0)
        forgiven = min(more, share.waived)
        share.waived -= forgiven
        share.in_force += more - forgiven
        self.balances[key[1]] += more - forgiven

    def shrink(self, key: Key, target: int) -> None:
        share, customer = self.shares[key], key[1]
        less = max(share.in_force - share.waived - target, 0)
        there = max(share.in_force - share.waived - share.gone, 0)
        taken = min(less, there if self.is_debt_allowed else min(there, self.balances[customer]))
        share.in_force -= taken
        share.waived += less - taken
        self.balances[customer] -= taken

    def expire(self, customer: str) -> None:
        self.balances[customer] = 0
        for (_, holder), share in self.shares.items():
            if holder == customer:
                share.gone = share.in_force


class OrderHistories(RuleBasedStateMachine):
    """Does the same to a merchant of its own and to the model, and compares them after every award."""

    shop: ClassVar[Shop]

    @initialize(is_debt_allowed=st.booleans())
    def open_the_shop(self, is_debt_allowed: bool) -> None:
        self.merchant = uuid.uuid4().hex
        self.clawback = "allow_negative" if is_debt_allowed else "clamp_to_zero"
        self.model = Model(is_debt_allowed=is_debt_allowed)
        self.shop.merchant(self.merchant, clawback=self.clawback)

    # --- what the shop does ---

    @rule(
        total=st.sampled_from(AMOUNTS),
        customer=st.sampled_from(CUSTOMERS),
        status=st.sampled_from(["paid", "paid", "cancelled"]),
    )
    def order(self, total: Decimal, customer: str | None, status: str) -> None:
        order_id = f"{900 - len(self.model.orders):03}"
        self._write(order_id, Order(customer=customer, total=total, status=status))

    @precondition(lambda self: self.model.orders)
    @rule(pick=st.integers(0, 99), status=st.sampled_from(STATUSES), then=st.sampled_from(THEN))
    def change_status(self, pick: int, status: str, then: int) -> None:
        order_id = self._pick(pick)
        self._change(order_id, replace(self.model.orders[order_id], status=status))
        self.award(then)

    @precondition(lambda self: self.model.orders)
    @rule(pick=st.integers(0, 99), total=st.sampled_from(AMOUNTS), then=st.sampled_from(THEN))
    def change_amount(self, pick: int, total: Decimal, then: int) -> None:
        order_id = self._pick(pick)
        self._change(order_id, replace(self.model.orders[order_id], total=total))
        self.award(then)

    @precondition(lambda self: self.model.orders)
    @rule(pick=st.integers(0, 99), customer=st.sampled_from(CUSTOMERS), then=st.sampled_from(THEN))
    def change_customer(self, pick: int, customer: str | None, then: int) -> None:
        order_id = self._pick(pick)
        self._change(order_id, replace(self.model.orders[order_id], customer=customer))
        self.award(then)

    @precondition(lambda self: self.model.orders)
    @rule(pick=st.integers(0, 99), part=st.sampled_from(["0.3", "0.5", "1"]))
    def refund_a_part(self, pick: int, part: str) -> None:
        order_id = self._pick(pick)
        amount = (self.model.orders[order_id].total * Decimal(part)).quantize(Decimal("0.01"))
        self.shop.refund(order_id, amount, merchant=self.merchant)
        self.model.refunded[order_id] += amount
        self.model.note(order_id, None)

    @precondition(lambda self: self.model.orders)
    @rule(pick=st.integers(0, 99), is_back_at_once=st.booleans())
    def delete(self, pick: int, is_back_at_once: bool) -> None:
        order_id = self._pick(pick)
        order = self.model.orders[order_id]
        self.shop.delete(order_id, merchant=self.merchant)
        if is_back_at_once:
            self._write(order_id, order)
        else:
            self.model.orders[order_id] = replace(order, status="deleted")

    # --- what customers and operators do ---

    @precondition(lambda self: self.model.orders)
    @rule(pick=st.integers(0, 99), times=st.integers(1, 3))
    def replay(self, pick: int, times: int) -> None:
        order_id = sorted(self.model.orders)[pick % len(self.model.orders)]
        order = self.model.orders[order_id]
        for _ in range(times):
            self.shop.enqueue(order_id, merchant=self.merchant)
            self.model.note(order_id, None if order.status == "deleted" else order.customer)

    @rule()
    def sweep(self) -> None:
        different = [order_id for order_id in self.model.orders if self.model.is_different(order_id)]
        found = self.shop.rows("SELECT DISTINCT order_id FROM loyalty.order_differences(:id)", id=self.merchant)
        assert {row.order_id for row in found} == set(different)
        for order_id in different:
            self.shop.enqueue(order_id, merchant=self.merchant)
            self.model.note(order_id, self.model.orders[order_id].customer)

    @rule()
    def lose_the_inbox(self) -> None:
        self.shop.run("DELETE FROM loyalty.order_inbox WHERE merchant_id = :id", id=self.merchant)
        self.model.inbox.clear()

    @rule(customer=st.sampled_from(CUSTOMERS[:2]), share=st.sampled_from([1, 1, 3]))
    def spend(self, customer: str, share: int) -> None:
        points = self.model.balances[customer] // share
        if points > 0:
            self.shop.spend(customer, points, merchant=self.merchant)
            self.model.balances[customer] -= points

    @rule(customer=st.sampled_from(CUSTOMERS[:2]))
    def expire(self, customer: str) -> None:
        if self.model.balances[customer] > 0:
            self.shop.expire(customer, merchant=self.merchant)
            self.model.expire(customer)

    @rule(rate=st.sampled_from(RATES))
    def change_the_programme_from_the_start(self, rate: Decimal) -> None:
        self.shop.program(self.merchant, points_per_unit=rate, clawback=self.clawback)
        self.model.rate = rate

    # --- awarding, and the histories that matter most ---

    @rule(batch_size=st.sampled_from([1000, 1, 2, 3]))
    def award(self, batch_size: int) -> None:
        if not batch_size:
            return
        report = drain(
            self.shop.engine, merchants=[self.merchant], options=DrainOptions(batch_size=batch_size), actor="model"
        )
        self.model.award(batch_size)
        assert report.failures == {}
        self._compare()

    @precondition(lambda self: self.model.orders)
    @rule(pick=st.integers(0, 99), total=st.sampled_from(AMOUNTS), is_spent=st.booleans())
    def cancel_and_pay_again(self, pick: int, total: Decimal, is_spent: bool) -> None:
        self.award(1000)
        if is_spent:
            self.spend("ann", 1)
            self.spend("bob", 3)
        self.change_status(pick, "cancelled", 1000)
        order_id = self._pick(pick)
        self._change(order_id, replace(self.model.orders[order_id], status="paid", total=total))
        self.award(1)
        self.order(Decimal(80), self.model.orders[order_id].customer, "paid")
        self._change(order_id, replace(self.model.orders[order_id], status="refunded"))
        self.award(1000)

    @rule(total=st.sampled_from(AMOUNTS[:4]), later=st.sampled_from(AMOUNTS[:4]), pick=st.integers(0, 99))
    def earn_and_expire_and_earn_again_and_take_back(self, total: Decimal, later: Decimal, pick: int) -> None:
        self.order(total, "ann", "paid")
        self.award(1000)
        self.expire("ann")
        self.order(later, "ann", "paid")
        self.change_amount(pick, later, 1000)
        self.spend("ann", 3)
        self.change_status(pick, "cancelled", 1000)

    def teardown(self) -> None:
        if hasattr(self, "model"):
            self.sweep()
            self.award(2)
            entries = self._count_entries()
            for pick in range(len(self.model.orders)):
                self.replay(pick, 1)
            self.award(1000)
            assert self._count_entries() == entries

    # --- helpers ---

    def _pick(self, pick: int) -> str:
        """Return the id of an order that the shop has, which it gets back where it was deleted."""
        order_id = sorted(self.model.orders)[pick % len(self.model.orders)]
        order = self.model.orders[order_id]
        if order.status == "deleted":
            self._write(order_id, replace(order, status="paid"))
        return order_id

    def _write(self, order_id: str, order: Order) -> None:
        self.shop.order(
            order_id,
            order.total,
            customer=order.customer,
            merchant=self.merchant,
            status=order.status,
            paid_at=LONG_AGO + timedelta(minutes=1000 - int(order_id)),
        )
        self.model.orders[order_id] = order
        self.model.note(order_id, order.customer)

    def _change(self, order_id: str, order: Order) -> None:
        before = self.model.orders[order_id]
        self.shop.change(
            order_id,
            merchant=self.merchant,
            customer_id=order.customer,
            total=order.total,
            status=order.status,
        )
        self.model.orders[order_id] = order
        if order != before:
            self.model.note(order_id, before.customer, order.customer)

    def _count_entries(self) -> int:
        return self.shop.value("SELECT count(*) FROM loyalty.ledger_entries WHERE merchant_id = :id", id=self.merchant)

    def _compare(self) -> None:
        shop, model = self.shop, self.model
        accounts = shop.rows(
            "SELECT customer_id, balance FROM loyalty.accounts WHERE merchant_id = :id", id=self.merchant
        )
        assert {name: points for name, points in accounts if points} == {
            name: points for name, points in model.balances.items() if points
        }
        shares = shop.rows(
            "SELECT order_id, customer_id, in_force_points, waived_points FROM loyalty.order_points "
            "JOIN loyalty.accounts USING (merchant_id, account_id) WHERE merchant_id = :id",
            id=self.merchant,
        )
        assert {tuple(row) for row in shares} == {
            (*key, share.in_force, share.waived) for key, share in model.shares.items()
        }
        assert shop.queued(merchant=self.merchant) == model.queued
        assert shop.inbox(merchant=self.merchant) == 0
        assert shop.problems(merchant=self.merchant) == []


@pytest.mark.timeout(300 + 3 * EXAMPLES)
def test_whatever_happens_to_orders_the_ledger_shows_what_the_model_says(shop: Shop) -> None:
    OrderHistories.shop = shop
    run_state_machine_as_test(
        OrderHistories,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
        ),
    )
