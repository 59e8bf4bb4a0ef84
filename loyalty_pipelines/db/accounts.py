"""Reads accounts, their entries and what waits in the queue for their customers."""

from sqlalchemy import Connection

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.accounts import Account, LedgerEntry, QueueItem

ACCOUNT = load("accounts/account")
NEWEST_ENTRIES = load("accounts/newest_entries")
OPEN_ITEMS = load("accounts/open_items")


def find_account(conn: Connection, merchant_id: str, customer_id: str) -> Account | None:
    """Return the customer's account at the merchant; None when there is none."""
    row = conn.execute(ACCOUNT, {"merchant_id": merchant_id, "customer_id": customer_id}).one_or_none()
    return None if row is None else Account(**row._mapping)


def newest_entries(conn: Connection, account: Account, *, limit: int) -> list[LedgerEntry]:
    """Return up to `limit` entries of the account, the newest first."""
    rows = conn.execute(
        NEWEST_ENTRIES,
        {"merchant_id": account.merchant_id, "account_id": account.account_id, "row_limit": limit},
    )
    return [LedgerEntry(**row._mapping) for row in rows]


def open_items(conn: Connection, merchant_id: str, customer_id: str) -> list[QueueItem]:
    """Return what waits in the reconciliation queue for the customer, oldest first."""
    rows = conn.execute(OPEN_ITEMS, {"merchant_id": merchant_id, "customer_id": customer_id})
    return [QueueItem(**row._mapping) for row in rows]
