"""Random histories of orders, checkouts, repairs and nights against a small model that decides alone what has to come.

LOYALTY_HYPOTHESIS_EXAMPLES sets the number of histories (20): a few thousand find what so few only may.
"""

import os
import tempfile
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from loyalty_pipelines.db import notifications, repairs
from loyalty_pipelines.db.drain import DrainOptions, drain
from loyalty_pipelines.db.expiry_checks import expired_unwarned
from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.db.expiry_undo_run import undo_run
from loyalty_pipelines.db.holds_run import release_stale_holds
from loyalty_pipelines.db.merges import merge_accounts
from loyalty_pipelines.db.notifications_run import DeliveryOptions, deliver
from loyalty_pipelines.domain.expiry import ALL_STEPS, ExpiryOptions, Step
from loyalty_pipelines.domain.expiry_undo import NothingTakenError, Undo
from loyalty_pipelines.domain.mail_settings import MailSettings, Transport
from loyalty_pipelines.domain.merges import Merge
from loyalty_pipelines.domain.notifications import MailNotTakenError, MailRetries, OutgoingMail, Status
from loyalty_pipelines.domain.repairs import Adjustment
from tests.checkout import Checkout
from tests.cli import Cli
from tests.expiry import NO_LIMITS
from tests.integrity import found, proved
from tests.model import FROM_THE_START, POINT_VALUE, Model, Night, Order, Rules
from tests.shop import Shop
from tests.time_travel import Clock

EXAMPLES = int(os.environ.get("LOYALTY_HYPOTHESIS_EXAMPLES", "20"))
STEPS = 30
AMOUNTS = [Decimal(text) for text in ("19.99", "250", "7", "80", "0.99", "0", "0.004", "1", "1000000000000")]
RATES = [Decimal(text) for text in ("1", "1.5", "0.002", "0")]
CUSTOMERS = ["ann", "bob", "cat", None]
WITH_ADDRESS = {"ann", "bob"}
FEW_POINTS = [1, 3, 50]
THEN = [1000, 1, 3, 0]  # the size of the batches in which a change is awarded at once, 0 for later
STATUSES = ["paid", "cancelled", "pending", "refunded", "partially_refunded"]
AGES = [0, 0, 0, 1, 8, 20, 45]  # how many days ago an order was paid that the shop writes now
PERIODS = [7, 30, 1, 2, 15, 13, None]
# Whoever puts a mail off for hours has it sent on another day of the history, however long that takes to run.
RETRIES = MailRetries(first_wait=timedelta(hours=2))
MAIL = MailSettings(transport=Transport.CONSOLE, sender="loyalty@localhost")


@dataclass
class Postman:
    """Takes mails, except those of one customer: it answers to them as it is told."""

    refused: str | None
    answer: str
    taken: list[int] = field(default_factory=list)

    def send(self, mail: OutgoingMail) -> None:
        if self.refused and mail.recipient.address.startswith(self.refused):
            raise MailNotTakenError("no", status=Status(self.answer))
        self.taken.append(mail.notification_id)

    def close(self) -> None:
        pass


def zone_of_noon(now: datetime) -> str:
    """A zone with no other clock in summer, where no history will see midnight: it is about noon there."""
    return f"Etc/GMT{now.astimezone(UTC).hour - 12:+d}"


