"""The reconciliation queue in the words of a test: what a shop reports, what a drain makes of it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from loyalty_pipelines.db import queue
from loyalty_pipelines.db.queue_run import QueueOptions, drain_queue
from loyalty_pipelines.domain.queue import QueuedUpdate, QueueReport, RetryPolicy
from tests.shop import Shop


@dataclass
class Queue:
    """Reports updates that failed, for customer 'ann' unless named, and drains the queue."""

    shop: Shop

    def report(self, order: str, earned: int, redeemed: int, customer: str = "ann", **more: Any) -> int:
        """Report a failed update as the shop does; return its number."""
        values = {
            "customer_id": customer,
            "points_earned": earned,
            "points_redeemed": redeemed,
            "order_id": order,
            "merchant_id": "m1",
            **more,
        }
        arguments = ", ".join(f"p_{name} => :{name}" for name in values)
        with self.shop.engine.begin() as conn:
            return conn.execute(text(f"SELECT loyalty.report_failed_update({arguments})"), values).scalar_one()

    def drain(self, *, page_size: int = 50, max_tries: int = 8, **more: Any) -> QueueReport:
        """Drain what is due; merchants may fail."""
        options = QueueOptions(page_size=page_size, policy=RetryPolicy(max_tries=max_tries))
        return drain_queue(self.shop.engine, options=options, actor="test", run_id="test-run", **more)

    def tried(self, **options: Any) -> dict[str, int]:
        """Drain what is due and return what became of it, without zeros; fail the test when a merchant fails."""
        report = self.drain(**options)
        assert report.failures == {}
        names = ("applied", "found_done", "void", "failed", "parked", "orders", "orders_waiting", "orders_parked")
        return {name: report.total(name) for name in names if report.total(name)}

    def wait(self) -> None:
        """Let the time of all next tries come."""
        self.shop.run("UPDATE loyalty.reconciliation_queue SET next_try_at = now() WHERE resolved_at IS NULL")

    def item(self, number: int) -> QueuedUpdate:
        """Return an item."""
        with self.shop.engine.connect() as conn:
            return queue.item(conn, number)

    def only_item(self) -> QueuedUpdate:
        """Return the only open item."""
        with self.shop.engine.connect() as conn:
            (found,) = queue.find_items(conn, limit=10)
        return found

    def numbers(self) -> list[int]:
        """Return the numbers of the open items."""
        with self.shop.engine.connect() as conn:
            return sorted(one.queue_id for one in queue.find_items(conn, limit=100_000))

    def wait_before_next_try(self, number: int) -> timedelta:
        """Return how long the item waits since its last try."""
        found = self.item(number)
        return found.next_try_at - found.last_seen_at
