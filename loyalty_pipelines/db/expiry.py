"""Expiry of one merchant, step by step and page by page; each page is a transaction, which the caller commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row

from loyalty_pipelines.db.awards import lock_merchant
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.expiry import (
    ExpiryPlan,
    Forecast,
    ForecastDay,
    Limits,
    MerchantExpiry,
    MerchantTerms,
    Page,
    Position,
)

NOW = load("expiry/now")
SURVEY = load("expiry/survey")
BEGIN_RUN = load("expiry/begin_run")
ADD_IDLE_RUNS = load("expiry/add_idle_runs")
RESCHEDULE_PAGE = load("expiry/reschedule_page")
RECORD_TERMS = load("expiry/record_terms")
COUNT_LATE_WARNINGS = load("expiry/count_late_warnings")
COUNT_UNTOLD = load("expiry/count_untold")
WARN_PAGE = load("expiry/warn_page")
VOID_WARNINGS = load("expiry/void_warnings")
RENEW_PAGE = load("expiry/renew_page")
PLAN = load("expiry/plan")
SAVE_PLAN = load("expiry/save_plan")
EXPIRE_PAGE = load("expiry/expire_page")
ADD_TO_RUN = load("expiry/add_to_run")
NEXT_DUE = load("expiry/next_due")
FINISH_RUN = load("expiry/finish_run")
NEXT_ACCOUNT = load("expiry/next_account")
RUNS = load("expiry/runs")
FORECAST = load("expiry/forecast")


class PageDoesNotAddUpError(LoyaltyError):
    """Points in entries and balances differ after a page; the caller rolls back."""

    def __init__(self, *, merchant_id: str, entries: int, balances: int) -> None:
        super().__init__(
            f"Expiry of merchant {merchant_id!r} was rolled back: its entries take {entries} points, the balances "
            f"{balances}. Nothing was written; please report it."
        )


def now(conn: Connection) -> datetime:
    """Return the database's time."""
    return conn.execute(NOW).scalar_one()