class Histories(RuleBasedStateMachine):
    """Does the same to a merchant of its own and to the model, and compares them."""

    shop: ClassVar[Shop]
    clock: ClassVar[Clock]

    @initialize(
        is_debt_allowed=st.booleans(),
        period=st.sampled_from(PERIODS),
        warning_days=st.sampled_from([14, 3]),
        bonus=st.sampled_from([0, 0, 30]),
    )
    def open_the_shop(self, is_debt_allowed: bool, period: int | None, warning_days: int, bonus: int) -> None:
        shop, self.merchant = self.shop, uuid.uuid4().hex
        self.clawback = "allow_negative" if is_debt_allowed else "clamp_to_zero"
        rules = Rules(valid_from=FROM_THE_START, period=period, warning_days=warning_days, bonus=bonus)
        self.model = Model(rules, is_debt_allowed=is_debt_allowed, with_address=WITH_ADDRESS)
        now = shop.value("SELECT now()")
        self.zone = zone_of_noon(now)
        self.midnight = shop.value("SELECT loyalty.local_midnight(:now, 0, :zone)", now=now, zone=self.zone)
        shop.merchant(self.merchant, timezone=self.zone, **self._columns(rules))
        for customer in sorted(WITH_ADDRESS):
            shop.run(
                "INSERT INTO sample_shop.customers (merchant_id, id, email) "
                "VALUES (:merchant, :id, :id || '@example.com')",
                merchant=self.merchant,
                id=customer,
            )
        # Mails of histories before this one are not delivered with its own.
        shop.run("UPDATE loyalty.notifications SET status = 'void', settled_at = now() WHERE status = 'pending'")
        self.checkout = Checkout(shop.engine)
        self.sent: Counter[int] = Counter()
        self.has_taken_unwarned = False

    # --- what the shop does ---

    @rule(
        total=st.sampled_from(AMOUNTS),
        customer=st.sampled_from(CUSTOMERS),
        status=st.sampled_from(["paid", "paid", "cancelled"]),
        age=st.sampled_from(AGES),
    )
    def order(self, total: Decimal, customer: str | None, status: str, age: int) -> None:
        self._order(total, customer, status, age)

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

    @rule(is_full=st.booleans())
    def prove(self, is_full: bool) -> None:
        """Whatever was done, the proof finds nothing wrong."""
        proved(self.shop, self.merchant, is_full=is_full)
        assert found(self.shop, merchant_id=self.merchant, is_closed_too=True) == []

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
        points = self.model.spendable(customer) // share
        if points > 0 and self.model.rules.is_active:
            self.shop.spend(self.model.survivor(customer), points, merchant=self.merchant)
            self.model.tick()
            self.model.move(customer, -points)

    @rule(rate=st.sampled_from(RATES))
    def change_the_programme_from_the_start(self, rate: Decimal) -> None:
        self._add_version(replace(self.model.rules_at(FROM_THE_START), rate=rate))

    @rule(period=st.sampled_from(PERIODS), warning_days=st.sampled_from([14, 14, 3]))
    def change_the_period(self, period: int | None, warning_days: int) -> None:
        self._add_version(self.model.with_changes(period=period, warning_days=warning_days))

    @rule(is_night_between=st.booleans())
    def switch_the_programme(self, is_night_between: bool) -> None:
        self._add_version(self.model.with_changes(is_active=not self.model.rules.is_active))
        if is_night_between:
            self.night("once")

    @precondition(lambda self: self.model.accounts)
    @rule(pick=st.integers(0, 2))
    def switch_an_account(self, pick: int) -> None:
        customer = self._pick_account(pick)
        if customer not in self.model.survivors:
            account = self.model.accounts[customer]
            account.is_active ^= True
            account.warned = None
            self.shop.run(
                "UPDATE loyalty.accounts SET is_active = NOT is_active, warned_for = NULL "
                "WHERE merchant_id = :merchant AND customer_id = :customer",
                merchant=self.merchant,
                customer=customer,
            )

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
        if action == "update":
            self._check_out("update", order_id, (customer, 7, points), (7, points, customer))
        else:
            self._check_out(action, order_id, (customer, points), (points, customer))

    @precondition(lambda self: self.model.orders)
    @rule(pick=st.integers(0, 99), action=st.sampled_from(["capture", "release"]))
    def end_a_checkout(self, pick: int, action: str) -> None:
        self._check_out(action, self._pick(pick))

    @rule(
        customer=st.sampled_from(CUSTOMERS[:3]),
        points=st.sampled_from(FEW_POINTS),
        status=st.sampled_from(["paid", "pending", "cancelled"]),
        ends=st.sampled_from(["capture", "release", "expire", "", ""]),
        then=st.sampled_from(THEN),
    )
    def check_out(self, customer: str, points: int, status: str, ends: str, then: int) -> None:
        """A whole checkout, or one that ends half-way."""
        order_id = self._order(Decimal(80), customer, "pending", 0)
        self._change(order_id, replace(self.model.orders[order_id], redeemed=points))
        self._check_out("reserve", order_id, (customer, points), (points, customer))
        self._change(order_id, replace(self.model.orders[order_id], status=status))
        self.award(then)
        if ends == "expire":
            self.expire_holds()
        elif ends:
            self._check_out(ends, order_id)

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
        if customer in self.model.accounts and (points > 0 or self.model.account(customer).free >= -points):
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
            self.model.tick()
            self.model.move(customer, points)

    @rule(pair=st.sampled_from([("ann", "bob"), ("bob", "cat"), ("cat", "ann"), ("bob", "ann")]))
    def merge(self, pair: tuple[str, str]) -> None:
        customer, into = pair
        accounts, survivors = self.model.accounts, self.model.survivors
        if customer in survivors or into in survivors or customer not in accounts:
            return
        if not accounts[customer].is_active or not self.model.account(into).is_active:
            return
        merge = Merge(
            merchant_id=self.merchant, customer_id=customer, into_customer_id=into, reason="model", actor="model"
        )
        with self.shop.engine.begin() as conn:
            merge_accounts(conn, merge)
        self.model.merge(customer, into)
        self._compare_accounts()

    @rule(customer=st.sampled_from(CUSTOMERS[:3]), points=st.sampled_from([10, 60]))
    def import_an_opening_balance(self, customer: str, points: int) -> None:
        model = self.model
        if customer in model.survivors or customer in model.openings or not model.rules.is_active:
            return
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            file.write(f"customer_id,points\n{customer},{points}\n")
            file.flush()
            cli = Cli(self.shop.engine.url.render_as_string(hide_password=False))
            for _ in range(2):
                cli.ok("accounts", "import", file.name, "--merchant", self.merchant)
        model.open_with(customer, points)
        self._compare_accounts()

    # --- time, nights, mails ---

    @rule(days=st.sampled_from([1, 1, 2, 6, 14, 31]))
    def pass_days(self, days: int) -> None:
        """Nobody does anything, and nothing runs."""
        self.clock.pass_days(self.merchant, days)
        self.model.pass_days(days)

    @rule(days=st.integers(1, 4), refused=st.sampled_from([None, None, "ann"]))
    def live_days(self, days: int, refused: str | None) -> None:
        """Some days as they should be."""
        for _ in range(days):
            self.pass_days(1)
            self.night("once")
            self.deliver(refused, "pending")

    @precondition(lambda self: any(self.model.live_accounts()))
    @rule(
        pick=st.integers(0, 2),
        edge=st.sampled_from(["warning", "warning", "date"]),
        days_more=st.sampled_from([-1, 0, 0, 1]),
        mode=st.sampled_from(["once", "twice"]),
    )
    def go_to_an_edge(self, pick: int, edge: str, days_more: int, mode: str) -> None:
        """Time passes until an account has to be warned, or has its date, or just not yet, or is late."""
        dates = [expires for _, _, expires in self.model.live_accounts()]
        lead = self.model.rules.lead or 1
        on = dates[pick % len(dates)] + days_more - (lead if edge == "warning" else 0)
        if on > self.model.today:
            self.pass_days(on - self.model.today)
        self.night(mode)

    @rule(mode=st.sampled_from(["once", "once", "twice", "step by step", "dry first"]))
    def night(self, mode: str) -> None:
        dry = self._run_night(is_dry_run=True) if mode == "dry first" and self.model.is_scheduled else None
        run_id = uuid.uuid4().hex
        if mode == "step by step":
            for step in (Step.WARN, Step.PLAN):
                self._run_night(run_id, steps=frozenset({step}))
            self._run_night(run_id, steps=frozenset({Step.EXPIRE}))
        else:
            self._run_night(run_id)
        expected = self.model.run_night(run_id)
        self._compare_night(run_id, expected)
        if dry:
            found = (
                dry.accounts_warned,
                dry.points_warned,
                dry.accounts_moved,
                dry.accounts_expired,
                dry.points_expired,
            )
            assert found == (
                expected.warned,
                expected.points_warned,
                expected.moved,
                expected.expired,
                expected.points_expired,
            )
        if mode == "twice":
            self._run_night(again := uuid.uuid4().hex)
            assert self.model.run_night(again).expired == 0
        self._compare_accounts()

    @rule()
    def night_without_warnings(self) -> None:
        run_id = uuid.uuid4().hex
        self.has_taken_unwarned = True
        self._run_night(run_id, is_warning_required=False)
        self._compare_night(run_id, self.model.run_night(run_id, is_warning_required=False))
        self._compare_accounts()

    @rule(
        refused=st.sampled_from([None, None, None, "ann", "bob"]),
        answer=st.sampled_from(["pending", "failed", "parked"]),
    )
    def deliver(self, refused: str | None, answer: str) -> None:
        postman = Postman(refused, answer)
        for _ in range(20):
            # It gives up a run after ten refusals in a row.
            report = deliver(self.shop.engine, postman, settings=MAIL, options=DeliveryOptions(retries=RETRIES))
            assert report.failures == {}
            if report.server_problem is None:
                break
        self.sent.update(postman.taken)
        self.model.deliver(refused, answer)
        self._compare_accounts()

    @rule(is_given_up=st.booleans())
    def look_after_the_mails(self, is_given_up: bool) -> None:
        with self.shop.engine.begin() as conn:
            if is_given_up:
                notifications.park(conn, merchant_id=self.merchant, reason="model")
                self.model.park_mails()
            else:
                notifications.retry(conn, merchant_id=self.merchant)
                self.model.retry_mails()

    @precondition(lambda self: any(self.model.nights.values()))
    @rule(
        pick=st.integers(0, 9),
        is_for_one=st.booleans(),
        is_mailed=st.booleans(),
        page_size=st.sampled_from([1, 500]),
        then=st.sampled_from(THEN),
    )
    def undo(self, pick: int, is_for_one: bool, is_mailed: bool, page_size: int, then: int) -> None:
        runs = [run_id for run_id, taken in self.model.nights.items() if taken]
        run_id = runs[-1 - pick % len(runs)]
        customer = self.model.nights[run_id][0].customer if is_for_one else None
        self._undo(run_id, customer, is_mailed=is_mailed, page_size=page_size)
        self.award(then)

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
        self._order(Decimal(80), self.model.orders[order_id].customer, "paid", 0)
        self._change(order_id, replace(self.model.orders[order_id], status="refunded"))
        self.award(1000)

    @rule(
        customer=st.sampled_from(CUSTOMERS[:3]),
        total=st.sampled_from(AMOUNTS[:4]),
        days_late=st.sampled_from([0, 0, 5]),
    )
    def earn_and_be_warned_and_expire(self, customer: str, total: Decimal, days_late: int) -> None:
        if not self.model.rules.is_active or not self.model.rules.period:
            self._add_version(self.model.with_changes(is_active=True, period=self.model.rules.period or 7))
        self._order(total, customer, "paid", 0)
        self.award(1000)
        self.night("once")
        account, lead = self.model.account(customer), self.model.rules.lead or 1
        for _ in range(2):
            if account.expires is not None:
                self.pass_days(max(0, account.expires - lead + days_late - self.model.today))
                self.night("once")
                self.deliver(None, "pending")
        if account.expires is not None:
            self.pass_days(max(0, account.expires - self.model.today))
        self.night("once")

    @rule(
        total=st.sampled_from(AMOUNTS[:4]),
        later=st.sampled_from(AMOUNTS[:4]),
        pick=st.integers(0, 99),
        is_undone=st.booleans(),
    )
    def earn_and_expire_and_earn_again_and_take_back(
        self, total: Decimal, later: Decimal, pick: int, is_undone: bool
    ) -> None:
        self.earn_and_be_warned_and_expire("ann", total, 0)
        self._order(later, "ann", "paid", 0)
        self.change_amount(pick, later, 1000)
        self.spend("ann", 3)
        runs = [run_id for run_id, taken in self.model.nights.items() if taken]
        if is_undone and runs:
            self._undo(runs[-1], None, is_mailed=False)
        self.change_status(pick, "cancelled", 1000)

    @rule(period=st.sampled_from(PERIODS), other=st.sampled_from(PERIODS), total=st.sampled_from(AMOUNTS[:3]))
    def be_warned_and_active_under_another_period(self, period: int | None, other: int | None, total: Decimal) -> None:
        self._order(total, "ann", "paid", 0)
        self.award(1000)
        if any(self.model.live_accounts()):
            self.go_to_an_edge(0, "warning", 0, "once")
        self.adjust("ann", 5)
        self.deliver("ann", "failed")
        self.change_the_period(period, 14)
        self.night("once")
        self.change_the_period(other, 14)
        self.night("once")

    def teardown(self) -> None:
        if hasattr(self, "model"):
            self.sweep()
            self.award(2)
            entries = self._count_entries()
            for pick in range(len(self.model.orders)):
                self.replay(pick, 1)
            self.award(1000)
            assert self._count_entries() == entries
            assert set(self.sent.values()) <= {1}
            if not self.has_taken_unwarned:
                with self.shop.engine.connect() as conn:
                    found = expired_unwarned(conn, days=100_000)
                assert [one.accounts for one in found if one.merchant_id == self.merchant] in ([], [0])

    # --- helpers ---

    def _columns(self, rules: Rules) -> dict[str, Any]:
        return {
            "points_per_unit": rules.rate,
            "points_expiration_days": rules.period,
            "warning_days": rules.warning_days,
            "is_active": rules.is_active,
            "welcome_bonus_points": rules.bonus,
            "clawback": self.clawback,
            "point_value_amount": POINT_VALUE,
        }

    def _add_version(self, rules: Rules) -> None:
        columns = self._columns(rules)
        if rules.valid_from != FROM_THE_START:
            columns["valid_from"] = self.shop.value("SELECT clock_timestamp()")
        self.shop.program(self.merchant, **columns)
        self.model.versions.append(rules)

    def _check_out(
        self, action: str, order_id: str, model_arguments: tuple = (), arguments: tuple | None = None
    ) -> None:
        """Call a checkout function, which must succeed, or fail with the code that the model gives."""
        code = self.model.attempt(lambda: getattr(self.model, action)(order_id, *model_arguments))
        called = (order_id, *(model_arguments if arguments is None else arguments))
        more = {"merchant_id": self.merchant} if action == "update" else {"merchant": self.merchant}
        if code:
            self.checkout.refused(code, action, *called, **more)
        else:
            getattr(self.checkout, action)(*called, **more)

    def _pick(self, pick: int) -> str:
        """Return the id of an order that the shop has, which it gets back where it was deleted."""
        order_id = sorted(self.model.orders)[pick % len(self.model.orders)]
        order = self.model.orders[order_id]
        if order.status == "deleted":
            self._write(order_id, replace(order, status="paid"))
        return order_id

    def _pick_account(self, pick: int) -> str:
        return list(self.model.accounts)[pick % len(self.model.accounts)]

    def _order(self, total: Decimal, customer: str | None, status: str, age: int) -> str:
        """Write a new order; later ones have lower ids and are paid at later minutes of their day."""
        number = len(self.model.orders)
        order_id = f"{900 - number:03}"
        paid = (self.model.today - age, number)
        self._write(order_id, Order(customer=customer, total=total, status=status, paid=paid))
        return order_id

    def _write(self, order_id: str, order: Order) -> None:
        day, minutes = order.paid
        self.shop.order(
            order_id,
            order.total,
            customer=order.customer,
            merchant=self.merchant,
            status=order.status,
            points_redeemed=order.redeemed,
            paid_at=self.midnight + timedelta(days=day - self.model.today, minutes=minutes),
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

    def _run_night(self, run_id: str | None = None, **options: Any) -> Any:
        options = {"limits": NO_LIMITS, "steps": ALL_STEPS, "chunk_size": 2, **options}
        (done,) = expire_merchants(
            self.shop.engine, [self.merchant], options=ExpiryOptions(**options), actor="model", run_id=run_id
        )
        assert done.failure is None, done.failure
        assert done.refused == {}
        return done

    def _undo(self, run_id: str, customer: str | None, *, is_mailed: bool, page_size: int = 500) -> None:
        undo = Undo(
            run_id=run_id,
            merchant_id=self.merchant,
            customer_id=customer,
            is_mailed=is_mailed,
            reason="model",
            actor="m",
        )
        (found,) = undo_run(self.shop.engine, undo, page_size=page_size).merchants
        expected = self.model.undo(run_id, customer, is_mailed=is_mailed)
        assert (found.accounts, found.points, found.accounts_before) == expected
        nobody = replace(undo, customer_id="dan")
        with pytest.raises(NothingTakenError):
            undo_run(self.shop.engine, nobody)
        self._compare_accounts()

    # --- comparing ---

    def _count_entries(self) -> int:
        return self.shop.value("SELECT count(*) FROM loyalty.ledger_entries WHERE merchant_id = :id", id=self.merchant)

    def _compare_night(self, run_id: str, night: Night) -> None:
        (run,) = self.shop.rows(
            "SELECT * FROM loyalty.expiry_runs WHERE merchant_id = :merchant AND run_id = :run_id",
            merchant=self.merchant,
            run_id=run_id,
        )
        assert run.finished_at is not None
        assert (run.accounts_warned, run.points_warned, run.accounts_moved) == (
            night.warned,
            night.points_warned,
            night.moved,
        )
        assert (run.accounts_waiting or 0, run.accounts_expired, run.points_expired) == (
            night.waiting,
            night.expired,
            night.points_expired,
        )

    def _compare_accounts(self) -> None:
        """Compare what each account has, its date, and all mails."""
        shop, model, values = self.shop, self.model, {"id": self.merchant, "zone": self.zone}
        day = "CAST({} AT TIME ZONE :zone AS date) - CAST(now() AT TIME ZONE :zone AS date)"
        rows = shop.rows(
            "SELECT customer_id, balance, held, is_active, warned_for = expires_at AS is_warned, "
            f"{day.format('last_activity_at')} AS active_in, {day.format('expires_at')} AS expires_in, "
            "expires_at = date_trunc('day', expires_at, :zone) AS is_midnight "
            "FROM loyalty.accounts WHERE merchant_id = :id ORDER BY account_id",
            **values,
        )
        today = model.today

        def shifted(days: int | None) -> int | None:
            return None if days is None else days + today

        found = {}
        for row in rows:
            assert row.is_midnight in (None, True)
            of_date = (shifted(row.active_in), shifted(row.expires_in), bool(row.is_warned))
            is_gone = row.customer_id in model.survivors
            found[row.customer_id] = (row.balance, row.held, row.is_active, *(() if is_gone else of_date))
        expected = {}
        for customer, account in model.accounts.items():
            of_date = (account.last and account.last[0], account.expires, account.is_warned)
            is_gone = customer in model.survivors
            expected[customer] = (account.balance, account.held, account.is_active, *(() if is_gone else of_date))
        assert found == expected
        assert list(found) == list(expected)
        named = "CAST(payload ->> 'expires_at' AS timestamptz)"
        mails = shop.rows(
            "SELECT customer_id, template, CAST(payload ->> 'points' AS bigint) AS points, "
            f"{day.format(named)} AS goes_in, status, attempts FROM loyalty.notifications WHERE merchant_id = :id",
            **values,
        )
        assert Counter((*row[:3], shifted(row.goes_in), row.status, row.attempts) for row in mails) == Counter(
            (mail.customer, mail.template, mail.points, mail.on, mail.status, mail.attempts) for mail in model.mails
        )
        entries = shop.rows(
            "SELECT run_id, kind, points FROM loyalty.ledger_entries "
            "WHERE merchant_id = :id AND reference_type = 'expiry' ORDER BY 1, 2, 3",
            **values,
        )
        taken = [(run_id, one) for run_id, night in model.nights.items() for one in night]
        assert [tuple(row) for row in entries] == sorted(
            [(run_id, "expired", -one.points) for run_id, one in taken]
            + [(run_id, "adjusted", one.points) for run_id, one in taken if one.is_undone]
        )

    def _compare(self) -> None:
        shop, model = self.shop, self.model
        self._compare_accounts()
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
        self.prove(is_full=False)
        self.prove(is_full=True)


@pytest.mark.timeout(300 + 6 * EXAMPLES)
def test_whatever_happens_the_ledger_and_the_mails_are_what_the_model_says(shop: Shop) -> None:
    Histories.shop = shop
    Histories.clock = Clock(shop)
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
        ),
    )


