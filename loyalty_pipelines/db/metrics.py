"""Reads what is measured from the views of revision 0007. None of them reads the ledger."""

from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import Connection, Row, TextClause
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db.engine import is_connection_loss
from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.metrics import METRICS, Measurements

LIMIT_TIME = load("metrics/limit_time")
INSTALLATION = load("metrics/installation")
AWARDS = load("metrics/awards")
POINT_UPDATES = load("metrics/point_updates")
INBOX = load("metrics/inbox")
QUEUE = load("metrics/queue")
FINDINGS = load("metrics/findings")
MAILS_UNDELIVERED = load("metrics/mails_undelivered")
MAILS_SETTLED = load("metrics/mails_settled")
LIABILITY = load("metrics/liability")
MERCHANTS = load("metrics/merchants")
LAST_SUCCESSES = load("metrics/last_successes")
SECONDS_TAKEN = load("metrics/seconds_taken")

AWARDED_TWICE = "order_awarded_twice"
# A finding with an amount and no currency; no merchant's money is counted in it.
UNKNOWN = "unknown"


def read_metrics(conn: Connection, *, merchant_id: str | None = None) -> Measurements:
    """Return what is measured of all merchants or of one.

    A shop that can't be read (its server is gone, a table was renamed) takes only its own part with it: then
    loyalty_shop_readable is 0.
    """
    conn.execute(LIMIT_TIME)
    found = _Found(conn, merchant_id)
    is_mapped = found.installation()
    found.awards()
    found.queue()
    found.findings()
    found.mails()
    found.liability(found.merchants(is_mapped=is_mapped))
    found.last_successes()
    found.time_taken()
    return Measurements(samples=found.samples)


