"""The loop around the reconciliation queue: pages, retries, each merchant's failure kept to itself."""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import queue, sources
from loyalty_pipelines.db.awards import lock_merchant
from loyalty_pipelines.db.drain import DrainOptions, drain, short_text
from loyalty_pipelines.db.engine import is_connection_loss, reading, with_retries
from loyalty_pipelines.db.merchant_jobs_run import note_merchants
from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.queue import MerchantTries, QueuePosition, QueueReport, RetryPolicy, TryResult

# Orders that are put into the inbox in one transaction; it only writes their rows.
ORDERS_PER_PAGE = 5_000
# The name of the drain in loyalty.merchant_jobs.
QUEUE_JOB = "reconciliation_queue"


@dataclass(frozen=True, kw_only=True)
class QueueOptions:
    """How to drain the queue: `page_size` items are one transaction, and their accounts stay locked that long."""

    page_size: int = 50
    policy: RetryPolicy = field(default_factory=RetryPolicy)


def is_something_due(engine: Engine) -> bool:
    """Return whether a drain would try anything; raise `NoMappingError` when there is no shop to read."""
    with reading(engine) as conn:
        sources.require_shop(conn)
        return bool(queue.due_merchants(conn)[0])


def drain_queue(
    engine: Engine,
    *,
    merchants: Collection[str] | None = None,
    only: int | None = None,
    options: QueueOptions | None = None,
    actor: str,
    run_id: str | None = None,
) -> QueueReport:
    """Try what is due in the queue, of all merchants or some, or item `only`; each item once, and report per merchant.

    Orders come first, because their points may be what a redemption waits for. Merchants then take turns, a page each.
    What fails for one merchant is in the report's `failures` and stops no other; a lost database is raised (and is
    transient), with all finished pages committed. Raises `NoMappingError` when there is no shop to read.
    """
    with reading(engine) as conn:
        sources.require_shop(conn)
        due, as_of = queue.due_merchants(conn)
    wanted = [merchant_id for merchant_id in due if merchants is None or merchant_id in merchants]
    if as_of is None or not wanted:
        return QueueReport()
    one_pass = _Pass(engine, as_of=as_of, only=only, options=options or QueueOptions(), actor=actor, run_id=run_id)
    one_pass.award_orders(wanted)
    one_pass.try_updates(wanted)
    # Of one item nothing follows for the others.
    if only is None:
        note_merchants(engine, job=QUEUE_JOB, served=wanted, failures=one_pass.failures, run_id=run_id)
    return QueueReport(merchants=one_pass.done, failures=one_pass.failures)


class _Pass:
    """One pass over the queue. What becomes due after `as_of`, a failed item's next try included, is the next one's."""

    def __init__(
        self,
        engine: Engine,
        *,
        as_of: datetime,
        only: int | None,
        options: QueueOptions,
        actor: str,
        run_id: str | None,
    ) -> None:
        self.done: dict[str, MerchantTries] = {}
        self.failures: dict[str, str] = {}
        self._engine = engine
        self._as_of = as_of
        self._only = only
        self._options = options
        self._actor = actor
        self._run_id = run_id

    def award_orders(self, merchants: Sequence[str]) -> None:
        """Put the due orders into the inbox and award them; an award that decides one closes its item."""
        queued: dict[str, list[int]] = {}
        for merchant_id in merchants:
            with self._keeping_failure(merchant_id):
                queued[merchant_id] = self._enqueue_orders(merchant_id)
        queued = {merchant_id: queue_ids for merchant_id, queue_ids in queued.items() if queue_ids}
        if not queued:
            return
        report = drain(
            self._engine,
            merchants=list(queued),
            options=DrainOptions(connections=1),
            actor=self._actor,
            run_id=self._run_id,
        )
        self.failures.update(report.failures)
        with reading(self._engine) as conn:
            for merchant_id, queue_ids in queued.items():
                waiting, parked = queue.count_open(conn, queue_ids)
                self._count(merchant_id, orders=len(queue_ids), orders_waiting=waiting, orders_parked=parked)

    def try_updates(self, merchants: Sequence[str]) -> None:
        """Try the due updates and redemptions; merchants take turns, a page each."""
        waiting = deque((merchant_id, QueuePosition()) for merchant_id in merchants)
        while waiting:
            merchant_id, after = waiting.popleft()
            with self._keeping_failure(merchant_id):
                results, end = with_retries(partial(self._try_page, merchant_id, after))
                self._count(merchant_id, **{result.value: number for result, number in results.items()})
                if end is not None:
                    waiting.append((merchant_id, end))

    def _enqueue_orders(self, merchant_id: str) -> list[int]:
        queue_ids: list[int] = []
        last: str | None = ""
        while last is not None:
            page, last = with_retries(partial(self._enqueue_page, merchant_id, last))
            queue_ids += page
        return queue_ids

    def _enqueue_page(self, merchant_id: str, after: str) -> tuple[list[int], str | None]:
        with self._engine.begin() as conn:
            return queue.enqueue_orders(
                conn,
                merchant_id,
                after=after,
                as_of=self._as_of,
                page_size=ORDERS_PER_PAGE,
                policy=self._options.policy,
                only=self._only,
            )

    def _try_page(self, merchant_id: str, after: QueuePosition) -> tuple[Counter[TryResult], QueuePosition | None]:
        """Try a page of items in one transaction; return the results and where the next page begins (None: no more)."""
        # Whose items those without a merchant are turns out at the try. One account per transaction then, because no
        # lock of their merchant keeps others from meeting several in another order.
        page_size = self._options.page_size if merchant_id else 1
        results: Counter[TryResult] = Counter()
        parked: set[str] = set()
        with self._engine.begin() as conn:
            lock_merchant(conn, merchant_id)
            page = queue.lock_page(
                conn, merchant_id, after=after, as_of=self._as_of, page_size=page_size, only=self._only
            )
            for one in page:
                if one.customer_id in parked:
                    continue
                result = queue.try_item(
                    conn,
                    merchant_id,
                    one.queue_id,
                    policy=self._options.policy,
                    actor=self._actor,
                    run_id=self._run_id,
                )
                results[result] += 1
                if result is TryResult.PARKED:
                    parked.add(one.customer_id)
        return results, page[-1] if len(page) == page_size else None

    def _count(self, merchant_id: str, **counts: int) -> None:
        if any(counts.values()):
            self.done[merchant_id] = self.done.get(merchant_id, MerchantTries(merchant_id=merchant_id)).plus(**counts)

    @contextmanager
    def _keeping_failure(self, merchant_id: str) -> Iterator[None]:
        try:
            yield
        except (LoyaltyError, DBAPIError) as error:
            if is_connection_loss(error):
                raise
            self.failures[merchant_id] = short_text(error)
