"""Awarding: one batch of one merchant is one transaction, which the caller commits."""

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection, Row

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.awards import (
    DATABASE_ERROR,
    QUEUE_OUTCOMES,
    SETTLED_OUTCOMES,
    SKIPPED_OUTCOMES,
    Batch,
    BatchDoesNotAddUpError,
    InboxPosition,
    MerchantSettings,
)

PENDING_MERCHANTS = load("awards/pending_merchants")
LOCK_MERCHANT = load("awards/lock_merchant")
MERCHANT_SETTINGS = load("awards/merchant_settings")
CREATE_LINES = load("awards/create_lines")
BATCH_END = load("awards/batch_end")
STAGE_BATCH = load("awards/stage_batch")
PLAN_BY_KEY = load("awards/plan_by_key")
PLAN_FREELY = load("awards/plan_freely")
COUNT_LINES = load("awards/count_lines")
SET_ASIDE_AMBIGUOUS = load("awards/set_aside_ambiguous")
ADD_MOVED_LINES = load("awards/add_moved_lines")
RENUMBER_MOVED_LINES = load("awards/renumber_moved_lines")
CREATE_ACCOUNTS = load("awards/create_accounts")
ENROLL_NEWCOMERS = load("awards/enroll_newcomers")
REDEMPTIONS_DUE = load("awards/redemptions_due")
LOCK_REDEEMING_ACCOUNTS = load("awards/lock_redeeming_accounts")
GIVE_BACK_REDEMPTIONS = load("awards/give_back_redemptions")
SETTLE_BATCH = load("awards/settle_batch")
ANNOUNCE_REWARDS = load("awards/announce_rewards")
TAKE_REDEMPTIONS = load("awards/take_redemptions")
CLOSE_REDEMPTIONS = load("awards/close_redemptions")
QUEUE_ORDERS = load("awards/queue_orders")
CLOSE_QUEUED = load("awards/close_queued")
LOG_BATCH = load("awards/log_batch")
QUARANTINE_ORDER = load("awards/quarantine_order")


def pending_merchants(conn: Connection) -> list[str]:
    """Return the ids of the merchants that have orders waiting in the inbox, sorted."""
    return list(conn.execute(PENDING_MERCHANTS).scalars())


def merchant_settings(conn: Connection, merchant_id: str) -> MerchantSettings:
    """Return what awarding needs to know of a merchant, also of one that the shop no longer lists."""
    row = conn.execute(MERCHANT_SETTINGS, {"merchant_id": merchant_id}).one()
    is_known = row.is_timezone_usable and _is_timezone(row.timezone)
    return MerchantSettings(
        currency=row.currency,
        timezone=row.timezone if is_known else "UTC",
        is_timezone_known=is_known,
        is_debt_allowed=row.is_debt_allowed,
        points_expiration_days=row.points_expiration_days,
        stamp_target=row.stamp_target,
        has_redemptions=row.has_redemptions,
    )


def _is_timezone(name: str | None) -> bool:
    """Whether it is an IANA name: PostgreSQL also knows "UTC+3", and means three hours west by it."""
    try:
        return bool(name) and bool(ZoneInfo(str(name)))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False


def award_batch(
    conn: Connection,
    merchant_id: str,
    *,
    after: InboxPosition,
    upto: InboxPosition | None,
    settings: MerchantSettings,
    actor: str,
    run_id: str | None,
    is_careful: bool = False,
) -> Batch:
    """Award the inbox rows of a merchant in (after, upto]; the caller commits, or rolls back for a dry run.

    `upto` is the `batch_end` under the merchant's lock; None: nothing waits. Does the same thing again without effect:
    rows are claimed once, and an order that has its points gets none.
    With `is_careful` no other order of the shop is evaluated on the way, so that one which raises is found.
    Raises `BatchDoesNotAddUpError` when what was written does not tie up; the caller must roll back then.
    """
    conn.execute(CREATE_LINES)
    if is_careful:
        conn.execute(PLAN_BY_KEY)
    claimed = _claim(conn, merchant_id, after=after, upto=upto, currency=settings.currency)
    if is_careful:
        conn.execute(PLAN_FREELY)
    counted = _count(conn)
    if sum(row.lines for row in counted.values()) > claimed.orders and conn.execute(SET_ASIDE_AMBIGUOUS).rowcount:
        counted = _count(conn)
    has_moved = any(row.former_lines for row in counted.values())
    if has_moved:
        conn.execute(ADD_MOVED_LINES)
        conn.execute(RENUMBER_MOVED_LINES)
    by_whom = {"merchant_id": merchant_id, "actor": actor, "run_id": run_id}
    enrolled = _Enrolled()
    if has_moved or any(row.new_orders for row in counted.values() if row.outcome == "earning"):
        enrolled = _enroll(conn, by_whom)
    due = _lock_redemptions(conn, merchant_id, is_any=settings.has_redemptions)
    if due["give_back"]:
        # Before the awards: what is given back is there for what they take.
        conn.execute(GIVE_BACK_REDEMPTIONS, {**by_whom, "order_ids": due["give_back"]})
    settled = _settle(conn, merchant_id, settings=settings, actor=actor, run_id=run_id)
    if settings.stamp_target and settled.entries_written:
        conn.execute(ANNOUNCE_REWARDS, {"merchant_id": merchant_id, "stamp_target": settings.stamp_target})
    if due["take"]:
        conn.execute(TAKE_REDEMPTIONS, {**by_whom, "order_ids": due["take"]})
    if settings.has_redemptions:
        conn.execute(CLOSE_REDEMPTIONS, {"merchant_id": merchant_id, "order_ids": due["take"]})
    conn.execute(CLOSE_QUEUED, {"merchant_id": merchant_id})
    if any(outcome in QUEUE_OUTCOMES for outcome in counted):
        conn.execute(
            QUEUE_ORDERS,
            {"merchant_id": merchant_id, "run_id": run_id, "queue_outcomes": list(QUEUE_OUTCOMES)},
        )
    batch = _tie_up(merchant_id, claimed, counted, settled, enrolled)
    _log(conn, batch, oldest_enqueued_at=claimed.oldest_enqueued_at, actor=actor, run_id=run_id)
    return batch


