"""Random histories of orders, checkouts and repairs against a small model that decides alone what each account has.

LOYALTY_HYPOTHESIS_EXAMPLES sets the number of histories (80): a few thousand find what so few only may.
"""

import os
import tempfile
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

from loyalty_pipelines.db import repairs
from loyalty_pipelines.db.drain import DrainOptions, drain
from loyalty_pipelines.db.holds_run import release_stale_holds
from loyalty_pipelines.db.merges import merge_accounts
from loyalty_pipelines.domain.merges import Merge
from loyalty_pipelines.domain.repairs import Adjustment
from tests.checkout import Checkout
from tests.cli import Cli
from tests.shop import LONG_AGO, Shop

EXAMPLES = int(os.environ.get("LOYALTY_HYPOTHESIS_EXAMPLES", "80"))
STEPS = 25
AMOUNTS = [Decimal(text) for text in ("19.99", "250", "7", "80", "0.99", "0", "0.004", "1", "1000000000000")]
RATES = [Decimal(text) for text in ("1", "1.5", "0.002", "0")]
CUSTOMERS = ["ann", "bob", "cat", None]
POINT_VALUE = Decimal("0.5")
FEW_POINTS = [1, 3, 50]
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
    redeemed: int = 0


@dataclass(kw_only=True)
class Share:
    """What an account has of an order: points in force, of these waived ones, and of these expired ones."""

    in_force: int = 0
    waived: int = 0
    gone: int = 0


