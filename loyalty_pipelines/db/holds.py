"""Stale holds: found in pages by key, released for as many accounts as can be locked. The caller commits."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.holds import MerchantReleases, StaleHold

STALE_AS_OF = load("holds/stale_as_of")
STALE_HOLDS = load("holds/stale_holds")
LOCK_ACCOUNTS = load("holds/lock_accounts")
RELEASE = load("holds/release")


def stale_as_of(conn: Connection) -> datetime | None:
    """Return the database's time if an open hold is past its own by it; None: nothing is to be released."""
    return conn.execute(STALE_AS_OF).scalar_one_or_none()


def stale_holds(conn: Connection, *, after: StaleHold | None, as_of: datetime, page_size: int) -> list[StaleHold]:
    """Return up to `page_size` stale holds after one (None: from the first), the oldest first."""
    rows = conn.execute(
        STALE_HOLDS,
        {
            "as_of": as_of,
            "after_expires_at": after.expires_at if after else "-infinity",
            "after_merchant_id": after.merchant_id if after else "",
            "after_order_id": after.order_id if after else "",
            "page_size": page_size,
        },
    )
    return [StaleHold(**row._mapping) for row in rows]


def release(
    conn: Connection, holds: Sequence[StaleHold], *, as_of: datetime
) -> tuple[list[MerchantReleases], list[StaleHold]]:
    """Release those whose accounts are free and that are still stale then.

    Returns what was released per merchant, and the holds whose accounts somebody else has locked.
    """
    rows = conn.execute(
        LOCK_ACCOUNTS,
        {
            "merchant_ids": [one.merchant_id for one in holds],
            "account_ids": [one.account_id for one in holds],
        },
    )
    locked = {(row.merchant_id, row.account_id) for row in rows}
    mine = [one for one in holds if (one.merchant_id, one.account_id) in locked]
    released = conn.execute(
        RELEASE,
        {
            "merchant_ids": [one.merchant_id for one in mine],
            "order_ids": [one.order_id for one in mine],
            "account_ids": [one.account_id for one in mine],
            "as_of": as_of,
        },
    )
    return (
        [
            MerchantReleases(merchant_id=row.merchant_id, holds=int(row.holds), points=int(row.points))
            for row in released
        ],
        [one for one in holds if (one.merchant_id, one.account_id) not in locked],
    )