def _count(conn: Connection) -> dict[str, Row]:
    return {row.outcome: row for row in conn.execute(COUNT_LINES)}


def _lock_redemptions(conn: Connection, merchant_id: str, *, is_any: bool) -> dict[str, list[str]]:
    """Return the ids of the batch's orders whose redemption needs something, by step, with the accounts locked."""
    due: dict[str, list[str]] = {"give_back": [], "take": []}
    if is_any:
        for row in conn.execute(REDEMPTIONS_DUE, {"merchant_id": merchant_id}):
            due[row.step].append(row.order_id)
    order_ids = [*due["give_back"], *due["take"]]
    if order_ids:
        conn.execute(LOCK_REDEEMING_ACCOUNTS, {"merchant_id": merchant_id, "order_ids": order_ids})
    return due


class _Enrolled:
    """How many accounts the batch has made and enrolled, and the points of their welcome bonus, on both sides."""

    def __init__(self, accounts: int = 0, points_in_entries: int = 0, points_in_balances: int = 0) -> None:
        self.accounts = accounts
        self.points_in_entries = points_in_entries
        self.points_in_balances = points_in_balances


def _enroll(conn: Connection, by_whom: dict[str, str | None]) -> _Enrolled:
    made = conn.execute(CREATE_ACCOUNTS, {"merchant_id": by_whom["merchant_id"]}).all()
    if not made:
        return _Enrolled()
    ids = {"account_ids": [row.account_id for row in made], "customer_ids": [row.customer_id for row in made]}
    given = conn.execute(ENROLL_NEWCOMERS, {**by_whom, **ids}).one()
    return _Enrolled(len(made), given.points_in_entries, given.points_in_balances)


class _Claimed:
    """What staging claimed: the end of the batch (None: the inbox is read to its end), how much, and its oldest row."""

    def __init__(self, end: InboxPosition | None, rows: int, orders: int, oldest_enqueued_at: datetime | None) -> None:
        self.end = end
        self.rows = rows
        self.orders = orders
        self.oldest_enqueued_at = oldest_enqueued_at


def _claim(
    conn: Connection, merchant_id: str, *, after: InboxPosition, upto: InboxPosition | None, currency: str | None
) -> _Claimed:
    end = upto or after
    row = conn.execute(
        STAGE_BATCH,
        {
            "merchant_id": merchant_id,
            "after_customer_id": after.customer_id,
            "after_inbox_id": after.inbox_id,
            "upto_customer_id": end.customer_id,
            "upto_inbox_id": end.inbox_id,
            "currency": currency,
        },
    ).one()
    return _Claimed(_next_position(upto), row.rows_claimed, row.orders_claimed, row.oldest_enqueued_at)


def _next_position(end: InboxPosition | None) -> InboxPosition | None:
    return None if end is None or end.is_last else end


def batch_end(conn: Connection, merchant_id: str, *, after: InboxPosition, batch_size: int) -> InboxPosition | None:
    """Return the position of the `batch_size`-th waiting row after `after`, or of the last; None if none waits."""
    row = conn.execute(
        BATCH_END,
        {
            "merchant_id": merchant_id,
            "after_customer_id": after.customer_id,
            "after_inbox_id": after.inbox_id,
            "batch_size": batch_size,
        },
    ).one_or_none()
    return None if row is None else InboxPosition(**row._mapping)


def _settle(conn: Connection, merchant_id: str, *, settings: MerchantSettings, actor: str, run_id: str | None) -> Row:
    return conn.execute(
        SETTLE_BATCH,
        {
            "merchant_id": merchant_id,
            "actor": actor,
            "run_id": run_id,
            "is_debt_allowed": settings.is_debt_allowed,
            "expiration_days": settings.points_expiration_days,
            "timezone": settings.timezone,
        },
    ).one()