# --- single histories: rules of the machine, one after the other; some of them once went wrong ---


def history(shop: Shop, *, period: int = 30) -> Histories:
    """A history that begins with 80 points of ann, and the first night; warnings go out 14 days ahead."""
    Histories.shop, Histories.clock = shop, Clock(shop)
    made = Histories()
    made.open_the_shop(is_debt_allowed=False, period=period, warning_days=14, bonus=0)
    made.order(Decimal(80), "ann", "paid", 0)
    made.award(1000)
    made.night("once")
    return made


def go_to(made: Histories, day: int) -> None:
    made.pass_days(day - made.model.today)
    made.night("once")


def be_active(made: Histories, how: str) -> None:
    if how == "order":
        made.order(Decimal(7), "ann", "paid", 0)
        made.award(1000)
    elif how == "adjustment":
        made.adjust("ann", 5)
    elif how == "opening balance":
        made.import_an_opening_balance("ann", 10)


@pytest.mark.parametrize(
    ("first", "second"),
    [("order", "order"), ("order", "adjustment"), ("order", "opening balance"), ("adjustment", "night")],
)
def test_a_date_that_comes_again_is_told_again_where_its_mail_was_never_sent(
    shop: Shop, first: str, second: str
) -> None:
    made = history(shop)
    go_to(made, 17)
    be_active(made, first)
    made.deliver(None, "pending")
    assert [(mail.on, mail.status) for mail in made.model.mails if mail.on] == [(31, "void")]
    made.change_the_period(13, 14)
    be_active(made, second)
    go_to(made, 25)
    assert [(mail.on, mail.status) for mail in made.model.mails if mail.on] == [(31, "pending")]
    made.deliver(None, "pending")
    go_to(made, 31)
    assert made.model.account("ann").balance == 0
    made.teardown()


