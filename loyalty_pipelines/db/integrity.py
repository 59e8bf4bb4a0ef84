"""The statements of the nightly proof, in one transaction of one snapshot; `integrity_run` says in which order."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, TextClause

from loyalty_pipelines.db import findings
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.integrity import (
    CHECK_FAILED,
    CLASSES,
    CLOSED_BY_NEW_ENTRIES,
    SUBJECT,
    WARNINGS,
    UnprovedMerchant,
)

LOCK = load("integrity/lock")
UNLOCK = load("integrity/unlock")
SNAPSHOT = load("integrity/snapshot")
MERCHANTS = load("integrity/merchants")
OLDEST_MARK = load("integrity/oldest_mark")
STAGE = [load(f"integrity/{name}") for name in ("create_sums", "create_suspects", "create_orders")]
ANALYZE_SUMS = load("integrity/analyze_sums")
ANALYZE_ORDERS = load("integrity/analyze_orders")
SUM_ENTRIES = load("integrity/sum_entries")
SUM_NEW_ENTRIES = load("integrity/sum_new_entries")
SUSPECT_ACCOUNTS = load("integrity/suspect_accounts")
SUSPECT_TOUCHED = load("integrity/suspect_touched")
SUSPECT_SHARES = load("integrity/suspect_shares")
SUSPECT_SHARED_ORDERS = load("integrity/suspect_shared_orders")
FOUND_ORDERS = load("integrity/found_orders")
MAKE_ROOM = load("integrity/make_room")
FIND_IN_ACCOUNTS = load("integrity/find_in_accounts")
FIND_IN_ORDERS = load("integrity/find_in_orders")
FIND_IN_REDEMPTIONS = load("integrity/find_in_redemptions")
FIND_DATES = load("integrity/find_dates")
KEEP_UNSETTLED = load("integrity/keep_unsettled")
FIND_MAILS = load("integrity/find_mails")
SEAL = load("integrity/seal")
SAVE_MARKS = load("integrity/save_marks")
COUNT_PROVED = load("integrity/count_proved")
UNPROVED = load("integrity/unproved")


def lock(conn: Connection) -> None:
    """Wait until no other proof is at work, and keep others waiting until `unlock`, for the session."""
    conn.execute(LOCK)


def unlock(conn: Connection) -> None:
    """Let the next proof begin."""
    conn.execute(UNLOCK)


def merchants(conn: Connection, merchant_ids: Sequence[str] | None) -> Mapping[str, bool]:
    """Return those of the merchants (or of all) that have accounts or entries, and whether what is new is enough.

    It is not where a merchant was never proved, or where its last proof failed.
    """
    return {row.merchant_id: row.is_marked for row in conn.execute(MERCHANTS, _bound(merchant_ids))}


def verified_until(conn: Connection) -> str:
    """Return the transaction below which everything is visible to this snapshot."""
    return conn.execute(SNAPSHOT).scalar_one()


def find_everything(conn: Connection, merchant_ids: Sequence[str] | None) -> None:
    """Compare everything of these merchants, or of all: writes what is wrong into the temporary table `found`."""
    create_tables(conn)
    find_in_balances(conn, merchant_ids)
    _execute(conn, merchant_ids, SUSPECT_SHARES, SUSPECT_SHARED_ORDERS, FOUND_ORDERS, ANALYZE_ORDERS)
    _execute(conn, merchant_ids, FIND_IN_ORDERS, FIND_IN_REDEMPTIONS, FIND_DATES, FIND_MAILS, KEEP_UNSETTLED)


def find_in_balances(conn: Connection, merchant_ids: Sequence[str] | None) -> None:
    """Compare every account with its entries, its open holds and its seal: the part that reads the ledger."""
    _execute(conn, merchant_ids, MAKE_ROOM, SUM_ENTRIES, ANALYZE_SUMS, SUSPECT_ACCOUNTS, FIND_IN_ACCOUNTS)


def find_in_new_entries(conn: Connection, merchant_ids: Sequence[str] | None) -> None:
    """Compare what was written since these merchants were proved last, and what was wrong then."""
    create_tables(conn)
    marks = conn.execute(OLDEST_MARK, _bound(merchant_ids)).mappings().one()
    conn.execute(SUM_NEW_ENTRIES, {**_bound(merchant_ids), **marks, "classes": list(CLOSED_BY_NEW_ENTRIES)})
    _execute(conn, merchant_ids, ANALYZE_SUMS, SUSPECT_TOUCHED, FIND_IN_ACCOUNTS, FOUND_ORDERS, ANALYZE_ORDERS)
    _execute(conn, merchant_ids, FIND_IN_ORDERS, FIND_IN_REDEMPTIONS)


def record(conn: Connection, merchant_ids: Sequence[str] | None, *, is_full: bool, run_id: str | None) -> None:
    """Keep what was found, and close what is gone."""
    findings.record(
        conn,
        subject=SUBJECT,
        closing=(*CLASSES, CHECK_FAILED) if is_full else CLOSED_BY_NEW_ENTRIES,
        warnings=WARNINGS,
        merchant_ids=merchant_ids,
        run_id=run_id,
    )


def seal(conn: Connection, *, is_full: bool) -> None:
    """Seal the history of the accounts that were looked at and are right."""
    conn.execute(SEAL, {"is_full": is_full})


def save_marks(conn: Connection, merchant_ids: Sequence[str], *, verified_until: str, is_full: bool) -> None:
    """Remember up to where these merchants are proved."""
    values = {"merchant_ids": list(merchant_ids), "verified_until": verified_until, "is_full": is_full}
    conn.execute(SAVE_MARKS, values)


def count_proved(conn: Connection) -> Mapping[str, tuple[int, int]]:
    """Return how many accounts and entries of each merchant were looked at."""
    return {row.merchant_id: (row.accounts, int(row.entries)) for row in conn.execute(COUNT_PROVED)}


def unproved(conn: Connection, *, hours: int) -> Sequence[UnprovedMerchant]:
    """Return merchants that were not proved in full within so many hours, or whose last proof failed."""
    return [UnprovedMerchant(**row) for row in conn.execute(UNPROVED, {"hours": hours}).mappings()]


def create_tables(conn: Connection) -> None:
    """Make the temporary tables of a proof; gone at the end of the transaction."""
    for statement in STAGE:
        conn.execute(statement)
    findings.create_found(conn)


def _execute(conn: Connection, merchant_ids: Sequence[str] | None, *statements: TextClause) -> None:
    for statement in statements:
        conn.execute(statement, _bound(merchant_ids))


def _bound(merchant_ids: Sequence[str] | None) -> dict[str, list[str] | None]:
    return {"merchant_ids": None if merchant_ids is None else list(merchant_ids)}