def _tie_up(merchant_id: str, claimed: _Claimed, counted: dict[str, Row], settled: Row, enrolled: _Enrolled) -> Batch:
    outcomes = {name: row.new_orders + row.tracked_orders for name, row in counted.items()}
    skipped = sum(outcomes.get(name, 0) for name in SKIPPED_OUTCOMES) + sum(
        counted[name].new_orders for name in ("unpaid", "no_programme") if name in counted
    )
    settleable = sum(outcomes.get(name, 0) for name in SETTLED_OUTCOMES)
    queued = sum(outcomes.get(name, 0) for name in QUEUE_OUTCOMES)
    # Those that have points were seen in the shop once, and keep them.
    missing = counted["order_missing"].new_orders if "order_missing" in counted else 0
    unchanged = settleable + sum(outcomes.get(name, 0) for name in SKIPPED_OUTCOMES) - skipped
    batch = Batch(
        merchant_id=merchant_id,
        rows_claimed=claimed.rows,
        rows_repeated=claimed.rows - claimed.orders,
        orders_changed=settled.orders_changed,
        orders_unchanged=unchanged - settled.orders_changed,
        orders_queued=queued,
        orders_skipped=skipped,
        orders_missing=missing,
        entries_written=settled.entries_written,
        points_changed=int(settled.points_in_entries),
        outcomes=outcomes,
        end=claimed.end,
        accounts_enrolled=enrolled.accounts,
        bonus_points=enrolled.points_in_entries,
    )
    _assert_equal(merchant_id, "orders claimed and orders decided differ", claimed.orders, sum(outcomes.values()))
    _assert_equal(
        merchant_id,
        "points in entries and change of balances differ",
        int(settled.points_in_entries),
        int(settled.points_in_balances),
    )
    _assert_equal(
        merchant_id,
        "points in welcome bonuses and change of balances differ",
        enrolled.points_in_entries,
        enrolled.points_in_balances,
    )
    if batch.orders_unchanged < 0:
        raise BatchDoesNotAddUpError(
            merchant_id=merchant_id,
            what="more orders changed than could",
            left=settled.orders_changed,
            right=unchanged,
        )
    return batch


def _assert_equal(merchant_id: str, what: str, left: int, right: int) -> None:
    if left != right:
        raise BatchDoesNotAddUpError(merchant_id=merchant_id, what=what, left=left, right=right)


def _log(
    conn: Connection, batch: Batch, *, oldest_enqueued_at: datetime | None, actor: str, run_id: str | None
) -> None:
    if not batch.rows_claimed:
        return
    conn.execute(
        LOG_BATCH,
        {
            "merchant_id": batch.merchant_id,
            "run_id": run_id,
            "actor": actor,
            "rows_claimed": batch.rows_claimed,
            "rows_repeated": batch.rows_repeated,
            "orders_changed": batch.orders_changed,
            "orders_unchanged": batch.orders_unchanged,
            "orders_queued": batch.orders_queued,
            "orders_skipped": batch.orders_skipped,
            "orders_missing": batch.orders_missing,
            "entries_written": batch.entries_written,
            "points_changed": batch.points_changed,
            "oldest_enqueued_at": oldest_enqueued_at,
        },
    )


def lock_merchant(conn: Connection, merchant_id: str) -> None:
    """Wait for the merchant's award lock; it is held until the transaction ends."""
    conn.execute(LOCK_MERCHANT, {"merchant_id": merchant_id})


def quarantine(
    conn: Connection,
    merchant_id: str,
    *,
    after: InboxPosition,
    upto: InboxPosition,
    detail: str,
    actor: str,
    run_id: str | None,
) -> Batch:
    """Move the order between two positions, which PostgreSQL refuses to process, to the queue: a batch of its own."""
    moved = conn.execute(
        QUARANTINE_ORDER,
        {
            "merchant_id": merchant_id,
            "after_customer_id": after.customer_id,
            "after_inbox_id": after.inbox_id,
            "upto_customer_id": upto.customer_id,
            "upto_inbox_id": upto.inbox_id,
            "detail": detail,
            "run_id": run_id,
        },
    ).one()
    batch = Batch(
        merchant_id=merchant_id,
        rows_claimed=moved.rows_claimed,
        rows_repeated=moved.rows_claimed - len(moved.order_ids),
        orders_changed=0,
        orders_unchanged=0,
        orders_queued=len(moved.order_ids),
        orders_skipped=0,
        orders_missing=0,
        entries_written=0,
        points_changed=0,
        outcomes={DATABASE_ERROR: len(moved.order_ids)},
        quarantined=tuple(moved.order_ids),
        end=_next_position(upto),
    )
    _log(conn, batch, oldest_enqueued_at=moved.oldest_enqueued_at, actor=actor, run_id=run_id)
    return batch