def test_a_date_that_comes_again_is_not_told_again_where_its_mail_was_sent(shop: Shop) -> None:
    made = history(shop)
    go_to(made, 17)
    made.deliver(None, "pending")
    made.adjust("ann", 5)
    made.change_the_period(13, 14)
    made.adjust("ann", 5)
    go_to(made, 25)
    made.deliver(None, "pending")
    assert (made.model.account("ann").is_warned, sum(made.sent.values())) == (True, 2)  # of the account, and of 31
    go_to(made, 31)
    assert made.model.account("ann").balance == 0
    made.teardown()


def test_a_failed_warning_of_an_earlier_date_keeps_nobody_from_expiring(shop: Shop) -> None:
    made = history(shop)
    go_to(made, 17)
    made.deliver("ann", "failed")
    made.adjust("ann", 5)
    go_to(made, 34)
    made.deliver(None, "pending")
    go_to(made, 48)
    assert made.model.account("ann").balance == 0
    made.teardown()


def test_a_late_warning_waits_another_night_where_its_new_date_has_had_a_mail(shop: Shop) -> None:
    made = history(shop)
    go_to(made, 17)
    made.deliver(None, "pending")
    made.adjust("ann", 5)
    made.change_the_period(6, 14)
    go_to(made, 21)
    made.deliver("ann", "failed")
    go_to(made, 28)
    made.night("dry first")
    assert made.model.account("ann").expires == 24
    go_to(made, 29)
    assert made.model.account("ann").expires == 32
    made.deliver(None, "pending")
    go_to(made, 32)
    assert made.model.account("ann").balance == 0
    made.teardown()


