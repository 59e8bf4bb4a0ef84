"""Merging accounts: everything of one customer becomes another one's, in one transaction, which the caller commits."""

from sqlalchemy import Connection, Row

from loyalty_pipelines.db.awards import lock_merchant
from loyalty_pipelines.db.programs import require_merchant
from loyalty_pipelines.db.repairs import CREATE_ACCOUNT, CUSTOMER_IS_LISTED
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.merges import (
    AccountState,
    AlreadyMergedError,
    Merge,
    MergeDoesNotAddUpError,
    MergeReport,
    NothingToMergeError,
)

MERGED_INTO = load("merges/merged_into")
LOCK_ACCOUNTS = load("merges/lock_accounts")
MOVE_POINTS = load("merges/move_points")
MOVE_HOLDS = load("merges/move_holds")
MOVE_UPDATES = load("merges/move_updates")
MOVE_ITEMS = load("merges/move_items")
FOLLOW_MERGE = load("merges/follow_merge")
RECORD_MERGE = load("merges/record_merge")


def merge_accounts(conn: Connection, merge: Merge) -> MergeReport:
    """Move everything that one customer has to another one; the caller commits, or rolls back to have seen the plan.

    The same merge again writes nothing. Raises `MerchantNotFoundError`, `NothingToMergeError`, `AlreadyMergedError`,
    and `MergeDoesNotAddUpError`, after which the caller must roll back.
    """
    require_merchant(conn, merge.merchant_id)
    lock_merchant(conn, merge.merchant_id)
    names = {
        "merchant_id": merge.merchant_id,
        "customer_id": merge.customer_id,
        "into_customer_id": merge.into_customer_id,
    }
    if _is_done(conn, merge, names):
        return MergeReport(merge=merge, is_repeated=True)
    into = {"merchant_id": merge.merchant_id, "customer_id": merge.into_customer_id}
    found = _lock(conn, names)
    source = found.get(merge.customer_id)
    if source is None or not source.is_active:
        raise NothingToMergeError(
            merchant_id=merge.merchant_id, customer_id=merge.customer_id, has_account=source is not None
        )
    is_into_new = merge.into_customer_id not in found
    if is_into_new:
        conn.execute(CREATE_ACCOUNT, into)
        found = _lock(conn, names)
    before = (found[merge.customer_id], found[merge.into_customer_id])
    ids = {
        "merchant_id": merge.merchant_id,
        "from_account_id": before[0].account_id,
        "into_account_id": before[1].account_id,
    }
    moved = conn.execute(MOVE_POINTS, {**ids, "reason": merge.reason, "actor": merge.actor}).one()
    redemptions = conn.execute(MOVE_HOLDS, ids).rowcount
    conn.execute(MOVE_UPDATES, ids)
    conn.execute(MOVE_ITEMS, names)
    conn.execute(FOLLOW_MERGE, names)
    conn.execute(RECORD_MERGE, {**names, "reason": merge.reason, "actor": merge.actor})
    found = _lock(conn, names)
    after = (found[merge.customer_id], found[merge.into_customer_id])
    _require_nothing_lost(merge, before, after)
    return MergeReport(
        merge=merge,
        is_repeated=False,
        before=(_state(before[0]), _state(before[1])),
        after=(_state(after[0]), _state(after[1])),
        orders=moved.orders,
        points_of_orders=int(moved.points),
        points_besides=int(moved.points_besides),
        stamps_besides=int(moved.stamps_besides),
        entries=moved.entries,
        redemptions=redemptions,
        is_into_new=is_into_new,
        is_into_listed=conn.execute(CUSTOMER_IS_LISTED, into).scalar_one(),
    )


def _is_done(conn: Connection, merge: Merge, names: dict[str, str]) -> bool:
    """Whether both have one account already; raises `AlreadyMergedError` where one of them was merged otherwise."""
    now = conn.execute(MERGED_INTO, names).one()
    if now.customer_id == now.into_customer_id and now.customer_id != merge.customer_id:
        return True
    for customer_id, found in ((merge.customer_id, now.customer_id), (merge.into_customer_id, now.into_customer_id)):
        if customer_id != found:
            raise AlreadyMergedError(customer_id=customer_id, into_customer_id=found)
    return False


def _lock(conn: Connection, names: dict[str, str]) -> dict[str, Row]:
    return {row.customer_id: row for row in conn.execute(LOCK_ACCOUNTS, names)}


def _require_nothing_lost(merge: Merge, before: tuple[Row, ...], after: tuple[Row, ...]) -> None:
    for what, name in (("points", "balance"), ("held points", "held"), ("stamps", "stamp_count")):
        had, has = (sum(getattr(account, name) for account in accounts) for accounts in (before, after))
        if had != has:
            raise MergeDoesNotAddUpError(
                merchant_id=merge.merchant_id, customer_id=merge.customer_id, what=what, before=had, after=has
            )


def _state(account: Row) -> AccountState:
    return AccountState(
        customer_id=account.customer_id,
        balance=account.balance,
        held=account.held,
        stamp_count=account.stamp_count,
        last_activity_at=account.last_activity_at,
        expires_at=account.expires_at,
        is_due=account.is_due,
    )
