"""The reconciliation queue: what waits, and one item or page of it at a time. The caller commits."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from loyalty_pipelines.db.awards import lock_merchant
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.queue import (
    MerchantQueue,
    NothingParkedError,
    QueuedUpdate,
    QueueItemBlockedError,
    QueueItemNotFoundError,
    QueueItemResolvedError,
    QueuePosition,
    RetryPolicy,
    TryResult,
)

DUE_MERCHANTS = load("queue/due_merchants")
PLAN_BY_KEY = load("queue/plan_by_key")
LOCK_PAGE = load("queue/lock_page")
TRY_ITEM = load("queue/try_item")
ENQUEUE_ORDERS = load("queue/enqueue_orders")
COUNT_OPEN = load("queue/count_open")
ITEMS = load("queue/items")
SUMMARY = load("queue/summary")
MAKE_DUE = load("queue/make_due")
UNPARK = load("queue/unpark")
RESOLVE = load("queue/resolve")
LOCK_HOLD = load("queue/lock_hold")
GIVE_BACK_HOLD = load("queue/give_back_hold")
WAIVE_HOLD = load("queue/waive_hold")


def due_merchants(conn: Connection) -> tuple[list[str], datetime | None]:
    """Return the merchants with items to be tried ('': merchant unknown), and the instant as of which they are due."""
    rows = conn.execute(DUE_MERCHANTS).all()
    return [row.merchant_id for row in rows], rows[0].as_of if rows else None


def lock_page(
    conn: Connection,
    merchant_id: str,
    *,
    after: QueuePosition,
    as_of: datetime,
    page_size: int,
    only: int | None = None,
) -> list[QueuePosition]:
    """Lock up to `page_size` due updates and redemptions after a position, only item `only` if given; return them."""
    conn.execute(PLAN_BY_KEY)
    rows = conn.execute(
        LOCK_PAGE,
        {
            "merchant_id": merchant_id,
            "after_customer_id": after.customer_id,
            "after_queue_id": after.queue_id,
            "as_of": as_of,
            "page_size": page_size,
            "only_queue_id": only,
        },
    )
    return [QueuePosition(customer_id=row.customer_id, queue_id=row.queue_id) for row in rows]


def try_item(
    conn: Connection, merchant_id: str, queue_id: int, *, policy: RetryPolicy, actor: str, run_id: str | None
) -> TryResult:
    """Apply an item that this transaction has locked, and resolve it; or set its next try, or park it."""
    values = {"merchant_id": merchant_id, "queue_id": queue_id, "actor": actor, "run_id": run_id}
    return TryResult(conn.execute(TRY_ITEM, {**values, **_waits(policy)}).scalar_one())


def enqueue_orders(
    conn: Connection,
    merchant_id: str,
    *,
    after: str,
    as_of: datetime,
    page_size: int,
    policy: RetryPolicy,
    only: int | None = None,
) -> tuple[list[int], str | None]:
    """Put up to `page_size` due orders after an id into the inbox; return their items and the last order's id."""
    rows = conn.execute(
        ENQUEUE_ORDERS,
        {
            "merchant_id": merchant_id,
            "after_order_id": after,
            "as_of": as_of,
            "page_size": page_size,
            "only_queue_id": only,
            **_waits(policy),
        },
    ).all()
    return [row.queue_id for row in rows], rows[-1].order_id if rows else None


def _waits(policy: RetryPolicy) -> dict[str, object]:
    return {"max_tries": policy.max_tries, "first_wait": policy.first_wait, "longest_wait": policy.longest_wait}


def count_open(conn: Connection, queue_ids: Sequence[int]) -> tuple[int, int]:
    """Return how many of the items still wait, and how many of those are parked."""
    row = conn.execute(COUNT_OPEN, {"queue_ids": list(queue_ids)}).one()
    return row.items, row.parked