def test_a_programme_that_is_changed_and_changed_back_leaves_no_date_behind(shop: Shop) -> None:
    made = history(shop)
    made.change_the_period(None, 14)
    made.adjust("ann", 5)
    made.change_the_period(30, 14)
    assert made.model.account("ann").expires is None
    made.night("once")
    assert made.model.account("ann").expires == 31
    made.teardown()


@pytest.mark.parametrize("is_delivered", [True, False])
def test_a_warning_that_is_on_its_way_is_not_the_one_of_the_account_that_takes_over(
    shop: Shop, is_delivered: bool
) -> None:
    made = history(shop)
    go_to(made, 17)
    if is_delivered:
        made.deliver(None, "pending")
    made.merge(("ann", "bob"))
    made.deliver(None, "pending")
    assert made.model.account("bob").is_warned is is_delivered
    go_to(made, 31)
    assert made.model.account("bob").balance == (0 if is_delivered else 80)
    made.teardown()


def test_the_shortest_period_has_a_day_of_warning(shop: Shop) -> None:
    made = history(shop, period=1)
    go_to(made, 1)
    assert [(mail.on, mail.status) for mail in made.model.warnings_of("ann")] == [(2, "pending")]
    made.deliver(None, "pending")
    go_to(made, 2)
    assert made.model.account("ann").balance == 0
    made.teardown()


