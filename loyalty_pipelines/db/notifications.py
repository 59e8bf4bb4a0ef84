"""The outbox: which mails are due, whose they are, what became of them. The caller commits."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import timedelta

from sqlalchemy import Connection

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.notifications import (
    Addressee,
    ClaimedMail,
    MailRetries,
    Notification,
    NotificationNotFoundError,
    NotificationStateError,
    Result,
    SettledMails,
    Status,
    UndeliveredMails,
    UnreachableMails,
)

DUE_MERCHANTS = load("notifications/due_merchants")
CLAIM_PAGE = load("notifications/claim_page")
ADDRESSEES = load("notifications/addressees")
SETTLE = load("notifications/settle")
PUT_OFF = load("notifications/put_off")
GIVE_BACK = load("notifications/give_back")
MAILS = load("notifications/mails")
MAIL = load("notifications/mail")
RETRY = load("notifications/retry")
PARK = load("notifications/park")
UNDELIVERED = load("notifications/undelivered")
SETTLED = load("notifications/settled")
UNREACHABLE = load("notifications/unreachable")

ADDRESSEE = [one.name for one in fields(Addressee)]
# A warning whose date is over waits for the night's warnings to give it another one.
WAIT_FOR_A_DATE = timedelta(hours=1)


def due_merchants(conn: Connection) -> list[str]:
    """Return the merchants with mails that are to be sent now."""
    return list(conn.execute(DUE_MERCHANTS).scalars())


def claim_page(conn: Connection, merchant_id: str, *, page_size: int, lease: timedelta) -> list[ClaimedMail]:
    """Lease up to `page_size` of a merchant's due mails, the oldest first. They are this sender's with the commit."""
    rows = conn.execute(CLAIM_PAGE, {"merchant_id": merchant_id, "page_size": page_size, "lease": lease})
    return sorted((ClaimedMail(**row._mapping) for row in rows), key=lambda one: (one.due_at, one.notification_id))


def addressees(conn: Connection, page: Sequence[ClaimedMail]) -> Mapping[int, Addressee]:
    """Return what is known now of each mail of a page, by its number; without those that are not ours any more."""
    rows = conn.execute(
        ADDRESSEES,
        {
            "merchant_id": page[0].merchant_id,
            "leased_until": page[0].leased_until,
            "notification_ids": [one.notification_id for one in page],
            "dedupe_keys": [one.dedupe_key for one in page],
            "customer_ids": [one.customer_id for one in page],
        },
    ).mappings()
    return {row["notification_id"]: Addressee(**{name: row[name] for name in ADDRESSEE}) for row in rows}


def mark(conn: Connection, mail: ClaimedMail, result: Result, *, retries: MailRetries) -> None:
    """Write what became of a claimed mail."""
    values = {
        "merchant_id": mail.merchant_id,
        "notification_id": mail.notification_id,
        "dedupe_key": mail.dedupe_key,
        "tries": int(result.is_tried),
        "error": result.error,
    }
    if result.status is Status.PENDING:
        first_wait = retries.first_wait if result.is_tried else WAIT_FOR_A_DATE
        waits = {"first_wait": first_wait, "longest_wait": retries.longest_wait}
        conn.execute(PUT_OFF, {**values, **waits, "leased_until": mail.leased_until})
    else:
        conn.execute(SETTLE, {**values, "status": result.status.value, "sent_as": result.sent_as})


def give_back(conn: Connection, mails: Sequence[ClaimedMail]) -> None:
    """End the lease of mails of one page that were not come to; they are due as before."""
    conn.execute(
        GIVE_BACK,
        {
            "merchant_id": mails[0].merchant_id,
            "leased_until": mails[0].leased_until,
            "notification_ids": [one.notification_id for one in mails],
            "due_ats": [one.due_at for one in mails],
        },
    )


def find_mails(
    conn: Connection, *, merchant_id: str | None = None, status: str | None = None, limit: int
) -> list[Notification]:
    """Return up to `limit` mails, the newest first: with a status, or (None) those that are not delivered."""
    values = {"merchant_id": merchant_id, "status": status, "row_limit": limit}
    return [Notification(**row._mapping) for row in conn.execute(MAILS, values)]


def find_mail(conn: Connection, notification_id: int, *, merchant_id: str | None = None) -> Notification:
    """Return one mail; raise `NotificationNotFoundError` when there is none with the number."""
    row = conn.execute(MAIL, {"notification_id": notification_id, "merchant_id": merchant_id}).one_or_none()
    if row is None:
        raise NotificationNotFoundError(notification_id=notification_id, merchant_id=merchant_id)
    return Notification(**row._mapping)


def retry(conn: Connection, *, merchant_id: str | None = None) -> int:
    """Make the failed and parked mails of a merchant, or of all, due now; return how many there are."""
    return conn.execute(RETRY, {"merchant_id": merchant_id, "notification_id": None}).rowcount


def retry_mail(conn: Connection, notification_id: int) -> Notification:
    """Make a failed or parked mail due now and return it as it was.

    Raises `NotificationNotFoundError`, and `NotificationStateError` for one that is neither.
    """
    found = find_mail(conn, notification_id)
    values = {"merchant_id": found.merchant_id, "notification_id": notification_id}
    if not conn.execute(RETRY, values).rowcount:
        raise NotificationStateError(found, expected="one that failed or is parked, and no warning whose date is over")
    return found


def park(conn: Connection, *, merchant_id: str | None = None, reason: str) -> int:
    """Give up on the failed mails of a merchant, or of all; return how many there are."""
    values = {"merchant_id": merchant_id, "notification_id": None, "reason": reason}
    return conn.execute(PARK, values).rowcount


def park_mail(conn: Connection, notification_id: int, *, reason: str) -> Notification:
    """Give up on a mail that waits or has failed, and return it as it was.

    Raises `NotificationNotFoundError`, and `NotificationStateError` for one that is neither or is being sent.
    """
    found = find_mail(conn, notification_id)
    values = {"merchant_id": found.merchant_id, "notification_id": notification_id, "reason": reason}
    if not conn.execute(PARK, values).rowcount:
        raise NotificationStateError(found, expected="one that waits or has failed, and that nobody sends just now")
    return found


def undelivered(conn: Connection) -> list[UndeliveredMails]:
    """Return what customers have not got, per merchant, the one with the oldest mail first."""
    return [
        UndeliveredMails(**{**row, "oldest_seconds": float(row["oldest_seconds"])})
        for row in conn.execute(UNDELIVERED).mappings()
    ]


def settled(conn: Connection, *, hours: int) -> list[SettledMails]:
    """Return what became of the mails of the last hours, by status and reason, the most frequent first."""
    return [SettledMails(**row._mapping) for row in conn.execute(SETTLED, {"hours": hours})]


def unreachable(conn: Connection, *, hours: int, few: int, max_percent: float) -> list[UnreachableMails]:
    """Return the merchants of whose mails of the last hours at least `few` and more than `max_percent` were parked."""
    values = {"hours": hours, "few": few, "max_percent": max_percent}
    return [UnreachableMails(**row._mapping) for row in conn.execute(UNREACHABLE, values)]