class _Found:
    """Collects samples; rows that give the same labels are added up, so that no series is there twice."""

    def __init__(self, conn: Connection, merchant_id: str | None) -> None:
        self.samples: dict[str, dict[tuple[str, ...], float]] = {metric.name: {} for metric in METRICS}
        self._conn = conn
        self._merchant_id = merchant_id

    def _add(self, name: str, value: float | Decimal | None, *labels: str) -> None:
        """Add a number as PostgreSQL gave it; NULL is no sample."""
        if value is not None:
            samples = self.samples[name]
            samples[labels] = samples.get(labels, 0.0) + float(value)

    def _add_all(self, name: str, row: Row, columns: Sequence[str], *, prefix: str, suffix: str = "") -> None:
        """Add the columns `<prefix><label><suffix>` of a merchant's row, each with its label."""
        for label in columns:
            self._add(name, row._mapping[f"{prefix}{label}{suffix}"], row.merchant_id, label)

    def _rows(self, statement: TextClause) -> Sequence[Row]:
        return self._conn.execute(statement, {"merchant_id": self._merchant_id}).all()

    def awards(self) -> None:
        outcomes = ("changed", "unchanged", "queued", "skipped", "missing")
        statistics = ("median", "p95", "longest")
        for row in self._rows(AWARDS):
            self._add_all("loyalty_award_orders", row, outcomes, prefix="orders_")
            self._add_all("loyalty_award_batch_seconds", row, statistics, prefix="", suffix="_award_seconds")
            self._add_all("loyalty_award_wait_seconds", row, statistics, prefix="", suffix="_wait_seconds")
        for row in self._rows(POINT_UPDATES):
            self._add("loyalty_point_updates", row.point_updates, row.merchant_id)
            self._add("loyalty_point_updates_retried", row.point_updates_retried, row.merchant_id)
        for row in self._rows(INBOX):
            self._add("loyalty_inbox_orders", row.orders, row.merchant_id)
            self._add("loyalty_inbox_oldest_seconds", row.oldest_seconds, row.merchant_id)

    def queue(self) -> None:
        for row in self._rows(QUEUE):
            self._add_all("loyalty_queue_items", row, ("waiting", "retrying", "parked"), prefix="items_")
            self._add("loyalty_queue_oldest_seconds", row.oldest_seconds, row.merchant_id)
            self._add("loyalty_queue_points_at_stake", row.points_at_stake, row.merchant_id)
            self._add("loyalty_queue_tries", row.tries, row.merchant_id)

    def findings(self) -> None:
        self._add("loyalty_duplicate_awards", 0)
        for row in self._rows(FINDINGS):
            of_class = (row.merchant_id, row._mapping["class"])
            self._add("loyalty_findings", row.findings, *of_class, row.severity)
            # Most findings cost nothing.
            self._add("loyalty_findings_points", row.points_too_many or None, *of_class, "too_many")
            self._add("loyalty_findings_points", row.points_too_few or None, *of_class, "too_few")
            currency = row.currency or UNKNOWN
            self._add("loyalty_findings_amount_at_risk", row.amount_at_risk or None, *of_class, currency)
            if of_class[1] == AWARDED_TWICE:
                self._add("loyalty_duplicate_awards", row.findings)

    def mails(self) -> None:
        for row in self._rows(MAILS_UNDELIVERED):
            self._add_all("loyalty_mails_undelivered", row, ("waiting", "retrying", "failed"), prefix="mails_")
            self._add("loyalty_mails_oldest_seconds", row.oldest_seconds, row.merchant_id)
        for row in self._rows(MAILS_SETTLED):
            self._add("loyalty_mails_settled", row.mails, row.merchant_id, row.status)
            self._add("loyalty_mails_retried", row.mails_retried, row.merchant_id)

    def merchants(self, *, is_mapped: bool) -> dict[str, str]:
        """Add what the shop's merchants have; return their currencies, none where the shop can't be read."""
        rows = self._merchants() if is_mapped else None
        self._add("loyalty_shop_readable", int(rows is not None))
        for row in rows or ():
            if row.program_set_at is not None:
                expires = "true" if row.is_expiring else "false"
                at = row.program_set_at.timestamp()
                self._add("loyalty_program_set_timestamp_seconds", at, row.merchant_id, expires)
        return {row.merchant_id: row.currency for row in rows or () if row.currency}

    def _merchants(self) -> Sequence[Row] | None:
        try:
            with self._conn.begin_nested():
                return self._rows(MERCHANTS)
        except DBAPIError as error:
            if is_connection_loss(error):
                raise
            return None

    def liability(self, currencies: dict[str, str]) -> None:
        for row in self._rows(LIABILITY):
            self._add("loyalty_accounts", row.accounts, row.merchant_id)
            self._add("loyalty_first_account_timestamp_seconds", row.first_account_at.timestamp(), row.merchant_id)
            self._add("loyalty_liability_points", row.points, row.merchant_id)
            if row.merchant_id in currencies:
                self._add("loyalty_liability_amount", row.amount, row.merchant_id, currencies[row.merchant_id])

    def last_successes(self) -> None:
        for row in self._rows(LAST_SUCCESSES):
            for name, at in (("success", row.succeeded_at), ("failure", row.failed_at)):
                if at is not None:
                    metric = f"loyalty_job_last_{name}_timestamp_seconds"
                    self._add(metric, at.timestamp(), row.merchant_id, row.job)

    def installation(self) -> bool:
        """Add what there is once; return whether a mapping is in force."""
        row = self._conn.execute(INSTALLATION).one()
        self._add("loyalty_schema_info", 1, row.schema_version)
        self._add("loyalty_mapping_in_force", int(row.is_mapping_in_force))
        if row.mapping_applied_at is not None:
            self._add("loyalty_mapping_applied_timestamp_seconds", row.mapping_applied_at.timestamp())
        self._add("loyalty_oldest_snapshot_transactions", row.oldest_snapshot_transactions)
        self._add("loyalty_oldest_snapshot_seconds", row.oldest_snapshot_seconds)
        self._add("loyalty_metrics_collected_timestamp_seconds", row.collected_at.timestamp())
        return row.is_mapping_in_force

    def time_taken(self) -> None:
        self._add("loyalty_metrics_collection_seconds", self._conn.execute(SECONDS_TAKEN).scalar_one())
