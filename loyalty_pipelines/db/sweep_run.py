"""The loop around sweeps: each merchant in transactions of its own, its failure kept to itself."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import sources, sweep
from loyalty_pipelines.db.drain import DrainOptions, drain, short_text
from loyalty_pipelines.db.engine import is_connection_loss, reading, with_retries
from loyalty_pipelines.db.merchant_jobs_run import note_merchants
from loyalty_pipelines.db.merchants import merchant_ids
from loyalty_pipelines.domain.awards import DifferenceCount, MerchantAwards

Result = TypeVar("Result")

# The name of the sweep in loyalty.merchant_jobs.
SWEEP_JOB = "awarded_points"


@dataclass(frozen=True, kw_only=True)
class NotedMerchant:
    """How many orders of a merchant the sweep put into the inbox; `failure` is the reason when it could not look."""

    merchant_id: str
    orders: int = 0
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class SweptMerchant:
    """What the sweep of one merchant found and did; `failure` is the reason when it did nothing or not all."""

    merchant_id: str
    found: DifferenceCount | None = None
    awards: MerchantAwards | None = None
    failure: str | None = None

    def metadata(self) -> dict[str, int]:
        """Return the numbers that the UI plots per merchant."""
        if self.awards is None:
            assert self.found is not None
            return {
                "orders to award": self.found.orders_paid,
                "points to award": self.found.points_paid,
                "orders to reverse": self.found.orders_unpaid,
                "points to reverse": self.found.points_unpaid,
                "orders to queue": self.found.orders_undecided,
            }
        return {
            "orders awarded": self.awards.orders_changed,
            "points": self.awards.points_changed,
            "orders unchanged": self.awards.orders_unchanged,
            "orders queued": self.awards.orders_queued,
        }


def sweep_merchants(
    engine: Engine,
    merchants: Sequence[str],
    *,
    paid_from: datetime | None = None,
    paid_to: datetime | None = None,
    is_dry_run: bool = False,
    batch_size: int = DrainOptions.batch_size,
    run_id: str | None = None,
) -> Iterator[SweptMerchant]:
    """Compare all orders of each merchant, award what differs, and yield each merchant as it is done.

    A merchant that fails is yielded with its reason and stops no other; a lost database is raised (and is
    transient). With `is_dry_run` nothing is written. A sweep of all orders is noted in loyalty.merchant_jobs. Raises
    `NoMappingError` when there is no shop to read.
    """
    is_noted = not is_dry_run and paid_from is None and paid_to is None

    def look(merchant_id: str) -> SweptMerchant:
        if is_dry_run:
            return with_retries(lambda: _found(engine, merchant_id, paid_from, paid_to))
        return _sweep(engine, merchant_id, paid_from, paid_to, batch_size, run_id)

    _require_shop(engine)
    for merchant_id, found, failure in _one_by_one(merchants, look):
        swept = found or SweptMerchant(merchant_id=merchant_id, failure=failure)
        if is_noted:
            failures = {merchant_id: swept.failure} if swept.failure else {}
            note_merchants(engine, job=SWEEP_JOB, served=[merchant_id], failures=failures, run_id=run_id)
        yield swept


def note_differences(engine: Engine, merchants: Sequence[str]) -> Iterator[NotedMerchant]:
    """Compare all orders of each merchant, put those that differ into the inbox, and award nothing yet.

    Yields each merchant as it is done, also one that fails; a lost database is raised (and is transient). Raises
    `NoMappingError` when there is no shop to read.
    """
    _require_shop(engine)
    for merchant_id, orders, failure in _one_by_one(merchants, lambda one: _enqueue(engine, one, None, None)):
        yield NotedMerchant(merchant_id=merchant_id, orders=orders or 0, failure=failure)


def _one_by_one(
    merchants: Iterable[str], look: Callable[[str], Result]
) -> Iterator[tuple[str, Result | None, str | None]]:
    """Yield each merchant with what `look` returned, or with the reason why it failed; raise a lost database."""
    for merchant_id in merchants:
        try:
            found = look(merchant_id)
        except DBAPIError as error:
            if is_connection_loss(error):
                raise
            yield merchant_id, None, short_text(error)
        else:
            yield merchant_id, found, None


def _require_shop(engine: Engine) -> None:
    with reading(engine) as conn:
        sources.require_shop(conn)


def _enqueue(engine: Engine, merchant_id: str, paid_from: datetime | None, paid_to: datetime | None) -> int:
    def once() -> int:
        with engine.begin() as conn:
            return sweep.enqueue_differences(conn, merchant_id, paid_from=paid_from, paid_to=paid_to)

    return with_retries(once)


def _found(engine: Engine, merchant_id: str, paid_from: datetime | None, paid_to: datetime | None) -> SweptMerchant:
    with reading(engine) as conn:
        found = sweep.count_differences(conn, merchant_id, paid_from=paid_from, paid_to=paid_to)
    return SweptMerchant(merchant_id=merchant_id, found=found)


def _sweep(
    engine: Engine,
    merchant_id: str,
    paid_from: datetime | None,
    paid_to: datetime | None,
    batch_size: int,
    run_id: str | None,
) -> SweptMerchant:
    _enqueue(engine, merchant_id, paid_from, paid_to)
    report = drain(
        engine,
        merchants=[merchant_id],
        options=DrainOptions(batch_size=batch_size, connections=1),
        actor=SWEEP_JOB,
        run_id=run_id,
    )
    return SweptMerchant(
        merchant_id=merchant_id,
        awards=report.merchants[merchant_id],
        failure=report.failures.get(merchant_id),
    )


def late_orders(engine: Engine, *, untouched_for: timedelta) -> tuple[list[DifferenceCount], dict[str, str]]:
    """Return the merchants with orders that should have their points for `untouched_for` already, and those unreadable.

    The most orders first; the second value is the error's text by merchant. A lost database is raised.
    """

    def look(merchant_id: str) -> DifferenceCount:
        with reading(engine) as conn:
            return sweep.count_differences(conn, merchant_id, untouched_for=untouched_for)

    with reading(engine) as conn:
        merchants = merchant_ids(conn)
    late, failures = [], {}
    for merchant_id, found, failure in _one_by_one(merchants, look):
        if failure is not None:
            failures[merchant_id] = failure
        elif found and found.orders:
            late.append(found)
    return sorted(late, key=lambda found: -found.orders), failures