@dataclass(kw_only=True)
class Hold:
    """What an order redeems, and whose points they are."""

    customer: str
    points: int
    status: str


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
        self.held: dict[str, int] = defaultdict(int)
        self.holds: dict[str, Hold] = {}
        self.owed: set[str] = set()
        self.updates: dict[str, tuple[str, int, int]] = {}
        self.survivors: dict[str, str] = {}
        self.openings: set[str] = set()

    def note(self, order_id: str, *customers: str | None) -> None:
        for customer in {name or "" for name in customers}:
            self.inbox.append((customer, len(self.inbox), order_id))

    def award(self, batch_size: int) -> None:
        rows, self.inbox = sorted(self.inbox), []
        for start in range(0, len(rows), batch_size):
            targets: dict[Key, int] = {}
            order_ids = {row[2] for row in rows[start : start + batch_size]}
            for order_id in order_ids:
                targets.update(self.look_at(order_id))
            for order_id in order_ids:
                if self.step(order_id) == "give_back":
                    self.give_back(order_id)
            # Credits first. Then debits, those of the order that was paid first before others: ids count down.
            for key in sorted(targets, reverse=True):
                self.grow(key, targets[key])
            for key in sorted(targets, reverse=True):
                self.shrink(key, targets[key])
            for order_id in sorted(order_ids):
                if self.step(order_id) == "take":
                    self.take_or_owe(order_id)
                elif self.orders[order_id].status != "deleted":
                    self.owed.discard(order_id)

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
        customer = self.survivor(order.customer) if order.customer else None
        net = order.total - self.refunded[order_id] - order.redeemed * POINT_VALUE
        points = int(max(net, Decimal(0)) * self.rate)
        if is_paid and not order.customer:
            return {}
        if is_paid and self.refunded[order_id] > MOST_AMOUNT:
            return "amount_invalid"
        if is_paid and points > MOST_POINTS:
            return "points_out_of_range"
        targets = dict.fromkeys((key for key in self.shares if key[0] == order_id), 0)
        return targets | {(order_id, customer): points} if is_paid and customer else targets

    def is_different(self, order_id: str) -> bool:
        """Whether looking at the order would change something."""
        if self.orders[order_id].status == "deleted":
            return False
        step = self.step(order_id)
        if step == "give_back" or (step == "take" and order_id not in self.owed):
            return True
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
        free = max(self.balances[customer] - self.held[customer], 0)
        taken = min(less, there if self.is_debt_allowed else min(there, free))
        share.in_force -= taken
        share.waived += less - taken
        self.balances[customer] -= taken

    # --- redemptions ---

    def survivor(self, customer: str) -> str:
        return self.survivors.get(customer, customer)

    def is_undone(self, order_id: str) -> bool:
        order = self.orders[order_id]
        return order.status in ("cancelled", "refunded")

    def step(self, order_id: str) -> str | None:
        """Return what an order's redemption needs of a batch."""
        order, hold = self.orders[order_id], self.holds.get(order_id)
        if hold is None:
            return None
        worth = order.total - hold.points * POINT_VALUE
        is_undone = order.status == "cancelled" or (order.status == "refunded" and self.refunded[order_id] <= worth)
        if is_undone and hold.status in ("open", "captured"):
            return "give_back"
        is_paid = order.status in ("paid", "partially_refunded")
        is_paid_out = order.status == "refunded" and hold.status == "restored" and not is_undone
        is_owed = (is_paid or is_paid_out) and order.redeemed == hold.points and hold.status != "captured"
        return "take" if is_owed else None

    def give_back(self, order_id: str) -> None:
        hold = self.holds[order_id]
        if hold.status == "open":
            self.held[hold.customer] -= hold.points
            hold.status = "released"
        elif hold.status == "captured":
            self.balances[hold.customer] += hold.points
            hold.status = "restored"

    def spendable(self, customer: str) -> int:
        return max(self.balances[customer] - self.held[customer], 0)

    def take(self, order_id: str, *, is_due: bool = False) -> str:
        """Take the points of a hold; return the error's code, or nothing."""
        hold = self.holds[order_id]
        if hold.status == "captured":
            return ""
        if hold.status == "open":
            self.held[hold.customer] -= hold.points
        elif self.is_undone(order_id) and not is_due:
            return "LP008"
        elif hold.points > self.spendable(hold.customer):
            return "LP002"
        self.balances[hold.customer] -= hold.points
        hold.status = "captured"
        return ""

    def take_or_owe(self, order_id: str) -> None:
        if self.take(order_id, is_due=True):
            self.owed.add(order_id)
        else:
            self.owed.discard(order_id)

    def reserve(self, order_id: str, customer: str, points: int) -> str:
        hold, holder = self.holds.get(order_id), self.survivor(customer)
        if hold and hold.status in ("open", "captured"):
            return "" if (hold.customer, hold.points) == (holder, points) else "LP003"
        if hold and self.is_undone(order_id):
            return "LP008"
        if points > self.spendable(holder):
            return "LP002"
        self.holds[order_id] = Hold(customer=holder, points=points, status="open")
        self.held[holder] += points
        return ""

    def redeem(self, order_id: str, customer: str, points: int) -> str:
        return self.reserve(order_id, customer, points) or self.take(order_id)

    def capture(self, order_id: str) -> str:
        return self.take(order_id) if order_id in self.holds else "LP009"

    def release(self, order_id: str) -> str:
        if order_id not in self.holds:
            return "LP009"
        is_paid = self.orders[order_id].status in ("paid", "partially_refunded")
        if self.holds[order_id].status == "captured" and is_paid:
            return "LP012"
        self.give_back(order_id)
        return ""

    def update(self, order_id: str, customer: str, earned: int, redeemed: int) -> str:
        holder, order = self.survivor(customer), self.orders[order_id]
        if order.status != "deleted" and order.customer and self.survivor(order.customer) != holder:
            return "LP011"
        request = (holder, earned, redeemed)
        if order_id in self.updates:
            before = self.updates[order_id]
            is_in_force = not before[2] or self.holds[order_id].status == "captured"
            if before[0] != holder or (is_in_force and before != request):
                return "LP003"
            if is_in_force:
                return ""
        if self.is_undone(order_id):
            return "LP008"
        if redeemed and (code := self.redeem(order_id, customer, redeemed)):
            return code
        if earned and not any(key[0] == order_id for key in self.shares):
            self.shares[order_id, holder] = Share(in_force=earned)
            self.balances[holder] += earned
        self.updates[order_id] = request
        return ""

    # --- repairs ---

    def merge(self, customer: str, into: str) -> None:
        self.survivors = {one: into if other == customer else other for one, other in self.survivors.items()}
        self.survivors[customer] = into
        self.balances[into] += self.balances.pop(customer, 0)
        self.held[into] += self.held.pop(customer, 0)
        for order_id, holder in list(self.shares):
            if holder == customer:
                old, new = self.shares[order_id, holder], self.shares.setdefault((order_id, into), Share())
                new.in_force += old.in_force
                new.waived += old.waived
                new.gone = max(new.gone, old.gone)
                self.shares[order_id, holder] = Share()
        for hold in self.holds.values():
            hold.customer = into if hold.customer == customer else hold.customer
        self.updates = {
            order_id: (into if request[0] == customer else request[0], *request[1:])
            for order_id, request in self.updates.items()
        }

    def expire(self, customer: str) -> None:
        self.balances[customer] = self.held[customer]
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
        self.shop.merchant(self.merchant, clawback=self.clawback, point_value_amount=POINT_VALUE)
        self.checkout = Checkout(self.shop.engine)

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

    @rule(customer=st.sampled_from(CUSTOMERS[:3]), share=st.sampled_from([1, 1, 3]))
    def spend(self, customer: str, share: int) -> None:
        customer = self.model.survivor(customer)
        points = self.model.spendable(customer) // share
        if points > 0:
            self.shop.spend(customer, points, merchant=self.merchant)
            self.model.balances[customer] -= points

    @rule(customer=st.sampled_from(CUSTOMERS[:3]))
    def expire(self, customer: str) -> None:
        customer = self.model.survivor(customer)
        if self.model.balances[customer] > self.model.held[customer]:
            self.shop.expire(customer, merchant=self.merchant)
            self.model.expire(customer)

    @rule(rate=st.sampled_from(RATES))
    def change_the_programme_from_the_start(self, rate: Decimal) -> None:
        self.shop.program(self.merchant, points_per_unit=rate, clawback=self.clawback, point_value_amount=POINT_VALUE)
        self.model.rate = rate

    # --- checkouts ---

    @precondition(lambda self: self.model.orders)
    @rule(
        pick=st.integers(0, 99),
        customer=st.sampled_from(CUSTOMERS[:3]),
        points=st.sampled_from(FEW_POINTS),
        action=st.sampled_from(["reserve", "redeem", "reserve", "redeem", "update"]),
    )
    def begin_a_checkout(self, pick: int, customer: str, points: int, action: str) -> None:
        order_id = self._pick(pick)
        arguments = (7, points) if action == "update" else (points,)
        expected = (
            self.model.update(order_id, customer, *arguments)
            if action == "update"
            else getattr(self.model, action)(order_id, customer, points)
        )
        self._expect(expected, action, order_id, *arguments, customer)

    @precondition(lambda self: self.model.orders)
    @rule(pick=st.integers(0, 99), action=st.sampled_from(["capture", "release"]))
    def end_a_checkout(self, pick: int, action: str) -> None:
        order_id = self._pick(pick)
        self._expect(getattr(self.model, action)(order_id), action, order_id)

    @rule(
        customer=st.sampled_from(CUSTOMERS[:3]),
        points=st.sampled_from(FEW_POINTS),
        status=st.sampled_from(["paid", "pending", "cancelled"]),
        ends=st.sampled_from(["capture", "release", "expire", "", ""]),
        then=st.sampled_from(THEN),
    )
    def check_out(self, customer: str, points: int, status: str, ends: str, then: int) -> None:
        """A whole checkout, or one that ends half-way."""
        self.order(Decimal(80), customer, "pending")
        order_id = f"{900 - len(self.model.orders) + 1:03}"
        self._change(order_id, replace(self.model.orders[order_id], redeemed=points))
        self._expect(self.model.reserve(order_id, customer, points), "reserve", order_id, points, customer)
        self._change(order_id, replace(self.model.orders[order_id], status=status))
        self.award(then)
        if ends == "expire":
            self.expire_holds()
        elif ends:
            self._expect(getattr(self.model, ends)(order_id), ends, order_id)

    @rule()
    def expire_holds(self) -> None:
        self.shop.run("UPDATE loyalty.holds SET expires_at = now() WHERE merchant_id = :id", id=self.merchant)
        assert not release_stale_holds(self.shop.engine).skipped
        for order_id, hold in self.model.holds.items():
            if hold.status == "open":
                self.model.give_back(order_id)

    # --- repairs ---

    @rule(customer=st.sampled_from(CUSTOMERS[:3]), points=st.sampled_from([5, -2]))
    def adjust(self, customer: str, points: int) -> None:
        customer = self.model.survivor(customer)
        is_there = self._has_account(customer)
        if is_there and (points > 0 or self.model.spendable(customer) >= -points):
            adjustment = Adjustment(
                merchant_id=self.merchant,
                customer_id=customer,
                points=points,
                reason="model",
                actor="model",
                reference=uuid.uuid4().hex,
            )
            with self.shop.engine.begin() as conn:
                repairs.adjust(conn, adjustment)
            self.model.balances[customer] += points

    @rule(pair=st.sampled_from([("ann", "bob"), ("bob", "cat"), ("cat", "ann"), ("bob", "ann")]))
    def merge(self, pair: tuple[str, str]) -> None:
        customer, into = pair
        if customer in self.model.survivors or into in self.model.survivors or not self._has_account(customer):
            return
        merge = Merge(
            merchant_id=self.merchant, customer_id=customer, into_customer_id=into, reason="model", actor="model"
        )
        with self.shop.engine.begin() as conn:
            merge_accounts(conn, merge)
        self.model.merge(customer, into)

    @rule(customer=st.sampled_from(CUSTOMERS[:3]), points=st.sampled_from([10, 60]))
    def import_an_opening_balance(self, customer: str, points: int) -> None:
        if customer in self.model.survivors or customer in self.model.openings:
            return
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            file.write(f"customer_id,points\n{customer},{points}\n")
            file.flush()
            cli = Cli(self.shop.engine.url.render_as_string(hide_password=False))
            for _ in range(2):
                cli.ok("accounts", "import", file.name, "--merchant", self.merchant)
        self.model.openings.add(customer)
        self.model.balances[customer] += points

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

    def _expect(self, code: str, action: str, *arguments: object) -> None:
        """Call a checkout function, which must succeed, or fail with the code that the model gives."""
        call = getattr(self.checkout, action)
        more = {"merchant_id": self.merchant} if action == "update" else {"merchant": self.merchant}
        if code:
            self.checkout.refused(code, action, *arguments, **more)
        else:
            call(*arguments, **more)

    def _has_account(self, customer: str) -> bool:
        return self.shop.value(
            "SELECT EXISTS (SELECT FROM loyalty.accounts WHERE merchant_id = :id AND customer_id = :customer)",
            id=self.merchant,
            customer=customer,
        )

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
            points_redeemed=order.redeemed,
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
            points_redeemed=order.redeemed,
        )
        self.model.orders[order_id] = order
        if order != before:
            self.model.note(order_id, before.customer, order.customer)

    def _count_entries(self) -> int:
        return self.shop.value("SELECT count(*) FROM loyalty.ledger_entries WHERE merchant_id = :id", id=self.merchant)

    def _compare(self) -> None:
        shop, model = self.shop, self.model
        accounts = shop.rows(
            "SELECT customer_id, balance, held FROM loyalty.accounts WHERE merchant_id = :id", id=self.merchant
        )
        assert {name: (points, held) for name, points, held in accounts if points or held} == {
            name: (points, model.held[name]) for name, points in model.balances.items() if points or model.held[name]
        }
        shares = shop.rows(
            "SELECT order_id, customer_id, in_force_points, waived_points FROM loyalty.order_points "
            "JOIN loyalty.accounts USING (merchant_id, account_id) WHERE merchant_id = :id",
            id=self.merchant,
        )
        assert {tuple(row) for row in shares} == {
            (*key, share.in_force, share.waived) for key, share in model.shares.items()
        }
        queued = shop.rows(
            "SELECT operation, order_id, reason FROM loyalty.reconciliation_queue "
            "WHERE merchant_id = :id AND resolved_at IS NULL",
            id=self.merchant,
        )
        assert {row.order_id: row.reason for row in queued if row.operation == "award"} == model.queued
        assert {row.order_id for row in queued if row.operation == "redeem"} == model.owed
        holds = shop.rows("SELECT order_id, status FROM loyalty.holds WHERE merchant_id = :id", id=self.merchant)
        # `spend` redeems on orders that the shop does not show.
        found = {row.order_id: row.status for row in holds if row.order_id in model.orders}
        assert found == {order_id: hold.status for order_id, hold in model.holds.items()}
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