@pytest.mark.parametrize("is_warned_before", [True, False])
def test_an_account_that_is_off_is_neither_warned_nor_expired(shop: Shop, is_warned_before: bool) -> None:
    made = history(shop)
    if is_warned_before:
        go_to(made, 17)
        made.deliver(None, "pending")
    made.switch_an_account(0)
    go_to(made, 18)
    made.deliver(None, "pending")
    go_to(made, 40)
    assert (made.model.account("ann").balance, len(made.model.warnings_of("ann"))) == (80, int(is_warned_before))
    made.switch_an_account(0)
    made.night("once")
    assert (made.model.account("ann").expires, len(made.model.warnings_of("ann"))) == (54, 1 + is_warned_before)
    made.teardown()


def expire(made: Histories) -> str:
    """Let ann's points of the beginning expire; return the run that took them."""
    go_to(made, 17)
    made.deliver(None, "pending")
    go_to(made, 31)
    (run_id,) = [run_id for run_id, taken in made.model.nights.items() if taken]
    return run_id


def test_held_points_stay_until_they_are_free_and_go_the_next_night(shop: Shop) -> None:
    made = history(shop)
    order_id = made._order(Decimal(80), "ann", "pending", 0)
    made._check_out("reserve", order_id, ("ann", 50), (50, "ann"))
    # Nobody's points go while an order of theirs waits to be looked at.
    made.award(1000)
    expire(made)
    assert (made.model.account("ann").balance, made.model.account("ann").expires) == (50, 31)
    made.expire_holds()
    made.night("once")
    assert (made.model.account("ann").balance, made.model.account("ann").expires) == (0, None)
    made.teardown()