def find_items(
    conn: Connection,
    *,
    merchant_id: str | None = None,
    is_parked: bool = False,
    is_all: bool = False,
    limit: int,
) -> list[QueuedUpdate]:
    """Return up to `limit` open items, the newest first; only parked ones, or all that ever were."""
    values = {"merchant_id": merchant_id, "is_parked": is_parked, "is_all": is_all, "row_limit": limit}
    return [QueuedUpdate(**row._mapping) for row in conn.execute(ITEMS, {**values, "queue_id": None})]


def item(conn: Connection, queue_id: int) -> QueuedUpdate:
    """Return one item, resolved or not; raise `QueueItemNotFoundError` when no item has the number."""
    row = conn.execute(
        ITEMS, {"merchant_id": None, "is_parked": False, "is_all": True, "row_limit": 1, "queue_id": queue_id}
    ).one_or_none()
    if row is None:
        raise QueueItemNotFoundError(queue_id=queue_id)
    return QueuedUpdate(**row._mapping)


def queue_summary(conn: Connection) -> list[MerchantQueue]:
    """Return what waits per merchant, the one with the oldest item first."""
    return [
        MerchantQueue(
            merchant_id=row.merchant_id,
            items=row.items,
            oldest_at=row.oldest_at,
            oldest_seconds=float(row.oldest_seconds),
            points_at_stake=int(row.points_at_stake),
            parked=row.parked,
        )
        for row in conn.execute(SUMMARY)
    ]


def make_due(conn: Connection, *, merchant_id: str | None = None) -> int:
    """Make the open items of a merchant, or of all, due now and unpark them; return how many there are."""
    return conn.execute(MAKE_DUE, {"merchant_id": merchant_id, "queue_id": None}).rowcount


def make_item_due(conn: Connection, queue_id: int) -> QueuedUpdate:
    """Make one open item due now and unpark it; return it.

    Raises `QueueItemNotFoundError`, `QueueItemResolvedError`, and `QueueItemBlockedError` when a try would pass it by.
    """
    found = _open_item(conn, queue_id)
    if found.is_shortened or found.blocked_by is not None:
        raise QueueItemBlockedError(found)
    conn.execute(MAKE_DUE, {"merchant_id": found.merchant_id, "queue_id": queue_id})
    return found


def unpark(conn: Connection, merchant_id: str, customer_id: str) -> int:
    """Let a customer's parked items be tried again from the start; return how many; raise `NothingParkedError`."""
    items = conn.execute(UNPARK, {"merchant_id": merchant_id, "customer_id": customer_id}).rowcount
    if not items:
        raise NothingParkedError(merchant_id=merchant_id, customer_id=customer_id)
    return items


def resolve(conn: Connection, queue_id: int, *, reason: str, actor: str) -> QueuedUpdate:
    """Resolve an open item by hand and return it as it is then.

    What a redemption owes is waived with it, or the sweep would bring it back; what it has reserved is given back.
    Raises `QueueItemNotFoundError` and `QueueItemResolvedError`.
    """
    # Awards lock accounts before they close items, this does the reverse: whoever has the lock goes first.
    lock_merchant(conn, item(conn, queue_id).merchant_id)
    found = _open_item(conn, queue_id)
    key = {"merchant_id": found.merchant_id, "reason": reason, "actor": actor}
    if found.operation == "redeem":
        order = {**key, "order_id": found.order_id}
        status = conn.execute(LOCK_HOLD, order).scalar_one_or_none()
        if status == "open":
            conn.execute(GIVE_BACK_HOLD, order)
        if status in ("open", "released", "restored"):
            conn.execute(WAIVE_HOLD, order)
    conn.execute(RESOLVE, {**key, "queue_id": queue_id})
    return item(conn, queue_id)


def _open_item(conn: Connection, queue_id: int) -> QueuedUpdate:
    found = item(conn, queue_id)
    if found.resolved_at is not None:
        raise QueueItemResolvedError(found)
    return found
