"""The loop around award batches: transactions, retries, fairness between merchants, isolation of poison orders."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import awards, sources
from loyalty_pipelines.db.engine import is_caused_by_a_row, is_connection_loss, reading, with_retries
from loyalty_pipelines.domain.awards import (
    DEFAULT_BATCH_SIZE,
    AwardReport,
    Batch,
    BatchDoesNotAddUpError,
    InboxPosition,
    MerchantAwards,
    MerchantSettings,
)
from loyalty_pipelines.domain.errors import LoyaltyError

# More poison than this in one merchant and run is not about single orders either.
POISON_LIMIT = 100
SPLIT_BY = 8
# The keys that a checkout writes, too. A batch that meets one reads its orders again before it looks for poison.
OVERTAKEN_CONSTRAINTS = ("ledger_entries_reference_once", "order_points_pkey")
OVERTAKEN_LIMIT = 3


class TooMuchPoisonError(LoyaltyError):
    """So many orders of a merchant failed with database errors that the cause can't be the orders."""

    def __init__(self, *, merchant_id: str, orders: int, detail: str) -> None:
        self.merchant_id = merchant_id
        super().__init__(
            f"Awarding for merchant {merchant_id!r} stopped: {orders} orders failed with a database error, the last "
            f"with: {detail}. They are in loyalty.reconciliation_queue, the others are still in the inbox. "
            "Look for a common cause, for example in the programme or the source mapping, then award again."
        )


@dataclass(frozen=True, kw_only=True)
class DrainOptions:
    """How to drain.

    `batch_size` inbox rows are one transaction. `connections` merchants are worked on at once.
    """

    batch_size: int = DEFAULT_BATCH_SIZE
    connections: int = 2
    is_dry_run: bool = False