@pytest.mark.parametrize(("is_undone", "balance"), [(False, 80), (True, 80)])
def test_a_late_refund_takes_nothing_after_an_expiry_and_what_it_should_after_its_undo(
    shop: Shop, is_undone: bool, balance: int
) -> None:
    made = history(shop)
    run_id = expire(made)
    made.order(Decimal(80), "ann", "paid", 0)
    made.award(1000)
    if is_undone:
        made._undo(run_id, None, is_mailed=False)
        assert (made.model.account("ann").balance, made.model.account("ann").expires) == (160, 62)
    made.change_status(1, "cancelled", 1000)
    assert made.model.account("ann").balance == balance
    made.teardown()


@pytest.mark.parametrize("is_mailed", [True, False])
def test_what_an_undo_gives_back_goes_again_after_another_warning(shop: Shop, is_mailed: bool) -> None:
    made = history(shop)
    run_id = expire(made)
    for _ in range(2):
        made._undo(run_id, None, is_mailed=is_mailed)
    assert (made.model.account("ann").balance, made.model.account("ann").expires) == (80, 45)
    made.night("twice")
    made.deliver(None, "pending")
    assert [(mail.on, mail.status) for mail in made.model.warnings_of("ann")] == [(31, "sent"), (45, "sent")]
    go_to(made, 45)
    assert made.model.account("ann").balance == 0
    made.teardown()


def test_points_that_come_to_an_empty_account_whose_date_is_over_have_a_date_again(shop: Shop) -> None:
    made = history(shop)
    made.spend("ann", 1)
    go_to(made, 31)
    assert made.model.account("ann").expires is None
    # All dates anew: an empty account gets none.
    made.change_the_period(30, 3)
    made.change_the_period(30, 14)
    made.night("once")
    assert made.model.account("ann").expires is None
    made.order(Decimal(7), "ann", "paid", 45)
    made.award(1000)
    assert (made.model.account("ann").balance, made.model.account("ann").expires) == (7, 31)
    made.night("once")
    assert made.model.account("ann").expires == 45
    made.teardown()


def test_nobody_expires_behind_a_programme_that_is_off_and_all_are_told_anew_when_it_is_on(shop: Shop) -> None:
    made = history(shop)
    go_to(made, 17)
    made.deliver(None, "pending")
    made.switch_the_programme(is_night_between=True)
    go_to(made, 40)
    made.switch_the_programme(is_night_between=True)
    assert (made.model.account("ann").balance, made.model.account("ann").expires) == (80, 54)
    assert [(mail.on, mail.status) for mail in made.model.warnings_of("ann")] == [(31, "sent"), (54, "pending")]
    made.teardown()