def survey(conn: Connection, merchants: Sequence[str], *, as_of: datetime) -> list[MerchantTerms]:
    """Return what a run has to know of each merchant that has a programme."""
    rows = conn.execute(SURVEY, {"merchant_ids": list(merchants), "as_of": as_of})
    return [MerchantTerms(**row._mapping) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Begun:
    """The run that goes on, under its own id, and what it has taken before."""

    run_id: str
    accounts_expired: int
    points_expired: int


def begin_run(conn: Connection, merchant_id: str, *, run_id: str, as_of: datetime, actor: str) -> Begun:
    """Open a run, or go on with one of this night that did not get to its end."""
    row = conn.execute(BEGIN_RUN, {"merchant_id": merchant_id, "run_id": run_id, "as_of": as_of, "actor": actor}).one()
    return Begun(**row._mapping)


def add_idle_runs(
    conn: Connection, idle: Sequence[MerchantTerms], *, run_id: str, as_of: datetime, actor: str
) -> list[MerchantExpiry]:
    """Record finished runs for merchants for whom there is nothing to do, and return them.

    Of a run that is repeated they have what it did before.
    """
    merchants = [terms.merchant_id for terms in idle]
    are_expiring = [terms.is_expiring for terms in idle]
    conn.execute(
        ADD_IDLE_RUNS,
        {"merchant_ids": merchants, "are_expiring": are_expiring, "run_id": run_id, "as_of": as_of, "actor": actor},
    )
    return runs(conn, merchants, run_id)


def reschedule_page(
    conn: Connection, terms: MerchantTerms, *, run_id: str, as_of: datetime, after: Position, page_size: int
) -> Page:
    """Compute expires_at of a page of accounts, in the order of their numbers, by the terms of now."""
    lock_merchant(conn, terms.merchant_id)
    row = conn.execute(
        RESCHEDULE_PAGE,
        {
            "merchant_id": terms.merchant_id,
            "expiration_days": terms.points_expiration_days,
            "timezone": terms.timezone,
            "known_timezone": terms.known_timezone or terms.timezone,
            "is_resumed": terms.was_program_active is False,
            "as_of": as_of,
            "warn_until": terms.warn_until,
            "after_account_id": after.account_id,
            "page_size": page_size,
        },
    ).one()
    if row.accounts:
        _count(conn, terms.merchant_id, run_id, accounts_rescheduled=row.accounts)
    last = None if row.last_account_id is None else Position(account_id=row.last_account_id)
    return Page(accounts=row.accounts, points=0, accounts_moved=0, last=last)


def next_account(conn: Connection, merchant_id: str, *, after: Position) -> tuple[Position, str] | None:
    """Return the place and the customer of the account after a position, in the order of their numbers, if any."""
    values = {"merchant_id": merchant_id, "after_account_id": after.account_id}
    row = conn.execute(NEXT_ACCOUNT, values).one_or_none()
    return None if row is None else (Position(account_id=row.account_id), row.customer_id)


def record_terms(conn: Connection, terms: MerchantTerms, *, is_complete: bool) -> None:
    """Remember that the accounts of the merchant are computed by these terms, all of them or but for a few.

    Those few have the former time zone still, so that it stays the known one.
    """
    conn.execute(
        RECORD_TERMS,
        {
            "merchant_id": terms.merchant_id,
            "expiration_days": terms.points_expiration_days,
            "timezone": terms.timezone if is_complete else terms.known_timezone or terms.timezone,
            "is_program_active": terms.is_program_active,
            "is_complete": is_complete,
        },
    )


def _warning_values(terms: MerchantTerms, *, as_of: datetime, is_warning_required: bool) -> dict[str, object]:
    return {
        "merchant_id": terms.merchant_id,
        "timezone": terms.timezone,
        "warn_until": terms.warn_until,
        # Whoever need not be warned expires on time: only those who are not due yet are told, and no date moves.
        "not_before": "-infinity" if is_warning_required else as_of,
        "least_expires_at": terms.warn_until if is_warning_required else "-infinity",
    }


def count_warnings(
    conn: Connection, terms: MerchantTerms, *, as_of: datetime, is_warning_required: bool
) -> tuple[int, int, int]:
    """Return how many accounts would be warned, their points, and how many dates would move."""
    values = _warning_values(terms, as_of=as_of, is_warning_required=is_warning_required)
    row = conn.execute(COUNT_UNTOLD, values).one()
    late = conn.execute(COUNT_LATE_WARNINGS, values).scalar_one()
    return row.accounts, int(row.points), row.accounts_moved + late


def count_untold(conn: Connection, terms: MerchantTerms, *, as_of: datetime, is_warning_required: bool) -> int:
    """Return how many accounts are still to be warned."""
    values = _warning_values(terms, as_of=as_of, is_warning_required=is_warning_required)
    return conn.execute(COUNT_UNTOLD, values).one().accounts


def warn_page(
    conn: Connection,
    terms: MerchantTerms,
    *,
    run_id: str,
    as_of: datetime,
    is_warning_required: bool,
    after: Position,
    page_size: int,
) -> Page:
    """Warn a page of accounts after a position: outbox, the date it names, and the run's counters."""
    values = _warning_values(terms, as_of=as_of, is_warning_required=is_warning_required)
    row = conn.execute(WARN_PAGE, {**values, **_after(after), "page_size": page_size}).one()
    if row.accounts:
        _count(
            conn,
            terms.merchant_id,
            run_id,
            accounts_warned=row.accounts,
            points_warned=int(row.points),
            accounts_moved=row.accounts_moved,
        )
    return Page(
        accounts=row.accounts,
        points=int(row.points),
        accounts_moved=row.accounts_moved,
        last=_last(row, page_size),
    )


def void_warnings(conn: Connection, terms: MerchantTerms) -> None:
    """Give up on warnings that have not arrived and that are not true any more: another date, or nothing expires."""
    conn.execute(
        VOID_WARNINGS,
        {"merchant_id": terms.merchant_id, "timezone": terms.timezone, "is_expiring": terms.is_expiring},
    )


def renew_page(
    conn: Connection, terms: MerchantTerms, *, run_id: str, after_customer_id: str, page_size: int
) -> str | None:
    """Move the dates of a page of accounts whose warning could not be delivered; return the last customer, or None."""
    row = conn.execute(
        RENEW_PAGE,
        {
            "merchant_id": terms.merchant_id,
            "timezone": terms.timezone,
            "warn_until": terms.warn_until,
            "after_customer_id": after_customer_id,
            "page_size": page_size,
        },
    ).one()
    if row.accounts:
        _count(conn, terms.merchant_id, run_id, accounts_moved=row.accounts)
    return row.last_customer_id


def plan(
    conn: Connection,
    merchant_id: str,
    *,
    as_of: datetime,
    is_warning_required: bool,
    limits: Limits,
    begun: Begun | None = None,
) -> ExpiryPlan:
    """Return what would expire at a merchant now, compared with its own history; reads only.

    Of a run that goes on after a crash (`begun`) what it took before counts, too: it is one night.
    """
    row = conn.execute(
        PLAN, {"merchant_id": merchant_id, "as_of": as_of, "is_warning_required": is_warning_required}
    ).one()
    accounts_before = begun.accounts_expired if begun else 0
    most = limits.most(
        accounts_with_points=row.accounts_with_points + accounts_before,
        nights_compared=row.nights_compared,
        accounts_usual=row.accounts_usual,
    )
    return ExpiryPlan(
        accounts_with_points=row.accounts_with_points + accounts_before,
        accounts_due=row.accounts_due + accounts_before,
        points_due=int(row.points_due) + (begun.points_expired if begun else 0),
        accounts_waiting=row.accounts_waiting,
        nights_compared=row.nights_compared,
        accounts_usual=row.accounts_usual,
        accounts_limit=most,
    )


def save_plan(
    conn: Connection, merchant_id: str, run_id: str, planned: ExpiryPlan, *, is_accepted: bool = False
) -> None:
    """Write a plan into the merchant's run: the check reads it there. `is_accepted`: a person has set its limit."""
    conn.execute(
        SAVE_PLAN,
        {
            "merchant_id": merchant_id,
            "run_id": run_id,
            "is_accepted": is_accepted,
            "is_stopped": planned.is_stopped,
            **{name: getattr(planned, name) for name in ExpiryPlan.__dataclass_fields__},
        },
    )


def expire_page(
    conn: Connection,
    merchant_id: str,
    *,
    run_id: str,
    as_of: datetime,
    is_warning_required: bool,
    actor: str,
    after: Position,
    page_size: int,
) -> Page:
    """Take what is due from a page of accounts after a position: entries, balances, mails and the run's counters.

    Raises `PageDoesNotAddUpError` when entries and balances differ; the caller rolls back.
    """
    row = conn.execute(
        EXPIRE_PAGE,
        {
            "merchant_id": merchant_id,
            "run_id": run_id,
            "as_of": as_of,
            "is_warning_required": is_warning_required,
            "actor": actor,
            **_after(after),
            "page_size": page_size,
        },
    ).one()
    if row.points_in_entries != row.points_in_balances:
        raise PageDoesNotAddUpError(
            merchant_id=merchant_id, entries=int(row.points_in_entries), balances=int(row.points_in_balances)
        )
    if row.accounts:
        _count(conn, merchant_id, run_id, accounts_expired=row.accounts, points_expired=int(row.points_in_entries))
    return Page(accounts=row.accounts, points=int(row.points_in_entries), accounts_moved=0, last=_last(row, page_size))


def next_due(
    conn: Connection,
    merchant_id: str,
    *,
    is_warning: bool,
    until: datetime,
    is_warning_required: bool,
    after: Position,
) -> tuple[Position, str] | None:
    """Lock the account that a page of one after a position takes; return its place and customer. None: none is left."""
    row = conn.execute(
        NEXT_DUE,
        {
            "merchant_id": merchant_id,
            "is_warning": is_warning,
            "until": until,
            "is_warning_required": is_warning_required,
            **_after(after),
        },
    ).one_or_none()
    if row is None:
        return None
    return Position(expires_at=row.expires_at, account_id=row.account_id), row.customer_id


def finish_run(
    conn: Connection,
    merchant_id: str,
    *,
    run_id: str,
    as_of: datetime,
    accounts_locked: int,
    is_stopped: bool,
    is_expiring: bool = True,
) -> MerchantExpiry:
    """End a merchant's run, with a forecast of what is due a day later; return what it did.

    Without `is_expiring`, where the programme is off, nothing is forecast.
    """
    conn.execute(
        FINISH_RUN,
        {
            "merchant_id": merchant_id,
            "is_expiring": is_expiring,
            "run_id": run_id,
            "as_of": as_of,
            "accounts_locked": accounts_locked,
            "is_stopped": is_stopped,
        },
    )
    return run(conn, merchant_id, run_id)


def run(conn: Connection, merchant_id: str, run_id: str) -> MerchantExpiry:
    """Return a merchant's run as it is now."""
    (found,) = runs(conn, [merchant_id], run_id)
    return found


def runs(conn: Connection, merchants: Sequence[str], run_id: str) -> list[MerchantExpiry]:
    """Return a run as it is now for each of the merchants that it has come to."""
    return [_run(row) for row in conn.execute(RUNS, {"merchant_ids": list(merchants), "run_id": run_id})]


def _run(row: Row) -> MerchantExpiry:
    planned = None
    if row.accounts_limit is not None:
        planned = ExpiryPlan(**{name: getattr(row, name) for name in ExpiryPlan.__dataclass_fields__})
    expected = None
    if row.forecast_accounts_before is not None:
        expected = Forecast(accounts=row.forecast_accounts_before, points=row.forecast_points_before)
    return MerchantExpiry(
        merchant_id=row.merchant_id,
        run_id=row.run_id,
        plan=planned,
        forecast=expected,
        accounts_rescheduled=row.accounts_rescheduled,
        accounts_warned=row.accounts_warned,
        points_warned=row.points_warned,
        accounts_moved=row.accounts_moved,
        accounts_expired=row.accounts_expired,
        points_expired=row.points_expired,
        accounts_locked=row.accounts_locked,
        is_stopped=row.is_stopped,
    )


def forecast(
    conn: Connection, merchants: Sequence[str], *, next_run_at: datetime, days: int, is_by_customer: bool = False
) -> list[ForecastDay]:
    """Return what the coming days will bring per merchant and local date, if nobody is active; reads only.

    With `is_by_customer` each customer has days of its own.
    """
    rows = conn.execute(
        FORECAST,
        {
            "merchant_ids": list(merchants),
            "next_run_at": next_run_at,
            "days": days,
            "is_by_customer": is_by_customer,
        },
    )
    return [
        ForecastDay(
            merchant_id=row.merchant_id,
            customer_id=row.customer_id,
            day_on=row.day_on,
            **{
                name: int(getattr(row, name))
                for name in ("accounts_warned", "points_warned", "accounts_expired", "points_expired")
            },
        )
        for row in rows
    ]


def _after(position: Position) -> dict[str, object]:
    return {"after_expires_at": position.expires_at, "after_account_id": position.account_id}


def _last(row: Row, page_size: int) -> Position | None:
    # A page that is not full was the last.
    if row.accounts_read < page_size:
        return None
    return Position(expires_at=row.last_expires_at, account_id=row.last_account_id)


def _count(conn: Connection, merchant_id: str, run_id: str, **counters: int) -> None:
    names = (
        "accounts_rescheduled",
        "accounts_warned",
        "points_warned",
        "accounts_moved",
        "accounts_expired",
        "points_expired",
    )
    conn.execute(
        ADD_TO_RUN, {"merchant_id": merchant_id, "run_id": run_id, **{name: counters.get(name, 0) for name in names}}
    )