def drain(
    engine: Engine,
    *,
    merchants: Sequence[str] | None = None,
    options: DrainOptions | None = None,
    actor: str,
    run_id: str | None = None,
    on_batch: Callable[[Batch], None] | None = None,
) -> AwardReport:
    """Award everything that waits in the inbox, of all merchants or of some, and report per merchant.

    Merchants take turns, a batch each, so that a large one does not keep the others waiting. What fails for one
    merchant is in the report's `failures` and stops no other; a lost database is raised (and is transient), with
    all finished batches committed. Rows that arrive behind the reading position wait for the next drain. Raises
    `NoMappingError` when there is no shop to read.
    """
    options = options or DrainOptions()
    with reading(engine) as conn:
        sources.require_shop(conn)
        if merchants is None:
            merchants = awards.pending_merchants(conn)
    rotation = _Rotation(
        [_MerchantDrain(engine, merchant_id, options=options, actor=actor, run_id=run_id) for merchant_id in merchants],
        on_batch,
    )
    workers = max(1, min(options.connections, len(merchants)))
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="award") as pool:
        futures = [pool.submit(rotation.work) for _ in range(workers)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            rotation.stop()
            raise
    return AwardReport(merchants=rotation.done, failures=rotation.failures, is_dry_run=options.is_dry_run)


class _Rotation:
    """Gives every worker the next merchant in turn until all are done."""

    def __init__(self, drains: list["_MerchantDrain"], on_batch: Callable[[Batch], None] | None) -> None:
        self._waiting = deque(drains)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._on_batch = on_batch
        self.done: dict[str, MerchantAwards] = {}
        self.failures: dict[str, str] = {}

    def stop(self) -> None:
        self._stopped.set()

    def work(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                if not self._waiting:
                    return
                turn = self._waiting.popleft()
            self._take(turn)

    def _take(self, turn: "_MerchantDrain") -> None:
        try:
            batch = turn.next_batch()
        except (LoyaltyError, DBAPIError) as error:
            if is_connection_loss(error):
                self.stop()
                raise
            with self._lock:
                self.done[turn.merchant_id] = turn.awards
                self.failures[turn.merchant_id] = short_text(error)
            return
        with self._lock:
            if batch and self._on_batch:
                self._on_batch(batch)
            if turn.is_done:
                self.done[turn.merchant_id] = turn.awards
            else:
                self._waiting.append(turn)


class _MerchantDrain:
    """Where one merchant's drain is: its position in the inbox and the size of its next batch."""

    def __init__(
        self, engine: Engine, merchant_id: str, *, options: DrainOptions, actor: str, run_id: str | None
    ) -> None:
        self.merchant_id = merchant_id
        self.awards = MerchantAwards(merchant_id=merchant_id)
        self.is_done = False
        self._engine = engine
        self._options = options
        self._actor = actor
        self._run_id = run_id
        self._position = InboxPosition()
        self._size = options.batch_size
        self._is_careful = False
        self._overtaken = 0
        self._poison: set[str] = set()
        self._detail = ""

    def next_batch(self) -> Batch | None:
        """Award the next batch; None if an order in it may be poison: then the next is smaller, down to that order."""
        started = time.monotonic()
        try:
            batch = with_retries(self._award)
        except _BatchRefusedError as refused:
            if self._may_be_overtaken(refused.error):
                self._overtaken += 1
                return None
            if self._size == 1:
                # Not even the queue takes the order, so trying again would never end.
                raise refused.error from refused
            self._size = max(1, self._size // SPLIT_BY)
            self._is_careful = True
            return None
        self._overtaken = 0
        self.awards = self.awards.plus(batch, seconds=time.monotonic() - started)
        self._size = min(self._options.batch_size, self._size * 2)
        self._advance(batch.end)
        self._count_poison(batch)
        return batch

    def _award(self) -> Batch:
        with self._engine.connect() as conn, conn.begin() as transaction:
            awards.lock_merchant(conn, self.merchant_id)
            settings = awards.merchant_settings(conn, self.merchant_id)
            if not settings.is_timezone_known and not self.awards.warnings:
                self.awards = replace(
                    self.awards,
                    warnings=("its time zone is unknown, so expiry dates are computed in UTC",),
                )
            end = awards.batch_end(conn, self.merchant_id, after=self._position, batch_size=self._size)
            award = self._award_one if self._size == 1 else self._award_many
            try:
                batch = award(conn, settings, end)
            except (DBAPIError, BatchDoesNotAddUpError) as error:
                if _is_poison(error):
                    raise _BatchRefusedError(error) from error
                raise
            if self._options.is_dry_run:
                transaction.rollback()
        return batch

    def _award_many(self, conn: Connection, settings: MerchantSettings, end: InboxPosition | None) -> Batch:
        return awards.award_batch(
            conn,
            self.merchant_id,
            after=self._position,
            upto=end,
            settings=settings,
            actor=self._actor,
            run_id=self._run_id,
            is_careful=self._is_careful or self._size == 1,
        )

    def _award_one(self, conn: Connection, settings: MerchantSettings, end: InboxPosition | None) -> Batch:
        """Award one order, or move it to the queue if it is refused, both under one lock.

        With a transaction of its own for the queue, another process could have moved the poison in between, and the
        order behind it would be taken for it.
        """
        try:
            with conn.begin_nested():
                return self._award_many(conn, settings, end)
        except (DBAPIError, BatchDoesNotAddUpError) as error:
            if end is None or not _is_poison(error) or self._may_be_overtaken(error):
                raise
            self._detail = short_text(error)
        return awards.quarantine(
            conn,
            self.merchant_id,
            after=self._position,
            upto=end,
            detail=self._detail,
            actor=self._actor,
            run_id=self._run_id,
        )

    def _may_be_overtaken(self, error: Exception) -> bool:
        """Whether a checkout may have awarded an order of the batch between the batch's reading and its writing."""
        diagnostics = getattr(getattr(error, "orig", None), "diag", None)
        is_key_taken = getattr(diagnostics, "constraint_name", None) in OVERTAKEN_CONSTRAINTS
        return is_key_taken and self._overtaken < OVERTAKEN_LIMIT

    def _count_poison(self, batch: Batch) -> None:
        if not batch.quarantined:
            return
        # One order may wait in the inbox many times.
        self._poison.update(batch.quarantined)
        self._size = min(self._options.batch_size, 2)
        if len(self._poison) > POISON_LIMIT:
            raise TooMuchPoisonError(merchant_id=self.merchant_id, orders=len(self._poison), detail=self._detail)

    def _advance(self, end: InboxPosition | None) -> None:
        if end is None:
            self.is_done = True
        else:
            self._position = end


class _BatchRefusedError(Exception):
    """PostgreSQL refused a batch for a reason that one of its orders may be: `error`."""

    def __init__(self, error: DBAPIError | BatchDoesNotAddUpError) -> None:
        self.error = error
        super().__init__(str(error))


def _is_poison(error: Exception) -> bool:
    if isinstance(error, BatchDoesNotAddUpError):
        return True
    return is_caused_by_a_row(error)


def short_text(error: BaseException) -> str:
    """Return an error's own text without the statement and parameters that SQLAlchemy adds (they are personal data)."""
    if isinstance(error, DBAPIError):
        return str(error.orig).strip().split("\n", maxsplit=1)[0]
    return str(error)