def test_a_promised_date_is_kept_where_the_period_gets_shorter_and_a_lead_is_given_to_others(shop: Shop) -> None:
    made = history(shop)
    made.pass_days(2)
    made.order(Decimal(7), "bob", "paid", 0)
    made.award(1000)
    go_to(made, 17)
    made.change_the_period(7, 14)
    made.night("once")
    assert made.model.account("ann").expires == 31
    assert made.model.account("bob").expires == 20
    made.teardown()


def test_warnings_that_can_not_be_delivered_move_the_date_night_after_night(shop: Shop) -> None:
    made = history(shop)
    go_to(made, 17)
    # Paid long ago: points, but no activity.
    made.order(Decimal(7), "ann", "paid", 45)
    made.award(1000)
    for day in range(18, 23):
        made.deliver("ann", "pending")
        go_to(made, day)
    (mail,) = made.model.warnings_of("ann")
    assert (mail.on, mail.points, mail.attempts, made.model.account("ann").expires) == (36, 87, 0, 36)
    for day in (36, 37, 38):
        made.pass_days(day - made.model.today)
        made.deliver("ann", "pending")
    assert (mail.on, mail.status, made.model.account("ann").balance) == (36, "pending", 87)
    made.night("once")
    assert mail.on == 52
    made.teardown()


def test_a_merge_takes_the_later_date_and_what_expired_before_stays_gone(shop: Shop) -> None:
    made = history(shop)
    run_id = expire(made)
    made.order(Decimal(7), "bob", "paid", 0)
    made.award(1000)
    made.merge(("ann", "bob"))
    assert (made.model.account("bob").balance, made.model.account("bob").expires) == (7, 62)
    made.change_status(1, "cancelled", 1000)
    assert made.model.account("bob").balance == 7
    made._undo(run_id, "ann", is_mailed=True)
    assert made.model.account("bob").balance == 87
    assert (made.model.account("bob").expires, made.model.account("bob").is_warned) == (62, False)
    made.teardown()


def test_an_undo_leaves_at_least_the_lead_to_points_that_came_since(shop: Shop) -> None:
    made = history(shop)
    run_id = expire(made)
    made.order(Decimal(7), "ann", "paid", 0)
    made.award(1000)
    go_to(made, 48)
    made.deliver(None, "pending")
    made.pass_days(7)
    assert (made.model.account("ann").expires, made.model.account("ann").is_warned) == (62, True)
    made._undo(run_id, None, is_mailed=False)
    assert (made.model.account("ann").expires, made.model.account("ann").is_warned) == (69, False)
    made.teardown()


def test_the_mail_of_an_undo_is_sent_though_one_of_its_date_was_not_true_once(shop: Shop) -> None:
    made = history(shop, period=7)
    for warned_on, gone_on in ((5, 8), (13, 16)):
        go_to(made, warned_on)
        made.deliver(None, "pending")
        go_to(made, gone_on)
        if gone_on == 8:
            made.order(Decimal(7), "ann", "paid", 0)
            made.award(1000)
    first, second = [run_id for run_id, taken in made.model.nights.items() if taken]
    made._undo(first, None, is_mailed=True)
    made.change_the_period(None, 14)
    made.adjust("ann", 5)
    made.deliver(None, "pending")
    assert made.model.warnings_of("ann")[-1].status == "void"
    made.change_the_period(7, 14)
    made._undo(second, None, is_mailed=True)
    mail = made.model.warnings_of("ann")[-1]
    assert (mail.on, mail.points, mail.status) == (19, 92, "pending")
    made.teardown()


@pytest.mark.parametrize("pair", [("ann", "bob"), ("bob", "ann")])
def test_a_merged_account_has_the_date_of_the_later_activity(shop: Shop, pair: tuple[str, str]) -> None:
    made = history(shop)
    made.pass_days(2)
    made.order(Decimal(7), "bob", "paid", 0)
    made.award(1000)
    made.merge(pair)
    assert (made.model.account("ann").balance, made.model.account("ann").expires) == (87, 33)
    made.teardown()


def test_behind_a_programme_that_is_off_an_undo_gives_a_date_that_nobody_heeds(shop: Shop) -> None:
    made = history(shop)
    run_id = expire(made)
    made.switch_the_programme(is_night_between=False)
    made._undo(run_id, None, is_mailed=False)
    assert (made.model.account("ann").balance, made.model.account("ann").expires) == (80, 32)
    go_to(made, 40)
    made.switch_the_programme(is_night_between=True)
    assert (made.model.account("ann").balance, made.model.account("ann").expires) == (80, 54)
    made.teardown()


def test_a_parked_warning_whose_date_is_over_is_not_tried_again(shop: Shop) -> None:
    made = history(shop)
    go_to(made, 17)
    made.deliver("ann", "parked")
    go_to(made, 31)
    made.look_after_the_mails(is_given_up=False)
    made._compare_accounts()
    assert [(mail.on, mail.status) for mail in made.model.warnings_of("ann")] == [(31, "parked")]
    assert made.model.account("ann").balance == 0
    made.teardown()
