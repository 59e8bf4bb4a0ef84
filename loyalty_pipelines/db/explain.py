"""Reads what explains a balance: an account's entries, and its orders as the shop shows them now."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection

from loyalty_pipelines.db import accounts, programs, sources
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.accounts import AccountNotFoundError
from loyalty_pipelines.domain.explain import (
    Entry,
    ExplainedAccount,
    ExplainedOrder,
    InstantInFutureError,
    MergedCustomer,
    OpenHold,
    explain,
)
from loyalty_pipelines.domain.source_mapping import MappingWithdrawnError

ACCOUNT = load("explain/account")
ENTRIES = load("explain/entries")
ORDERS = load("explain/orders")
HOLDS = load("explain/holds")
MERGES = load("explain/merges")


def explain_account(
    conn: Connection, merchant_id: str, customer_id: str, *, at: datetime | None = None
) -> ExplainedAccount:
    """Explain the balance of exactly this customer's account as of `at` (None: now).

    The connection has to see one snapshot (`reading(engine, is_one_snapshot=True)`): balance and entries are compared.
    Raises `AccountNotFoundError`, `InstantInFutureError`, `LedgerContradictsItselfError`.
    """
    of_customer = {"merchant_id": merchant_id, "customer_id": customer_id}
    account = conn.execute(ACCOUNT, of_customer).one_or_none()
    if account is None:
        queued = len(accounts.open_items(conn, merchant_id, customer_id))
        raise AccountNotFoundError(merchant_id=merchant_id, customer_id=customer_id, queued=queued)
    if at is not None and at > account.read_at:
        raise InstantInFutureError(at=at, now=account.read_at)
    of_account = {"merchant_id": merchant_id, "account_id": account.account_id}
    entries = [Entry(**row._mapping) for row in conn.execute(ENTRIES, {**of_account, "at": at})]
    merges = [MergedCustomer(**row._mapping) for row in conn.execute(MERGES, of_customer)]
    is_now = at is None
    return ExplainedAccount(
        merchant_id=merchant_id,
        customer_id=customer_id,
        at=at,
        read_at=account.read_at,
        is_active=account.is_active,
        first_recorded_at=account.first_recorded_at,
        held=account.held if is_now else None,
        spendable=account.spendable if is_now else None,
        expires_at=account.expires_at if is_now else None,
        explanation=explain(
            entries, merchant_id=merchant_id, customer_id=customer_id, balance=account.balance if is_now else None
        ),
        orders=_orders(conn, merchant_id, account.account_id, entries),
        rules={one.version: one.rules for one in programs.versions(conn, merchant_id)},
        holds=tuple(OpenHold(**row._mapping) for row in conn.execute(HOLDS, of_account)) if is_now else None,
        merged_into=next((one for one in merges if one.customer_id == customer_id), None),
        merged_from=tuple(one for one in merges if one.into_customer_id == customer_id),
    )


def _orders(
    conn: Connection, merchant_id: str, account_id: int, entries: Iterable[Entry]
) -> tuple[ExplainedOrder, ...] | None:
    try:
        sources.require_shop(conn)
    except MappingWithdrawnError:
        return None
    order_ids = list(dict.fromkeys(one.order_id for one in entries if one.order_id is not None))
    rows = conn.execute(ORDERS, {"merchant_id": merchant_id, "account_id": account_id, "order_ids": order_ids})
    return tuple(ExplainedOrder(**row._mapping) for row in rows)
