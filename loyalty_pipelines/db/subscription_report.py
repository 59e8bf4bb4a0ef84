"""What the report on payments and subscriptions reads, from one snapshot, and who has sent its mail."""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from loyalty_pipelines.db import findings
from loyalty_pipelines.db.engine import reading, with_retries
from loyalty_pipelines.db.fix_plans import means_of
from loyalty_pipelines.db.sources import require_mapping
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.db.subscriptions import now
from loyalty_pipelines.domain.fixes import missing_actions
from loyalty_pipelines.domain.subscription_report import (
    DAYS,
    MAX_FINDINGS,
    MAX_FIXES,
    AgeLine,
    ClassLine,
    ComparedMerchant,
    RecentFix,
    SubscriptionReport,
    TrendLine,
)
from loyalty_pipelines.domain.subscriptions import JOB, SUBJECT

MERCHANTS = load("subscription_report/merchants")
CLASSES = load("subscription_report/classes")
AGES = load("subscription_report/ages")
TREND = load("subscription_report/trend")
FIXES = load("subscription_report/fixes")
LEASE_MAIL = load("subscription_report/lease_mail")
FINISH_MAIL = load("subscription_report/finish_mail")


def report_subscriptions(engine: Engine, merchant_id: str | None = None, *, timezone: ZoneInfo) -> SubscriptionReport:
    """Return the report of a merchant or of all, days in the given zone; raise `NoMappingError`."""

    def once() -> SubscriptionReport:
        with reading(engine, is_one_snapshot=True) as conn:
            return report(conn, merchant_id, timezone=timezone)

    return with_retries(once)


def report(conn: Connection, merchant_id: str | None, *, timezone: ZoneInfo) -> SubscriptionReport:
    """Return the report of a merchant or of all, as of the transaction; raise `NoMappingError`."""
    mapping = require_mapping(conn)
    as_of = now(conn)
    days = _days(as_of, timezone)
    values = {"subject": SUBJECT, "merchant_id": merchant_id}
    instants = [
        *(datetime.combine(one + timedelta(days=1), time(), tzinfo=timezone) for one in days[:-1]),
        as_of,
    ]
    return SubscriptionReport(
        as_of=as_of,
        days=days,
        merchants=[ComparedMerchant(**row) for row in conn.execute(MERCHANTS, {**values, "job": JOB}).mappings()],
        classes=[ClassLine(**row) for row in conn.execute(CLASSES, values).mappings()],
        ages=[
            AgeLine(
                merchant_id=row.merchant_id,
                currency=row.currency,
                bucket=row.bucket,
                findings=int(row.findings),
                amount=row.amount,
            )
            for row in conn.execute(AGES, values)
        ],
        trend=[
            TrendLine(
                merchant_id=row.merchant_id,
                currency=row.currency,
                day_on=days[row.number - 1],
                errors=int(row.errors),
                warnings=int(row.warnings),
                amount=row.amount,
            )
            for row in conn.execute(TREND, {**values, "since": instants[0], "instants": instants})
        ],
        fixes=[RecentFix(**row) for row in conn.execute(FIXES, {**values, "row_limit": MAX_FIXES}).mappings()],
        missing_actions=missing_actions(means_of(mapping)),
        findings=findings.findings(conn, subject=SUBJECT, merchant_id=merchant_id, limit=MAX_FINDINGS),
    )


def _days(as_of: datetime, timezone: ZoneInfo) -> Sequence[date]:
    """Return the days of the trend, today last."""
    today = as_of.astimezone(timezone).date()
    return [today - timedelta(days=number) for number in range(DAYS, -1, -1)]


def lease_mail(engine: Engine, *, on: date, run_id: str | None) -> bool:
    """Take the mail of a day on oneself; False: it was sent, or somebody else is at it."""

    def once() -> bool:
        with engine.begin() as conn:
            return conn.execute(LEASE_MAIL, {"sent_on": on, "run_id": run_id}).first() is not None

    return with_retries(once)


def finish_mail(engine: Engine, *, on: date, failure: str | None) -> None:
    """Remember that the mail of a day was sent, or why not: then the next run tries again."""

    def once() -> None:
        with engine.begin() as conn:
            conn.execute(FINISH_MAIL, {"sent_on": on, "failure": failure})

    with_retries(once)
