"""Random histories of orders against a small model that decides alone what each account has.

LOYALTY_HYPOTHESIS_EXAMPLES sets the number of histories (60): a few thousand find what the default only may.
"""

import os
import uuid
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from loyalty_pipelines.db.drain import DrainOptions, drain
from tests.shop import LONG_AGO, Shop

EXAMPLES = int(os.environ.get("LOYALTY_HYPOTHESIS_EXAMPLES", "60"))
AMOUNTS = [Decimal(text) for text in ("0", "0.004", "0.99", "1", "7", "19.99", "250", "1000000000000")]
RATES = [Decimal(text) for text in ("1", "0.002", "1.5", "0")]
CUSTOMERS = ["ann", "bob", "cleo", None]
STATUSES = ["paid", "cancelled", "pending", "refunded", "partially_refunded"]
MOST_POINTS = 2_000_000_000


@dataclass(frozen=True, kw_only=True)
class Order:
    """An order as the shop has it."""

    customer: str | None
    total: Decimal
    status: str
    refunded: Decimal = Decimal(0)


@dataclass(kw_only=True)
class Share:
    """What an account has of an order: points in force, points waived, and those of them that expired."""

    in_force: int = 0
    waived: int = 0
    gone: int = 0


class Model:
    """What the ledger has to show, from the words of the design: it never asks the system."""

    def __init__(self, *, is_debt_allowed: bool) -> None:
        self.is_debt_allowed = is_debt_allowed
        self.rate = RATES[0]
        self.orders: dict[str, Order] = {}
        self.inbox: list[tuple[str, int, str]] = []
        self.balances: dict[str, int] = defaultdict(int)
        self.shares: dict[tuple[str, str], Share] = {}
        self.queued: set[str] = set()

    def note(self, order_id: str, *customers: str | None) -> None:
        for customer in {name or "" for name in customers}:
            self.inbox.append((customer, len(self.inbox), order_id))

    def award(self, batch_size: int) -> None:
        rows, self.inbox = sorted(self.inbox), []
        for start in range(0, len(rows), batch_size):
            wanted = {}
            for order_id in {row[2] for row in rows[start : start + batch_size]}:
                wanted.update(self.look_at(order_id))
            # Credits first, then debits from the oldest order to the newest.
            for key in sorted(wanted, key=lambda key: (wanted[key] < self.deserved(key), key)):
                self.settle(key, wanted[key])

    def look_at(self, order_id: str) -> dict[tuple[str, str], int]:
        """Return what each account deserves for the order now; nothing where it is left as it is."""
        order, holders = self.orders.get(order_id), [key for key in self.shares if key[0] == order_id]
        if order is None:
            return {}
        is_paid = order.status in ("paid", "partially_refunded")
        points = int(max(order.total - order.refunded, Decimal(0)) * self.rate)
        if is_paid and order.customer and points > MOST_POINTS:
            self.queued.add(order_id)
            return {}
        self.queued.discard(order_id)
        if is_paid and not order.customer:
            return {}
        deserved = dict.fromkeys(holders, 0)
        if is_paid and order.customer:
            deserved[order_id, order.customer] = points
        return deserved

    def deserved(self, key: tuple[str, str]) -> int:
        share = self.shares.get(key, Share())
        return share.in_force - share.waived

    def settle(self, key: tuple[str, str], target: int) -> None:
        share, customer = self.shares.setdefault(key, Share()), key[1]
        change = target - share.in_force
        if change < 0:
            there = max(share.in_force - share.waived - share.gone, 0)
            if not self.is_debt_allowed:
                there = min(there, self.balances[customer])
            change = -min(share.in_force - max(target, share.waived if target < share.waived else 0), there)
            change = -min(-min(target - (share.in_force - share.waived), 0), there)
        share.in_force += change
        share.waived = share.in_force - target
        self.balances[customer] += change
